"""Layer 2, one file of it: a segment of one writer's append-only log.

Only whole batches count. A process killed in `write` leaves a torn end; the next append
keeps a copy of it and cuts it off. Bytes that are wrong *before* the end are never cut:
reading raises `CorruptError`, and `damage` may find them in the store's history.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, LARGEST_BYTES, CorruptError, Event, New, decode, encode
from opencode_tasks.store import files
from opencode_tasks.values import value

SEAL_BYTES, SUFFIX, PACKED = 1024 * 1024, ".jsonl", ".jsonl.gz"
_FSYNC = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_LONGEST_LINE = LARGEST_BYTES + 256


class Head(NamedTuple):
    """Where one writer's log ends: what its next event continues. `segment` counts from 1."""

    segment: int = 1
    seq: int = 0
    h: str = GENESIS
    size_bytes: int = 0


@value
class Segment:
    """One file. `packed`: sealed and compressed."""

    writer: str
    number: int
    path: Path

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(PACKED)


def name_of(writer: str, number: int) -> str:
    return f"{writer}-{number:06d}{SUFFIX}"


def parse_name(path: Path) -> Segment | None:
    """None for what is no segment: a snapshot, a torn end that was kept."""
    stem = path.name.removesuffix(".gz").removesuffix(SUFFIX)
    writer, _, number = stem.rpartition("-")
    if not path.name.endswith((SUFFIX, PACKED)) or not writer or not number.isdecimal():
        return None
    return Segment(writer, int(number), path)


def now() -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns // 1_000_000:03d}Z"


def lines(
    writer: str, head: Head, lam: int, actor: str, epoch: int, new: Sequence[New]
) -> tuple[list[Event], bytes, Head]:
    """One batch as it will stand after `head`. `lam` is the Lamport time so far."""
    made: list[Event] = []
    lines_b: list[bytes] = []
    seq, prev = head.seq, head.h
    for at, (type_, data) in enumerate(new, 1):
        seq, lam = seq + 1, lam + 1
        event, line_b = encode(writer, seq, lam, now(), actor, epoch, type_, data, prev, more=len(new) - at)
        prev = event.h
        made.append(event)
        lines_b.append(line_b)
    content_b = b"".join(lines_b)
    return made, content_b, Head(head.segment, seq, prev, head.size_bytes + len(content_b))


def append(path: Path | str, size_bytes: int, content_b: bytes) -> None:
    """Write at the end of the segment, which is `size_bytes` long; durable when it returns.

    All or, after a failed write, nothing. Raises `TaskError` (code `disk_full` or `read_only`).
    """
    new = size_bytes == 0
    with files.refused_writes(path):
        fd = os.open(path, _NEW if new else _MORE, 0o644)
        try:
            # Else our line would become one with a damaged end, and both be lost.
            if not new and os.pread(fd, 1, size_bytes - 1) != b"\n":
                raise damaged(Path(path), None, "Its end was changed after it was written")
            try:
                files.write_all(fd, content_b)
                _FSYNC(fd)
            except OSError:
                os.ftruncate(fd, size_bytes)
                raise
        finally:
            os.close(fd)
        if new:
            files.sync_dir(Path(path).parent)


_MORE = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = _MORE | os.O_CREAT


