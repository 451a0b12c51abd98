"""Records that are written in groups: what a command prints, what a tool was called with.

Kept for at most 50 ms or 64 records before they are in the log, which is what a killed
process may lose of them. State, decisions, leases and checkpoints never go this way.
"""

import threading
from collections.abc import Mapping, Sequence

from opencode_tasks.errors import TaskError
from opencode_tasks.events import New
from opencode_tasks.store.registry import Store

MOST_WAITING = 64
LONGEST_WAIT_S = 0.05
_LONGEST_TEXT = 64 * 1024


class Audit:
    """Use as a context: what waits at its end is written. `write` may be called from any thread."""

    def __init__(self, store: Store, task_id: str, *, actor: str) -> None:
        self._store = Store(store.layout.common_dir, hot=True)  # the caller's is the caller's thread's
        self._task_id, self._actor = task_id, actor
        self._waiting: list[New] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Audit":
        return self

    def __exit__(self, *raised: object) -> None:
        self.flush()

    def write(self, type_: str, data: Mapping[str, str], *, joined: str = "") -> None:
        """`joined`: the field in which this continues the record before, when all else is the same."""
        with self._lock:
            if not (joined and self._continued(type_, data, joined)):
                self._waiting.append((type_, dict(data)))
            full = len(self._waiting) >= MOST_WAITING
            if not full and self._timer is None:
                self._timer = threading.Timer(LONGEST_WAIT_S, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self.flush()

    def _continued(self, type_: str, data: Mapping[str, str], field: str) -> bool:
        if not self._waiting:
            return False
        last_type, last = self._waiting[-1]
        same = last_type == type_ and {**last, field: ""} == {**data, field: ""}
        if not same or field not in last or field not in data or len(last[field]) > _LONGEST_TEXT:
            return False
        self._waiting[-1] = (type_, {**last, field: last[field] + data[field]})
        return True

    def flush(self) -> None:
        """In the log, durably, when it returns. What the store refuses (a full disk, a deleted task) is dropped."""
        with self._writing:  # in the order they were written
            with self._lock:
                new, self._waiting = self._waiting, []
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            self._record(new)

    def _record(self, new: Sequence[New]) -> None:
        try:
            if new:
                self._store.record(self._task_id, *new, actor=self._actor)
        except TaskError as e:
            if e.code == "too_large" and len(new) > 1:  # one of them, or all together
                for one in new:
                    self._record([one])
        except OSError:
            return
