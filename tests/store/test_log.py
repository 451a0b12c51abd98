"""A segment holds what was appended, tells what was torn, and is never cut where it was whole."""

import gzip
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, CorruptError, Event
from opencode_tasks.store import log
from opencode_tasks.store.log import Head, Segment
from tests.store.conftest import Spawn, fill

_WRITER = "c0ffee-host"


def _segment(path: Path) -> Segment:
    return Segment(_WRITER, 1, path)


def _append(path: Path, head: Head, *texts: str) -> Head:
    """One batch."""
    new = [("note.added", {"text": t}) for t in texts]
    _, content_b, after = log.lines(_WRITER, head, head.seq, "test", 0, new)
    log.append(path, head.size_bytes, content_b)
    return after


def _texts(path: Path, after: Head | None = None) -> list[str]:
    return [event.data["text"] for event, _ in log.read(_segment(path), after or Head())]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / log.name_of(_WRITER, 1)


@pytest.fixture
def head(path: Path) -> Head:
    """Three batches of one event each."""
    head = Head()
    for text in ("one", "two", "three"):
        head = _append(path, head, text)
    return head


def test_events_are_chained_and_counted(path: Path, head: Head) -> None:
    events: list[Event] = [event for event, _ in log.read(_segment(path), Head())]
    assert [(e.seq, e.lam, e.w) for e in events] == [(1, 1, _WRITER), (2, 2, _WRITER), (3, 3, _WRITER)]
    assert [e.prev for e in events] == [GENESIS, events[0].h, events[1].h]
    assert head == Head(1, 3, events[2].h, path.stat().st_size)


def test_reading_goes_on_from_any_record(path: Path, head: Head) -> None:
    heads = [reached for _, reached in log.read(_segment(path), Head())]
    assert heads[-1] == head
    assert [_texts(path, h) for h in heads] == [["two", "three"], ["three"], []]
    _append(path, head, "four")
    assert _texts(path, head) == ["four"]


def test_times_are_rfc_3339_utc_with_milliseconds(path: Path, head: Head) -> None:
    for event, _ in log.read(_segment(path), Head()):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.ts)


def test_the_order_of_events_is_above_all_that_the_writer_knew(path: Path) -> None:
    events, _, _ = log.lines(_WRITER, Head(), 41, "test", 7, [("a.b", {}), ("a.b", {})])
    assert [(e.lam, e.epoch, e.follow_on) for e in events] == [(42, 7, 1), (43, 7, 0)]


def test_a_batch_that_is_torn_at_any_byte_counts_for_nothing_and_is_kept(path: Path, head: Head) -> None:
    start = path.stat().st_size
    after = _append(path, head, "four", "five", "six")
    whole_b = path.read_bytes()
    for size in range(start + 1, len(whole_b)):
        path.write_bytes(whole_b[:size])
        assert _texts(path) == ["one", "two", "three"]
        if size % 7 == 0:
            kept = log.cut(path, head.size_bytes)
            assert kept is not None
            assert kept.read_bytes() == whole_b[start:size]
            assert path.read_bytes() == whole_b[:start]
    path.write_bytes(whole_b[:-1])
    assert log.cut(path, head.size_bytes) is not None
    assert _append(path, head, "again").size_bytes < after.size_bytes
    assert _texts(path) == ["one", "two", "three", "again"]


def test_a_log_that_is_only_a_torn_line_becomes_empty(path: Path) -> None:
    path.write_bytes(b'{"v":1,"w":')
    assert _texts(path) == []
    assert log.cut(path, 0) is not None
    assert path.read_bytes() == b""


def test_a_whole_log_is_not_cut(path: Path, head: Head) -> None:
    before = path.stat()
    for good_bytes in (head.size_bytes, head.size_bytes + 1):
        assert log.cut(path, good_bytes) is None
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["{}.torn-1", "{}.corrupt-1", "{}.tmp", ".{}.7.tmp", "x.snapshot.json", "-000001.jsonl"]
)
def test_what_is_kept_beside_segments_is_none(path: Path, head: Head, name: str) -> None:
    (path.parent / name.format(path.name)).write_bytes(b"torn")
    assert log.segments(path.parent) == {_WRITER: [_segment(path)]}


