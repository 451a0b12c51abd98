"""Who keeps a task's container as it is: locks between the processes of the host.

`.used`, shared: a command runs in it, and it is not made anew. `.still`: the host reads or writes the workspace, and
nobody starts or thaws it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from opencode_tasks.store import Store
from opencode_tasks.store.locks import LockTimeout, locked, shared

# A checkpoint of many files takes its time.
_PATIENCE_S = 600.0


def used(store: Store, task_id: str) -> AbstractContextManager[None]:
    """While a command runs."""
    return shared(store.layout.lock(f"{task_id}.used"), timeout_s=_PATIENCE_S)


def set_up(store: Store, task_id: str) -> AbstractContextManager[None]:
    """While what the project wants run first is run."""
    return locked(store.layout.lock(f"{task_id}.set-up"), timeout_s=_PATIENCE_S, hot=True)


def when_unused(store: Store, task_id: str, do: Callable[[], None]) -> bool:
    """Whether nobody's command ran, so that `do` was done."""
    try:
        with locked(store.layout.lock(f"{task_id}.used"), timeout_s=0, hot=True):
            do()
    except LockTimeout:
        return False
    return True


def still(store: Store, task_id: str, *, timeout_s: float = _PATIENCE_S) -> AbstractContextManager[None]:
    return locked(store.layout.lock(f"{task_id}.still"), timeout_s=timeout_s, hot=True)