def cut(path: Path, good_bytes: int) -> Path | None:
    """Cut off what is torn after `good_bytes`, keeping a copy, whose path is returned. Under the task's lock."""
    with files.refused_writes(path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size
            if size <= good_bytes:
                return None
            kept = path.with_name(f"{path.name}.torn-{time.time_ns()}")
            files.replace(kept, os.pread(fd, size - good_bytes, good_bytes), durable=True)
            os.ftruncate(fd, good_bytes)
            _FSYNC(fd)
            return kept
        finally:
            os.close(fd)


def read(segment: Segment, head: Head) -> Iterator[tuple[Event, Head]]:
    """The whole batches of a segment after `head`, each event verified against the one before.

    An end without its newline, or of an unfinished batch, is somebody's write in flight, or torn:
    not yielded. Raises `CorruptError` naming the file and the record.
    """
    for again in range(9, -1, -1):
        stamp = _stamp(segment.path)
        try:
            waiting: list[tuple[Event, Head]] = []
            with _open(segment) as f:
                _continues(f, segment, head)
                at = head
                for line_b in _lines(f, segment):
                    event = _verified(line_b, segment, at)
                    at = Head(segment.number, event.seq, event.h, at.size_bytes + len(line_b))
                    if waiting or event.follow_on:
                        waiting.append((event, at))
                        if event.follow_on:
                            continue
                        yield from waiting
                        waiting.clear()
                    else:
                        yield event, at
                    head = at
        except CorruptError:
            # A torn end may have been cut off and written over between two of our reads.
            if not again or _stamp(segment.path) == stamp:
                raise
        else:
            return


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def newest(segment: Segment, count: int) -> list[Event]:
    """The last records of a segment (all, when it has fewer), each by itself; what came before is not read."""
    with _open(segment) as f:
        size = f.seek(0, os.SEEK_END)
        for start in (max(0, size - 65536), 0):
            f.seek(start)
            whole = f.read().split(b"\n")[bool(start) : -1]
            if len(whole) >= count:
                break
    return [decode(line_b + b"\n") for line_b in whole[-count:]]


def _verified(line_b: bytes, segment: Segment, head: Head) -> Event:
    try:
        event = decode(line_b)
    except CorruptError as e:
        raise damaged(segment.path, head.seq, e.message) from e
    if event.w != segment.writer or (
        (event.prev != head.h or event.seq != head.seq + 1) and not _vouched(segment, head, event)
    ):
        raise damaged(segment.path, head.seq, "The chain of records is broken")
    return event


def _vouched(segment: Segment, head: Head, event: Event) -> bool:
    """A repair that could not bring everything back has written down what is missing."""
    from opencode_tasks.store import damage

    return event.seq > head.seq and damage.vouched(segment.path.parent, head.seq, event)


def _continues(f: IO[bytes], segment: Segment, head: Head) -> None:
    """Go to where `head` is in the file; what stands before it must be what `head` knows."""
    if head.size_bytes == 0:
        return
    known_b = f'"h":"{head.h}"}}\n'.encode()
    f.seek(head.size_bytes - len(known_b))
    if f.read(len(known_b)) != known_b:
        raise damaged(segment.path, head.seq, "The log ends before, or differs at, what was written")


def _lines(f: IO[bytes], segment: Segment) -> Iterator[bytes]:
    while line_b := f.readline(_LONGEST_LINE):
        if line_b.endswith(b"\n"):
            yield line_b
        elif len(line_b) == _LONGEST_LINE:
            raise damaged(segment.path, None, f"A line is longer than {LARGEST_BYTES} bytes")
        elif not is_torn(line_b):
            raise damaged(segment.path, None, "The last line has another end than a newline")


def is_torn(end_b: bytes) -> bool:
    """Whether a write that was broken off leaves this; not so a whole record with something else for its newline."""
    try:
        decode(end_b[:-1] + b"\n")
    except TaskError:
        return True
    return False


def _open(segment: Segment) -> IO[bytes]:
    try:
        return _unpacked(segment.path) if segment.packed else segment.path.open("rb")
    except FileNotFoundError:
        pass
    # Its twin may have taken its place since somebody looked.
    plain = segment.path.with_name(name_of(segment.writer, segment.number))
    try:
        return plain.open("rb") if segment.packed else _unpacked(plain.with_name(f"{plain.name}.gz"))
    except FileNotFoundError:
        raise damaged(segment.path, None, "The log is missing") from None


def _unpacked(path: Path) -> IO[bytes]:
    import gzip
    import io
    import zlib

    packed_b = path.read_bytes()
    try:
        # Whole: it is small, and a damaged one shows before anything of it is used.
        return io.BytesIO(gzip.decompress(packed_b))
    except (EOFError, OSError, ValueError, zlib.error) as e:
        raise damaged(path, None, f"It cannot be unpacked: {e}") from e


def damaged(path: Path, after: int | None, what: str) -> CorruptError:
    where = str(path) if after is None else f"{path}, after record {after}"
    return CorruptError(
        f"{what} ({where})", hint="nothing was changed; `opencode-tasks doctor --repair` restores what history holds"
    )


def segments(log_dir: Path) -> dict[str, list[Segment]]:
    """Writer to its segments in their order. Raises `CorruptError` when one is missing between others."""
    try:
        names = os.listdir(log_dir)
    except FileNotFoundError:
        raise damaged(log_dir, None, "The log is missing") from None
    found: dict[str, dict[int, Segment]] = {}
    for name in sorted(names):  # the plain file comes before its packed twin, which a kill may have left unfinished
        segment = parse_name(log_dir / name) if name.endswith((SUFFIX, PACKED)) else None
        if segment is not None:
            found.setdefault(segment.writer, {}).setdefault(segment.number, segment)
    if not found:
        raise damaged(log_dir, None, "The log is missing")
    for writer, by_number in found.items():
        for number in range(1, max(by_number) + 1):
            if number not in by_number:
                raise damaged(log_dir / name_of(writer, number), None, "A part of the log is missing")
    return {writer: [by_number[n] for n in sorted(by_number)] for writer, by_number in sorted(found.items())}


def pack(segment: Segment) -> Path:
    """Compress a sealed segment (one without write permission). Under the task's lock.

    The same content gives the same bytes.
    """
    import gzip

    packed = segment.path.with_name(segment.path.name + ".gz")
    content_b = gzip.compress(segment.path.read_bytes(), compresslevel=6, mtime=0)
    files.replace(packed, content_b, durable=True)
    with suppress(FileNotFoundError):
        segment.path.unlink()
    return packed


def content(segment: Segment) -> bytes:
    """The raw lines. Raises `CorruptError` when they cannot be had."""
    with _open(segment) as f:
        return f.read()