def test_a_flipped_byte_is_reported_wherever_it_is(path: Path, head: Head) -> None:
    good_b = path.read_bytes()
    for at in range(0, len(good_b) - 1, 7):
        damaged = bytearray(good_b)
        damaged[at] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(TaskError) as refused:
            _texts(path)
        assert refused.value.code in ("corrupt", "newer_schema")
        assert refused.value.hint
        assert path.read_bytes() == bytes(damaged)


def _lines(*order: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [lines[n] for n in order]


@pytest.mark.parametrize(
    "damage",
    [_lines(0, 2), _lines(0, 2, 1), _lines(0, 1, 1, 2), _lines(1, 2), lambda lines: [lines[0], b"\n", *lines[1:]]],
    ids=["missing", "swapped", "doubled", "beheaded", "blank"],
)
def test_records_that_are_not_in_their_places_break_the_chain(
    path: Path, head: Head, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(CorruptError) as refused:
        _texts(path)
    assert str(path) in refused.value.message
    assert "after record" in refused.value.message
    assert "nothing was changed" in refused.value.hint


def test_a_record_of_another_history_breaks_the_chain(path: Path, head: Head, tmp_path: Path) -> None:
    other = tmp_path / path.name
    _append(other, _append(other, Head(), "eins"), "zwei")
    ours, theirs = (p.read_bytes().splitlines(keepends=True) for p in (path, other))
    path.write_bytes(ours[0] + theirs[1])
    with pytest.raises(CorruptError, match=r"chain of records is broken .*after record 1"):
        _texts(path)
    with pytest.raises(CorruptError, match="differs at"):
        _texts(other, head)


def test_a_record_of_another_writer_breaks_the_chain(path: Path, head: Head) -> None:
    with pytest.raises(CorruptError, match="chain of records is broken"):
        list(log.read(Segment("other-host", 1, path.rename(path.with_name("other-host-000001.jsonl"))), Head()))


def test_a_log_that_ends_before_what_is_known_is_corrupt(path: Path, head: Head) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="ends before, or differs at"):
        _texts(path, head)


def test_a_line_without_end_is_not_read_into_memory(path: Path, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_LONGEST_LINE", 4096)
    with path.open("ab") as f:
        f.write(b"x" * 4095)
    assert _texts(path) == ["one", "two", "three"]
    with path.open("ab") as f:
        f.write(b"x")
    with pytest.raises(CorruptError, match="longer than"):
        _texts(path)


def test_a_missing_log_is_corrupt_and_not_empty(path: Path, tmp_path: Path) -> None:
    for look in (lambda: _texts(path), lambda: log.segments(tmp_path / "absent"), lambda: log.segments(path.parent)):
        with pytest.raises(CorruptError, match="missing"):
            look()


def _names(*names: str) -> Sequence[str]:
    return names


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (_names("a-000002.jsonl"), "a-000001.jsonl"),
        (_names("a-000001.jsonl", "a-000003.jsonl"), "a-000002.jsonl"),
        (_names("a-000001.jsonl.gz", "b-000002.jsonl"), "b-000001.jsonl"),
    ],
)
def test_a_missing_segment_is_corrupt(tmp_path: Path, names: Sequence[str], missing: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CorruptError, match=rf"part of the log is missing .*{missing}"):
        log.segments(tmp_path)


def test_segments_are_in_their_order_and_the_plain_one_stands_before_its_packed_twin(tmp_path: Path) -> None:
    for name in ("b-000001.jsonl", "a-x-000002.jsonl", "a-x-000001.jsonl.gz", "a-x-000002.jsonl.gz"):
        (tmp_path / name).touch()
    found = {writer: [s.path.name for s in parts] for writer, parts in log.segments(tmp_path).items()}
    assert found == {"a-x": ["a-x-000001.jsonl.gz", "a-x-000002.jsonl"], "b": ["b-000001.jsonl"]}


def test_packing_keeps_every_byte_and_is_the_same_every_time(path: Path, head: Head) -> None:
    plain_b = path.read_bytes()
    packed = log.pack(_segment(path))
    assert list(path.parent.iterdir()) == [packed]
    assert log.content(_segment(packed)) == plain_b == gzip.decompress(packed.read_bytes())
    assert _texts(packed) == ["one", "two", "three"]
    assert _texts(packed, Head(1, head.seq, head.h, head.size_bytes)) == []
    packed_b = packed.read_bytes()
    packed.unlink()
    path.write_bytes(plain_b)
    os.utime(path, (0, 0))
    assert log.pack(_segment(path)).read_bytes() == packed_b


