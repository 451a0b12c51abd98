"""One task's events: loaded into a Task, and appended to, under the task's lock."""

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks import fold
from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, Event, New
from opencode_tasks.fold import Folding
from opencode_tasks.store import files, log, state
from opencode_tasks.store.feed import Entry, Feed
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.log import Head, Segment
from opencode_tasks.store.state import Position
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.store.transactions import Append

_SNAPSHOT = ".snapshot.json"
Loaded = tuple[Task, Position]
_Stamp = tuple[int, int]


# What only counts things is folded by the next reader: `state.json` may be behind by so many events.
_BEHIND = 32
_COUNTED = frozenset({"command.started", "command.output", "command.finished", "container.changed", "commit.recorded"})


class Stream:
    """`clone_id` tells which of the task's writers is ours. One object is for one thread at a time."""

    def __init__(self, layout: Layout, task_id: str, clone_id: str, writer: str, to_feed: Feed) -> None:
        self._layout = layout
        self._feed = to_feed
        self.task_id = task_id
        self._clone_id, self._writer = clone_id, writer
        self._log = layout.log(task_id)
        self._state = str(layout.state(task_id))
        self._known: tuple[_Stamp, Loaded] | None = None
        self._projected = 0
        self._active = ("", 0, "")

    def load(self) -> Loaded:
        """The projection, if it is sound, and what the log has beyond it; else snapshots; else the whole log.

        Needs no lock. Raises `CorruptError`.
        """
        for task, at in self._starts():
            with suppress(_OutOfOrder):
                # Listed after the projection was read, so that it has whatever that knows of.
                return self._go_on(Folding(task), at, log.segments(self._log))
        return self.from_start()

    def from_start(self) -> Loaded:
        """Every record read and verified; no projection is used."""
        return self._go_on(Folding(), Position(), log.segments(self._log))

    def events(self, after: Position | None = None) -> Iterator[Event]:
        """Every event, in the order of the fold, each verified."""
        for event, _ in _merged(log.segments(self._log), after or Position()):
            yield event

    def newest(self, count: int) -> list[Event]:
        """The last events, in the order of the fold, at a cost that does not grow with the log."""
        found: list[Event] = []
        for parts in log.segments(self._log).values():
            wanted = count
            for part in reversed(parts):
                of_part = log.newest(part, wanted)
                found += of_part
                wanted -= len(of_part)
                if wanted <= 0:
                    break
        return sorted(found, key=lambda event: event.key)[-count:]

    def _starts(self) -> Iterator[Loaded]:
        """What may be believed without the log: the projection, then snapshots, newest first."""
        for path in self._projections():
            try:
                task, at = state.read(path)
            except (FileNotFoundError, state.OutdatedError):
                continue
            except CorruptError:
                with suppress(OSError):
                    state.keep_corrupt(path)
                continue
            if task.id == self.task_id:
                yield task, at

    def _projections(self) -> Iterator[Path]:
        yield Path(self._state)
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._log), reverse=True):
                if name.endswith(_SNAPSHOT):
                    yield self._log / name

    def _go_on(self, folding: Folding, at: Position, segments: dict[str, list[Segment]]) -> Loaded:
        for writer in at.heads:
            if writer not in segments:
                raise log.damaged(self._log / log.name_of(writer, 1), None, "The log is missing")
        heads, last = dict(at.heads), at.last
        for event, head in _merged(segments, at):
            key = (event.lam, event.w, event.seq)
            if key <= last:
                raise _OutOfOrder
            folding.step(event)
            heads[event.w], last = head, key
        task = folding.task()
        if task.id != self.task_id:
            raise CorruptError(
                f"{self._log.parent} holds the task {task.id}: the directory was copied or renamed by hand",
                hint=f"move it out of {self._log.parent.parent}; nothing in it is used",
            )
        return task, Position(heads, last)

    def remembered(self) -> Loaded | None:
        """What this process wrote last, when nobody has written since. Under the task's lock."""
        if self._known is None:
            return None
        stamp, loaded = self._known
        at = loaded[1]
        writer = self._own(at)
        try:
            if _stamp(self._state) == stamp:
                head = at.heads[writer]
                found = os.stat(self._path(writer, head))
                if found.st_size == head.size_bytes and found.st_mode & 0o222:
                    return loaded
        except (OSError, KeyError):
            return None
        return None

    def append(self, loaded: Loaded, new: Sequence[New], actor: str, *, epoch: int | None = None) -> Task:
        """Append one batch, durably, and replace the projection. Under the task's lock; `loaded` is what it gave.

        Raises `TaskError` when the batch is not possible now; nothing is written then.
        """
        made, at, path, offset, content_b = self._next_batch(loaded, new, actor, epoch)
        log.append(path, offset, content_b)
        if made.rev - self._projected < _BEHIND and all(type_ in _COUNTED for type_, _ in new):
            self._known = (self._known[0], (made, at)) if self._known else None
        else:
            self.project(made, at)
        return made

    def prepare(self, loaded: Loaded, new: Sequence[New], actor: str) -> "Append":
        """What a transaction will append. Under the task's lock, until the transaction is carried out."""
        from opencode_tasks.store.transactions import Append

        _, _, path, offset, content_b = self._next_batch(loaded, new, actor, None)
        return Append(self.task_id, Path(path).name, offset, content_b.decode())

    def _next_batch(
        self, loaded: Loaded, new: Sequence[New], actor: str, epoch: int | None
    ) -> tuple[Task, Position, str, int, bytes]:
        task, at = loaded
        fold.check(task, new)
        writer, head = self._ready(task, at)
        written, content_b, after = log.lines(writer, head, at.lam, actor, task.epoch if epoch is None else epoch, new)
        folding = Folding(task)
        for event in written:
            folding.step(event)
        made, at = folding.task(), Position({**at.heads, writer: after}, written[-1].key)
        # Before the event: a reader of the feed may find too much there, never too little.
        told = "+".join(label(n) for n in new)
        self._feed.note(Entry(self.task_id, made.rev, told))
        return made, at, self._path(writer, head), head.size_bytes, content_b

    def mended(self, told: New, *, actor: str) -> Loaded:
        """Append the event that tells of a repair, whose data vouches for what is missing. Under the task's lock.

        Until then the projections stay: they may be all that knows of what is missing at the end.
        """
        from opencode_tasks.store import damage

        self._known = None
        gaps = [damage.Gap(**gap) for gap in told[1]["gaps"]]
        old = list(self._projections()) if gaps else []
        for path in old:
            with suppress(FileNotFoundError):
                damage.keep(path)
        with damage.known_gaps(gaps):
            self.append(self.from_start(), (told,), actor)
        for path in old[1:]:
            path.unlink(missing_ok=True)
        return self.load()

    def project(self, task: Task, at: Position) -> None:
        with suppress(TaskError):  # the log has it; the projection catches up at the next write
            state.write(self._layout.state(self.task_id), task, at)
            self._known, self._projected = (_stamp(self._state), (task, at)), task.rev

    def _own(self, at: Position) -> str:
        """The task's log keeps the name it began with here: laptops change theirs with the network."""
        if self._writer in at.heads:
            return self._writer
        return next((w for w in at.heads if w.startswith(f"{self._clone_id}-")), self._writer)

    def _path(self, writer: str, head: Head) -> str:
        if self._active[:2] != (writer, head.segment):
            self._active = (writer, head.segment, str(self._log / log.name_of(writer, head.segment)))
        return self._active[2]

    def _ready(self, task: Task, at: Position) -> tuple[str, Head]:
        """Where the next batch goes: a torn end is cut off, a full segment sealed."""
        writer = self._own(at)
        head = at.heads.get(writer, Head())
        path = self._path(writer, head)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            # Not begun, or sealed and packed.
            if head.size_bytes == 0:
                return writer, head
            return writer, self._next(writer, head)
        if found.st_size > head.size_bytes:
            log.cut(Path(path), head.size_bytes)
        if head.size_bytes < log.SEAL_BYTES and found.st_mode & 0o222:
            return writer, head
        segment = Path(path)
        segment.chmod(0o444)  # sealed: whoever still believes it the newest sees it
        files.replace(self._snapshot(segment), state.render(task, at), durable=True)
        log.pack(Segment(writer, head.segment, segment))
        return writer, self._next(writer, head)

    def _next(self, writer: str, head: Head) -> Head:
        head = Head(head.segment + 1, head.seq, head.h, 0)
        with suppress(FileNotFoundError):  # nothing in it counts: `load` would have stood there otherwise
            log.cut(Path(self._path(writer, head)), 0)
        return head

    @staticmethod
    def _snapshot(segment: Path) -> Path:
        return segment.with_name(segment.name.removesuffix(log.SUFFIX) + _SNAPSHOT)


class _OutOfOrder(Exception):  # noqa: N818
    """Events of another writer belong before what is folded already."""


def label(new: New) -> str:
    type_, data = new
    return f"{type_}:{data['to']}" if type_ == "status.changed" else type_


def _stamp(path: str) -> _Stamp:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns


def _merged(segments: dict[str, list[Segment]], at: Position) -> Iterator[tuple[Event, Head]]:
    """What every writer has after `at`, in the order of the fold."""
    readers = [_of_writer(parts, at.heads.get(writer, Head())) for writer, parts in segments.items()]
    if len(readers) == 1:
        return readers[0]
    return heapq.merge(*readers, key=lambda found: found[0].key)


def _of_writer(parts: Sequence[Segment], head: Head) -> Iterator[tuple[Event, Head]]:
    lam = 0
    if head.segment > len(parts):
        raise log.damaged(parts[-1].path, head.seq, "The log ends before what was written")
    for part in parts[head.segment - 1 :]:
        if part.number != head.segment:
            head = Head(part.number, head.seq, head.h, 0)
        for event, reached in log.read(part, head):
            if event.lam <= lam:
                raise log.damaged(part.path, head.seq, "The order of the records is broken")
            lam, head = event.lam, reached
            yield event, head
