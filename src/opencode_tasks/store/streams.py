"""The tasks' streams of events: opened, locked, and mended before anybody uses them."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import state
from opencode_tasks.store.feed import Feed
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.store.stream import Loaded, Stream
from opencode_tasks.task import Lease, is_id

if TYPE_CHECKING:
    from opencode_tasks.store import damage


class Streams:
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

        kept = damage.put_in_place(self.layout.log(task_id), mended)
        # The first record after a gap vouches for it, so that what comes before can be read at all.
        return self._stream(task_id).mended(damage.repaired(mended, kept), actor="store")

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

    def _is_recovered(self, task_id: str) -> bool:
        """Whether the task was committed, and its process killed before its folder had its name."""
        if not self.layout.any_transaction():
            return False
        from opencode_tasks.store import transactions

        transactions.recover(self.layout, only=task_id, hot=self.hot)
        return self.layout.task(task_id).is_dir()


def _concerned(layout: Layout, task_id: str) -> bool:
    from opencode_tasks.store import transactions

    return transactions.concerns(layout, task_id)


class _TaskLock:
    """A class and no generator: every event pays for it."""

    def __init__(self, store: Streams, task_id: str) -> None:
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