def test_a_flipped_bit_in_a_packed_segment_is_reported_or_changes_nothing(path: Path, head: Head) -> None:
    packed = log.pack(_segment(path))
    good_b = packed.read_bytes()
    reported = 0
    for at in range(0, len(good_b) * 8, 5):
        damaged = bytearray(good_b)
        damaged[at // 8] ^= 1 << at % 8
        packed.write_bytes(damaged)
        try:
            # gzip checks neither all of its own header nor the bits that fill up its last byte.
            assert _texts(packed) == ["one", "two", "three"]
        except CorruptError as e:
            assert "cannot be unpacked" in e.message  # noqa: PT017 (both ends are right)
            reported += 1
    assert reported > len(good_b)
    for size in range(len(good_b) - 1):
        packed.write_bytes(good_b[:size])
        with pytest.raises(CorruptError):
            _texts(packed, head)


def test_a_link_is_not_followed(path: Path, head: Head, tmp_path: Path) -> None:
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    before_b = path.read_bytes()
    for write in (lambda: _append(path, head, "four"), lambda: log.cut(path, 1)):
        with pytest.raises(OSError, match="symbolic links"):
            write()
    assert (tmp_path / "elsewhere").read_bytes() == before_b


def test_a_full_disk_undoes_the_half_written_batch(small_disk: Path) -> None:
    path = small_disk / log.name_of(_WRITER, 1)
    head = _append(path, Head(), "one")
    before_b = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(TaskError) as refused:
        _append(path, head, "small", "x" * 10_000)
    assert refused.value.code == "disk_full"
    assert "free space" in refused.value.hint
    assert path.read_bytes() == before_b
    filler.unlink()
    _append(path, head, "small", "x" * 10_000)
    assert _texts(path) == ["one", "small", "x" * 10_000]


def test_a_torn_tail_on_a_full_disk_is_not_cut_before_its_copy_is_kept(small_disk: Path) -> None:
    path = small_disk / log.name_of(_WRITER, 1)
    head = _append(path, Head(), "one")
    with path.open("ab") as f:
        f.write(b"torn")
    before_b = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(TaskError) as refused:
        log.cut(path, head.size_bytes)
    assert refused.value.code == "disk_full"
    assert path.read_bytes() == before_b
    filler.unlink()
    kept = log.cut(path, head.size_bytes)
    assert kept is not None
    assert kept.read_bytes() == b"torn"


def test_a_read_only_log_is_refused(small_disk: Path) -> None:
    path = small_disk / log.name_of(_WRITER, 1)
    head = _append(path, Head(), "one")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for refuse in (lambda: _append(path, head, "two"), lambda: log.cut(path, 1)):
        with pytest.raises(TaskError) as refused:
            refuse()
        assert refused.value.code == "read_only"
        assert refused.value.hint
    assert _texts(path) == ["one"]


# The kernel kills a process that writes beyond this limit, after it has written up to it.
_KILLED_IN_WRITE = """
import resource
from opencode_tasks.store import log
path, writer = Path(sys.argv[3]), sys.argv[5]
*_, (_, head) = log.read(log.Segment(writer, 1, path), log.Head())
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (head.size_bytes + int(sys.argv[4]),) * 2)
_, content_b, _ = log.lines(writer, head, 3, "test", 0, [("note.added", {"text": "x" * 300})] * 2)
log.append(path, head.size_bytes, content_b)
"""


@pytest.mark.parametrize("written", [0, 1, 200, 600, 900])
def test_a_writer_killed_inside_write_leaves_a_torn_tail_that_is_repaired(
    path: Path, head: Head, spawn: Spawn, written: int
) -> None:
    good_b = path.read_bytes()
    process = spawn(_KILLED_IN_WRITE, str(path), str(written), _WRITER)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGXFSZ
    torn_b = path.read_bytes()[len(good_b) :]
    assert len(torn_b) == written
    assert _texts(path) == ["one", "two", "three"]
    kept = log.cut(path, head.size_bytes)
    assert (kept.read_bytes() if kept else b"") == torn_b
    assert path.read_bytes() == good_b
    _append(path, head, "four")
    assert _texts(path) == ["one", "two", "three", "four"]
