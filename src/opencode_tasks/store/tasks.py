"""One task at a time: its events read, appended to, and mended."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks import fold
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError, Event, New
from opencode_tasks.store import state
from opencode_tasks.store.feed import Feed
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.store.state import Position
from opencode_tasks.store.stream import Loaded, Stream
from opencode_tasks.task import Lease, Status, Task, is_id

if TYPE_CHECKING:
    from opencode_tasks.store import damage


class Tasks:
    """`hot` is for git hooks: the same locks and bytes with fewer imports.

    Every method may be called by several processes at the same time; one object is for one thread at
    a time. `versions` gives back what the store's history knows of a task's log. `under`: the lease, and of
    which task, under which this object writes when a call names none.
    """

    def __init__(
        self,
        common_dir: Path,
        *,
        hot: bool = False,
        versions: "damage.Versions | None" = None,
        under: tuple[str, Lease] | None = None,
    ) -> None:
        self.layout = Layout(common_dir)
        self.hot = hot
        self.under = under
        self.written: list[str] = []
        """The types of the events that this object appended, for whoever commits the store's history."""
        self._versions = versions or (lambda _: ())
        self._feed = Feed(self.layout.feed)
        self._streams: dict[str, Stream] = {}
        self._names: tuple[str, str] | None = None

    def exists(self) -> bool:
        return self.layout.store.is_dir()

    def require(self) -> None:
        """Raises `TaskError` (code `not_initialised`)."""
        if not self.exists():
            raise TaskError("This repository has no task store", hint="opencode-tasks init", code="not_initialised")

    @property
    def clone_id(self) -> str:
        return self._writer_names()[0]

    @property
    def writer(self) -> str:
        """This clone on this host: never a process, so that a log has few writers."""
        return self._writer_names()[1]

    def _writer_names(self) -> tuple[str, str]:
        if self._names is None:
            try:
                clone = self.layout.clone.read_text().strip()
            except FileNotFoundError as e:
                raise TaskError(f"{self.layout.clone} is missing", hint="opencode-tasks init") from e
            host = re.sub(r"[^a-z0-9]+", "-", os.uname().nodename.lower()).strip("-") or "host"
            self._names = clone, f"{clone}-{host[:32]}"
        return self._names

    def record(
        self, task_id: str, *new: New, actor: str, expected_rev: int | None = None, lease: Lease | None = None
    ) -> Task:
        """Append events as one batch and bring the projection up to date; the task as it is then.

        Refused whole, with nothing written: when one of them is not possible now (`TaskError`, code
        `transition` or `deleted`), when the task is not at `expected_rev` (`ConflictError`, with what
        happened since), when `lease` is not held any more (`FencedError`).
        """
        with self._locked_task(task_id) as loaded:
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
        """A tombstone: the task is listed no more and takes no more events; its memory stays."""
        return self.record(
            task_id, ("task.deleted", {"reason": reason}), actor=actor, expected_rev=expected_rev, lease=lease
        )

    def _is_recovered(self, task_id: str) -> bool:
        """Whether the task was committed, and its process killed before its folder had its name."""
        if not self.layout.any_transaction():
            return False
        from opencode_tasks.store import transactions

        transactions.recover(self.layout, only=task_id, hot=self.hot)
        return self.layout.task(task_id).is_dir()

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

    def _locked_task(self, task_id: str) -> "_TaskLock":
        """Hold the task's lock; gives the task as it is then."""
        if task_id not in self._streams:
            self._require_task(task_id)
        return _TaskLock(self, task_id)

    def _sound(self, task_id: str) -> Loaded:
        """The task, its log mended when nothing is lost by that. Under the task's lock."""
        stream = self._stream(task_id)
        found = stream.remembered()
        if found is not None:
            return found
        self._require_task(task_id)
        try:
            return stream.load()
        except CorruptError as e:
            return self._mend(task_id, e)

    def _mend_unread(self, task_id: str, found: CorruptError) -> None:
        """Where the projection is sound, and only who reads every record met it. Under the task's lock."""
        with suppress(CorruptError):
            for _ in self._stream(task_id).events():
                pass
            return  # another process has mended it since
        self._mend(task_id, found)

    def _mend(self, task_id: str, found: CorruptError) -> Loaded:
        """Raises `found` when something would be lost by it. Under the task's lock."""
        try:
            mended = self._mendable(task_id)
        except CorruptError:
            raise found from None
        if mended.gaps:
            raise found
        self.written.append("log.repaired")
        return self._put_in_place(task_id, mended)

    def _mendable(self, task_id: str) -> "damage.Mended":
        from opencode_tasks.store import damage

        known: dict[str, int] = {}
        with suppress(FileNotFoundError, CorruptError):
            _, at = state.read(self.layout.state(task_id))
            known = {writer: head.seq for writer, head in at.heads.items()}
        return damage.mend(self.layout.log(task_id), task_id, self._versions, known)

    def _put_in_place(self, task_id: str, mended: "damage.Mended") -> Loaded:
        from opencode_tasks.store import damage

        stream = self._stream(task_id)
        stream.forget_projections()
        kept = damage.put_in_place(self.layout.log(task_id), mended)
        # The first record after a gap vouches for it, so that what comes before can be read at all.
        return stream.mended(damage.repaired(mended, kept), actor="store")

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

    def _stream(self, task_id: str) -> Stream:
        found = self._streams.get(task_id)
        if found is None:
            if len(self._streams) >= 256:
                self._streams.clear()
            found = self._streams[task_id] = Stream(self.layout, task_id, *self._writer_names(), self._feed)
        return found

    def _require_task(self, task_id: str) -> None:
        if not is_id(task_id) or not (self.layout.task(task_id).is_dir() or self._is_recovered(task_id)):
            raise NoTaskError(f"There is no task {task_id}", hint="opencode-tasks list-tasks")


def _concerned(layout: Layout, task_id: str) -> bool:
    from opencode_tasks.store import transactions

    return transactions.concerns(layout, task_id)


class _TaskLock:
    """A class and no generator: every event pays for it."""

    def __init__(self, store: Tasks, task_id: str) -> None:
        self._store, self._task_id = store, task_id
        self._lock = locked(store.layout.lock(task_id), hot=store.hot)

    def __enter__(self) -> Loaded:
        store, task_id = self._store, self._task_id
        while True:
            if store.layout.any_transaction():
                from opencode_tasks.store import transactions

                transactions.recover(store.layout, only=task_id, hot=store.hot)
            self._lock.__enter__()
            try:
                # Else: committed, and its process killed, since we looked.
                if not store.layout.any_transaction() or not _concerned(store.layout, task_id):
                    return store._sound(task_id)
            except BaseException:
                self._lock.__exit__(None, None, None)
                raise
            self._lock.__exit__(None, None, None)
            self._lock = locked(store.layout.lock(task_id), hot=store.hot)

    def __exit__(self, *raised: object) -> None:
        self._lock.__exit__(None, None, None)


def login() -> str:
    """Who runs us, for the log."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
