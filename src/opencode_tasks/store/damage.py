"""A log with wrong bytes in it: what is still sound, and what the store's history can give back.

Every line proves itself by its hash, and its place by the hash before. So sound lines may be
taken from wherever they are: the damaged file, and every version of it in `memory.git`. The
damaged file is kept beside the mended one.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks.events import GENESIS, CorruptError, Event, New, decode
from opencode_tasks.store import files, log, state
from opencode_tasks.store.log import Segment
from opencode_tasks.values import value

Versions = Callable[[str], Iterable[tuple[str, bytes]]]
"""Of a task's id: the name and content of every version of every segment that history has."""


@value
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


@value
class Mended:
    """`content` of each segment by file name, as it should be; `gaps`: the losses that are not told yet."""

    content: dict[str, bytes]
    gaps: tuple[Gap, ...]


@value
class _Line:
    """`own`: of the log itself, not of history."""

    event: Event
    line_b: bytes
    segment: int
    own: bool


@value
class _End:
    """What may follow `after`, the newest sound record in a file: `size_bytes` of lines that are not sound."""

    segment: int
    after: int
    size_bytes: float


_Lines = dict[str, dict[int, list[_Line]]]
"""Writer to sequence number to all the different lines that claim to be it, those of the log itself first."""


def mend(log_dir: Path, task_id: str, versions: Versions, known: dict[str, int]) -> Mended:
    """What the log should hold, from all there is. `known`: the newest record of each writer, where it is known.

    Raises `CorruptError` when the task's creation cannot be found.
    """
    lines, ends = _gather(log_dir, versions(task_id))
    sealed = _sealed(log_dir)
    content: dict[str, bytes] = {}
    chains: list[_Line] = []
    gaps: list[Gap] = []
    for writer in sorted({*lines, *known, *ends}):
        chain, lost = _chain(writer, lines.get(writer, {}))
        chains += chain
        gaps += lost
        last = chain[-1].event.seq if chain else 0
        newest = max(known.get(writer, 0), *sealed.get(writer, {0: 0}).values())
        if newest > last or _is_cut_short(chain, ends.get(writer, ()), sealed.get(writer, ())):
            gaps.append(Gap(writer, last, None, ""))
        numbers = {line.segment for line in chain} | {end.segment for end in ends.get(writer, ())}
        for number in range(1, max(numbers, default=0) + 1):  # one that is lost whole still has its place
            there = [line.line_b for line in chain if line.segment == number]
            content[log.name_of(writer, number)] = b"".join(there)
    if not any(line.event.seq == 1 and line.event.type == "task.created" for line in chains):
        raise log.damaged(log_dir, None, "Its first record is lost, here and in the store's history")
    told = [gap for line in chains for gap in _told(line.event)]
    return Mended(content, tuple(gap for gap in gaps if vars(gap) not in told))


def _gather(log_dir: Path, versions: Iterable[tuple[str, bytes]]) -> tuple[_Lines, dict[str, list[_End]]]:
    """Every sound line there is, and how each file of the log ends."""
    lines: _Lines = {}
    ends: dict[str, list[_End]] = {}
    for segment in _present(log_dir):
        try:
            end = _add(lines, segment.number, log.content(segment), own=True)
        except CorruptError:
            end = _End(segment.number, 0, float("inf"))
        ends.setdefault(segment.writer, []).append(end)
    for name, content_b in versions:
        kept = log.parse_name(log_dir / name)
        if kept is not None:
            _add(lines, kept.number, content_b, own=False)
    return lines, ends


def _add(lines: _Lines, segment: int, content_b: bytes, *, own: bool) -> _End:
    """Raises `TaskError` for a record of a newer schema: nothing is mended that is not understood."""
    after, unsound = 0, 0
    for line_b in content_b.splitlines(keepends=True):
        try:
            event = decode(line_b)
        except CorruptError:
            if line_b.endswith(b"\n") or not log.is_torn(line_b):
                unsound += len(line_b)
            continue
        if event.seq > after + 1:
            unsound = 0  # that was what is missing here
        after = max(after, event.seq)
        same = lines.setdefault(event.w, {}).setdefault(event.seq, [])
        if all(line.event.h != event.h for line in same):
            same.append(_Line(event, line_b, segment, own))
    return _End(segment, after, unsound)


