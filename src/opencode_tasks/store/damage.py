"""A log with wrong bytes in it: what is still sound, and what the store's history can give back.

Every line proves itself by its hash, and its place by the hash before. So sound lines may be
taken from wherever they are: the damaged file, and every version of it in `memory.git`. The
damaged file is kept beside the mended one.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, CorruptError, Event, New, decode
from opencode_tasks.store import files, log
from opencode_tasks.store.log import Segment

Versions = Callable[[str], Iterable[tuple[str, bytes]]]
"""Of a task's id: the name and content of every version of every segment that history has."""


@dataclass(frozen=True)
class Gap:
    """Records of `writer` that nothing has any more: those after `after` and before `before` (None: to the end)."""

    writer: str
    after: int
    before: int | None
    prev: str

    def __str__(self) -> str:
        first = self.after + 1
        if self.before is None:
            return f"records from {first} on of {self.writer}"
        return f"records {first} to {self.before - 1} of {self.writer}"


@dataclass(frozen=True)
class Mended:
    """`content` of each segment by file name, as it should be; `gaps` where records are lost."""

    content: dict[str, bytes]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class _Line:
    event: Event
    line_b: bytes
    file: str


def mend(log_dir: Path, task_id: str, versions: Versions, known: dict[str, int]) -> Mended:
    """What the log should hold, from all there is. `known`: the newest record of each writer, where it is known.

    Raises `CorruptError` when not even the first record can be found.
    """
    lines = _sound(log_dir, versions(task_id))
    content: dict[str, bytes] = {}
    gaps: list[Gap] = []
    for writer in sorted({*lines, *known}):
        chain, lost = _chain(writer, lines.get(writer, {}), known.get(writer, 0))
        gaps += lost
        for line in chain:
            content[line.file] = content.get(line.file, b"") + line.line_b
    for segment in [s for name in list(content) if (s := log.parse_name(log_dir / name))]:
        for number in range(1, segment.number):  # one that is lost whole still has its place
            content.setdefault(log.name_of(segment.writer, number), b"")
    if not content:
        raise log.damaged(log_dir, None, "No record of it is left, here or in the store's history")
    return Mended(content, tuple(gaps))


def _sound(log_dir: Path, versions: Iterable[tuple[str, bytes]]) -> dict[str, dict[int, list[_Line]]]:
    found: dict[str, dict[int, list[_Line]]] = {}
    for name, content_b in (*_present(log_dir), *versions):
        for line_b in content_b.splitlines(keepends=True):
            try:
                event = decode(line_b)
            except TaskError:
                continue
            same = found.setdefault(event.w, {}).setdefault(event.seq, [])
            if all(line.event.h != event.h for line in same):
                same.append(_Line(event, line_b, name))
    return found


def _present(log_dir: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(log_dir.iterdir()) if log_dir.is_dir() else ():
        segment = log.parse_name(path)
        if segment is not None:
            try:
                yield log.name_of(segment.writer, segment.number), log.content(segment)
            except CorruptError:
                continue


def _chain(writer: str, by_seq: dict[int, list[_Line]], known: int) -> tuple[list[_Line], list[Gap]]:
    """The records in their order. Backwards: each names the one before, so no choice is a guess."""
    last = max(by_seq, default=0)
    gaps = [Gap(writer, last, None, "")] if known > last else []
    chain: list[_Line] = []
    wanted: str | None = None
    for seq in range(last, 0, -1):
        fitting = [line for line in by_seq.get(seq, ()) if wanted is None or line.event.h == wanted]
        if fitting:
            chain.append(fitting[0])
            wanted = fitting[0].event.prev
        elif wanted is not None:
            before = next((s for s in range(seq, 0, -1) if by_seq.get(s)), 0)
            gaps.append(Gap(writer, before, seq + 1, wanted))
            wanted = None
    if wanted not in (None, GENESIS):
        gaps.append(Gap(writer, 0, 1, wanted or ""))
    return chain[::-1], gaps


def repaired(mended: Mended, kept: Iterable[Path]) -> New:
    """The event that tells of it, and that vouches for the gaps."""
    return "log.repaired", {
        "lost": "; ".join(map(str, mended.gaps)),
        "kept": [path.name for path in kept],
        "gaps": [vars(gap) for gap in mended.gaps],
    }


def put_in_place(log_dir: Path, mended: Mended) -> list[Path]:
    """Write the mended segments; the damaged ones that are kept. Under the task's lock."""
    kept: list[Path] = []
    with files.refused_writes(log_dir):
        log_dir.mkdir(parents=True, exist_ok=True)
    for name, content_b in mended.content.items():
        path = log_dir / name
        packed = path.with_name(f"{name}.gz")
        if _same(path, packed, content_b):
            continue
        for old in (path, packed):
            if old.exists():
                aside = old.with_name(f"{old.name}.corrupt-{time.time_ns()}")
                with files.refused_writes(old):
                    aside.hardlink_to(old)
                kept.append(aside)
        # The plain file first: it stands before its packed twin, so there is no moment without the log.
        files.replace(path, content_b, durable=True)
        packed.unlink(missing_ok=True)
    return kept


def _same(path: Path, packed: Path, content_b: bytes) -> bool:
    for there in (path, packed):
        segment = log.parse_name(there)
        if there.exists() and segment is not None:
            try:
                return log.content(segment) == content_b
            except CorruptError:
                return False
    return False


def vouched(log_dir: Path, after: int, event: Event) -> bool:
    """Whether a repair has told that the records between `after` and `event` are lost."""
    wanted = {"writer": event.w, "after": after, "before": event.seq, "prev": event.prev}
    if any(vars(gap) == wanted for gap in _accepted):
        return True
    for _, content_b in _present(log_dir):
        for line_b in content_b.splitlines(keepends=True):
            if b'"type":"log.repaired"' in line_b:
                try:
                    gaps = decode(line_b).data["gaps"]
                except (TaskError, KeyError):
                    continue
                if wanted in gaps:
                    return True
    return False


_accepted: list[Gap] = []


@contextmanager
def known_gaps(gaps: Iterable[Gap]) -> Iterator[None]:
    """While the event that vouches for them is being written."""
    _accepted.extend(gaps)
    try:
        yield
    finally:
        _accepted.clear()


def marks(log_dir: Path) -> list[str]:
    """What was kept aside, for `doctor` to tell of."""
    if not log_dir.is_dir():
        return []
    return sorted(p.name for p in log_dir.iterdir() if ".torn-" in p.name or ".corrupt-" in p.name)
