"""One task at a time: its events recorded and read."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from opencode_tasks import fold
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.events import CorruptError, Event, New
from opencode_tasks.store.locks import locked
from opencode_tasks.store.state import Position
from opencode_tasks.store.stream import Loaded
from opencode_tasks.store.streams import Streams
from opencode_tasks.task import Lease, Status, Task


class Tasks(Streams):
    """What is done with a task whose stream is sound."""

    def record(
        self,
        task_id: str,
        *new: New,
        actor: str,
        expected_rev: int | None = None,
        lease: Lease | None = None,
        has_happened: bool = False,
    ) -> Task:
        """Append events as one batch and bring the projection up to date; the task as it is then.

        Refused whole, with nothing written: when one of them is not possible now (`TaskError`, code
        `transition` or `deleted`), when the task is not at `expected_rev` (`ConflictError`, with what
        happened since), when `lease` is not held any more (`FencedError`). `has_happened`: how a command ended,
        a commit that was made; to be recorded whoever holds the lease by now.
        """
        with self._locked_task(task_id) as loaded:
            if not has_happened:
                lease = self._require_current(loaded[0], expected_rev, lease)
            return self._append(task_id, loaded, new, actor, lease)

    def ensure_status(
        self,
        task_id: str,
        to: Status,
        *,
        reason: str,
        actor: str,
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> Task:
        """`record` a change of status unless the task has it already."""
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            lease = self._require_current(task, expected_rev, lease)
            if task.status == to:
                return task
            change = ("status.changed", {"from": task.status, "to": to, "reason": reason})
            return self._append(task_id, loaded, (change,), actor, lease)

    def update(
        self,
        task_id: str,
        changes: Mapping[str, object],
        *,
        actor: str,
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> Task:
        """Set title, image, owner, parent or depends_on."""
        with self._locked_task(task_id) as loaded:
            lease = self._require_current(loaded[0], expected_rev, lease)
            return self._append(task_id, loaded, (fold.update(loaded[0], changes),), actor, lease)

    def delete(
        self, task_id: str, *, reason: str, actor: str, expected_rev: int | None = None, lease: Lease | None = None
    ) -> Task:
        """A tombstone: the task is listed no more and takes no events but `undelete`; its memory stays."""
        return self.record(
            task_id, ("task.deleted", {"reason": reason}), actor=actor, expected_rev=expected_rev, lease=lease
        )

    def undelete(self, task_id: str, *, reason: str, actor: str) -> Task:
        """Of a task that is not deleted: nothing is written."""
        with self._locked_task(task_id) as loaded:
            if loaded[0].deleted_at is None:
                return loaded[0]
            return self._append(task_id, loaded, (("task.undeleted", {"reason": reason}),), actor, None)

    def get(self, task_id: str) -> Task:
        """Raises `NoTaskError`, or `CorruptError` when the log itself is damaged beyond what history holds."""
        self._require_task(task_id)
        if self.layout.any_transaction():
            from opencode_tasks.store import transactions

            with suppress(TaskError):  # a store that cannot be written is read as it is
                transactions.recover(self.layout, only=task_id, hot=self.hot)
        try:
            return self._stream(task_id).load()[0]
        except CorruptError as e:
            with suppress(TaskError), self._locked_task(task_id) as (task, _):
                return task
            raise e from None

    def load(self, task_id: str) -> Loaded:
        """The task and how far its log is folded, as it is right now; nothing is mended. Raises as `get`."""
        self._require_task(task_id)
        return self._stream(task_id).load()

    def from_start(self, task_id: str) -> Task:
        """The task as every record of its log says, without any projection."""
        self._require_task(task_id)
        return self._stream(task_id).from_start()[0]

    def events_after(self, task_id: str, at: Position | None) -> Iterator[Event]:
        """The events after `at`, in the order of the fold."""
        self._require_task(task_id)
        yield from self._stream(task_id).events(at)

    def history(self, task_id: str) -> Iterator[Event]:
        """Every event of the task, in the order of the fold, each verified; a damaged log is mended as in `get`."""
        self._require_task(task_id)
        told = 0
        try:
            for event in self._stream(task_id).events():
                yield event
                told += 1
        except CorruptError as e:
            with suppress(TaskError), self._locked_task(task_id):
                self._mend_unread(task_id, e)
            events = self._stream(task_id).events()
            yield from (event for n, event in enumerate(events) if n >= told)

    def kept_aside(self, task_id: str) -> list[str]:
        """Torn ends and damaged files of the task, which were copied before they were mended."""
        from opencode_tasks.store import damage

        return damage.marks(self.layout.task(task_id)) + damage.marks(self.layout.log(task_id))

    def repair(self, task_id: str) -> Task:
        """Mend the log from history as far as that goes; what is lost is told in the task's `degraded`."""
        with locked(self.layout.lock(task_id), hot=self.hot):
            self.written.append("log.repaired")
            return self._put_in_place(task_id, self._mendable(task_id))[0]

    def require_rev(self, task_id: str, expected_rev: int | None) -> None:
        """Raises `ConflictError`, with what happened since, unless the task is at `expected_rev` (None: any)."""
        if expected_rev is not None:
            self._require_rev(self.get(task_id), expected_rev)

    def _append(self, task_id: str, loaded: Loaded, new: Sequence[New], actor: str, lease: Lease | None) -> Task:
        task = self._stream(task_id).append(loaded, new, actor, epoch=lease.epoch if lease else None)
        self.written += [type_ for type_, _ in new]
        return task

    def _require_current(self, task: Task, expected_rev: int | None, lease: Lease | None) -> Lease | None:
        """The lease under which to write."""
        if lease is None and self.under is not None and self.under[0] == task.id:
            lease = self.under[1]
        if lease is not None:
            from opencode_tasks.store import leases

            leases.require_held(task, lease)
        self._require_rev(task, expected_rev)
        return lease

    def _require_rev(self, task: Task, expected_rev: int | None) -> None:
        if expected_rev is None or task.rev == expected_rev:
            return
        missed = max(0, task.rev - expected_rev)
        since = self._stream(task.id).newest(min(5, missed)) if missed else []
        told = "; ".join(f"{e.type} by {e.actor} at {e.ts}" for e in since) or "nothing: you are ahead of it"
        raise ConflictError(
            f"Task {task.id} is at revision {task.rev}, and you go by {expected_rev}. What happened since: {told}",
            hint=f"opencode-tasks task-history {task.id} --after {task.rev - missed}; then try again from {task.rev}",
        )


def login() -> str:
    """Who runs us, for the log."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