def _present(log_dir: Path) -> Iterator[Segment]:
    """The segments of every writer, the plain one of two twins; it need not be all of them."""
    seen: set[tuple[str, int]] = set()
    for path in sorted(log_dir.iterdir()) if log_dir.is_dir() else ():
        segment = log.parse_name(path)
        if segment is not None and (segment.writer, segment.number) not in seen:
            seen.add((segment.writer, segment.number))
            yield segment


def _sealed(log_dir: Path) -> dict[str, dict[int, int]]:
    """Of every writer: the last record of each segment of which a snapshot tells."""
    found: dict[str, dict[int, int]] = {}
    for path in log_dir.glob("*.snapshot.json"):
        with suppress(FileNotFoundError, CorruptError):
            for writer, head in state.read(path)[1].heads.items():
                by_number = found.setdefault(writer, {})
                by_number[head.segment] = max(head.seq, by_number.get(head.segment, 0))
    return found


def _chain(writer: str, by_seq: dict[int, list[_Line]]) -> tuple[list[_Line], list[Gap]]:
    """The records in their order. Backwards: each names the one before, so no choice is a guess.

    What history has beyond the log counts only if it goes on from there: a write that failed was taken
    back, and after a loss at the end other records have got the same numbers.
    """
    chain, gaps = _backwards(writer, by_seq)
    own = max((seq for seq, same in by_seq.items() if same[0].own), default=0)
    if 0 < own < max(by_seq, default=0) and by_seq[own][0] not in chain:
        return _backwards(writer, {seq: same for seq, same in by_seq.items() if seq <= own})
    return chain, gaps


def _backwards(writer: str, by_seq: dict[int, list[_Line]]) -> tuple[list[_Line], list[Gap]]:
    chain: list[_Line] = []
    gaps: list[Gap] = []
    wanted: str | None = None
    for seq in range(max(by_seq, default=0), 0, -1):
        fitting = [line for line in by_seq.get(seq, ()) if wanted is None or line.event.h == wanted]
        if not chain and fitting and fitting[0].event.follow_on:
            continue  # the end of its batch was never written
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


def _is_cut_short(chain: list[_Line], ends: Iterable[_End], sealed: Container[int]) -> bool:
    """Whether the log went on after the chain: unsound lines at the end of a file that no sound ones make up for.

    `sealed`: the segments whose last record is known.
    """
    last = chain[-1].segment if chain else 0
    for end in ends:
        if end.segment >= last and end.segment not in sealed:
            there = (line for line in chain if line.segment == end.segment and line.event.seq > end.after)
            if end.size_bytes > sum(len(line.line_b) for line in there):
                return True
    return False


def _told(event: Event) -> list[object]:
    """The gaps for which a repair vouches."""
    if event.type != "log.repaired":
        return []
    with suppress(CorruptError):
        gaps = event.data.get("gaps")
        return gaps if isinstance(gaps, list) else []
    return []


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
        kept += [keep(old) for old in (path, packed) if old.exists()]
        # The plain file first: it stands before its packed twin, so there is no moment without the log.
        files.replace(path, content_b, durable=True)
        with files.refused_writes(packed):
            packed.unlink(missing_ok=True)
    return kept


def keep(path: Path) -> Path:
    """Give a damaged file a second name, under which it stays when it is replaced."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    with files.refused_writes(path):
        aside.hardlink_to(path)
    return aside


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
    for segment in _present(log_dir):
        with suppress(CorruptError):
            for line_b in log.content(segment).splitlines(keepends=True):
                if b'"type":"log.repaired"' in line_b and wanted in _told(decode(line_b)):
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
