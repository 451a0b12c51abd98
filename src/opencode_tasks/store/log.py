"""Layer 2: the append-only event log of one task, which is the truth.

Only whole lines count. A process killed in `write` leaves a torn last line; the next
append keeps a copy of it and truncates to the last good newline. Bytes that are wrong
*inside* the log are never cut: reading raises `CorruptError`.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opencode_tasks.events import GENESIS, CorruptError, Data, Event, decode, encode
from opencode_tasks.store import files

_FSYNC = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


@dataclass(frozen=True)
class Head:
    """Where a log ends: what the next event continues."""

    seq: int = 0
    lam: int = 0
    h: str = GENESIS
    size_bytes: int = 0


def segment(log_dir: Path, writer: str) -> Path:
    return log_dir / f"{writer}-000001.jsonl"


def now() -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns // 1_000_000:03d}Z"


def append(
    path: Path, writer: str, head: Head, actor: str, new: Sequence[tuple[str, Data]]
) -> tuple[list[Event], Head]:
    """Append under the task's lock; durable when it returns. The events, and where the log ends now.

    All of `new` or, after a failed write, nothing. Raises `TaskError` (code `disk_full`
    or `read_only`); the log is then as it was.
    """
    events: list[Event] = []
    lines: list[bytes] = []
    seq, lam, prev = head.seq, head.lam, head.h
    for type_, data in new:
        seq, lam = seq + 1, lam + 1
        event, line_b = encode(Event(writer, seq, lam, now(), actor, 0, type_, data, prev))
        prev = event.h
        events.append(event)
        lines.append(line_b)
    with files.refused_writes(path):
        is_new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            size = _write_or_undo(fd, b"".join(lines))
        finally:
            os.close(fd)
        if is_new:
            files.sync_dir(path.parent)
    return events, Head(seq, lam, prev, size)


def _write_or_undo(fd: int, content_b: bytes) -> int:
    before = os.fstat(fd).st_size
    try:
        files.write_all(fd, content_b)
        _FSYNC(fd)
    except OSError:
        os.ftruncate(fd, before)
        raise
    return before + len(content_b)


def repair_tail(path: Path, *, written_bytes: int = 0) -> Path | None:
    """Cut a torn last line off, keeping a copy, whose path is returned. Under the task's lock.

    `written_bytes`: how long the log is known to have been, whole. Raises `CorruptError` rather than
    cut below that: such an end was not torn in writing but damaged later.
    """
    try:
        with files.refused_writes(path):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
            return None
        good = _last_newline(fd, size)
        if good < written_bytes:
            raise _damaged(str(path), "Its end was changed after it was written")
        kept = path.with_name(f"{path.name}.torn-{time.time_ns()}")
        with files.refused_writes(kept):
            files.replace(kept, os.pread(fd, size - good, good), durable=True)
            os.ftruncate(fd, good)
            _FSYNC(fd)
        return kept
    finally:
        os.close(fd)


def _last_newline(fd: int, size: int) -> int:
    """The offset just after the last newline."""
    end, step = size, 1 << 16
    while end > 0:
        start = max(0, end - step)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def read(path: Path, after: Head | None = None) -> Iterator[tuple[Event, Head]]:
    """The whole lines of a segment from `after` on, each verified against the one before.

    A last line without its newline is somebody's write in flight, or torn: not yielded.
    Raises `CorruptError` naming the file and the line.
    """
    head = after or Head()
    try:
        f = path.open("rb")
    except FileNotFoundError:
        raise _damaged(str(path), "The log is missing") from None
    with f:
        f.seek(head.size_bytes)
        for line_b in f:
            if not line_b.endswith(b"\n"):
                return
            where = f"{path}, after record {head.seq}"
            try:
                event = decode(line_b)
            except CorruptError as e:
                raise _damaged(where, e.message) from e
            if event.prev != head.h or event.seq != head.seq + 1:
                raise _damaged(where, "The chain of records is broken")
            head = Head(event.seq, max(head.lam, event.lam), event.h, head.size_bytes + len(line_b))
            yield event, head


def _damaged(where: str, what: str) -> CorruptError:
    return CorruptError(f"{what} ({where})", hint="nothing was changed; keep the file and run `opencode-tasks doctor`")


def segments(log_dir: Path) -> list[Path]:
    try:
        return sorted(p for p in log_dir.iterdir() if p.suffix == ".jsonl")
    except FileNotFoundError as e:
        raise _damaged(str(log_dir), "The log is missing") from e
