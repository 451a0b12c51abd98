"""Holding a task's container still while the host reads or writes its workspace.

A process inside could swap a directory for a link to a host path between git's check of
a path and its use. A frozen one cannot.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opencode_tasks.containers import direct, holds
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from opencode_tasks.task import Task


@contextmanager
def frozen(store: Store, task: Task) -> Iterator[None]:
    """Raises `TaskError` (code `not_frozen`) when the container may be running and cannot be held.

    Whoever wants it to run meanwhile waits.
    """
    with holds.still(store, task.id), _held(store.get(task.id)):
        yield


@contextmanager
def _held(task: Task) -> Iterator[None]:
    known = task.container
    if known.engine is None or known.name is None or known.state in ("none", "stopped"):
        yield
        return
    outcome = direct.pause(known.engine, known.name)
    if outcome in ("unreachable", "refused") and not known.engine.startswith("unix://"):
        outcome = _through_docker(known.name, pause=True)
    if outcome == "unreachable" and direct.has_processes(known.id):
        raise TaskError(
            f"The container of {task.id} is running and cannot be held still: no engine answers at {known.engine}",
            hint="start the engine again, then run the command again",
            code="not_frozen",
        )
    if outcome == "refused":
        raise TaskError(
            f"The engine refused to pause the container of {task.id}",
            hint=f"docker inspect {known.name}",
            code="not_frozen",
        )
    try:
        yield
    finally:
        if outcome == "done" and direct.unpause(known.engine, known.name) == "unreachable":
            _through_docker(known.name, pause=False)


def _through_docker(name: str, *, pause: bool) -> direct.Outcome:
    from opencode_tasks.containers.engine import Engine

    engine = Engine()
    found = engine.find(name)
    if found is None:
        return "no-container"
    if pause and found.state == "running":
        engine.pause(found.id)
        return "done"
    if not pause and found.state == "paused":
        engine.unpause(found.id)
        return "done"
    return "already"
