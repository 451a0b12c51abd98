import re
import signal
import subprocess
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, CorruptError, Event
from opencode_tasks.store import log
from opencode_tasks.store.log import Head
from tests.store.conftest import Spawn, fill

_WRITER = "c0ffee-host"


def _append(path: Path, head: Head, *texts: str) -> Head:
    return log.append(path, _WRITER, head, "test", [("note.added", {"text": t}) for t in texts])[1]


def _texts(path: Path, after: Head | None = None) -> list[str]:
    return [event.data["text"] for event, _ in log.read(path, after)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log.segment(tmp_path, _WRITER)


@pytest.fixture
def head(path: Path) -> Head:
    return _append(path, Head(), "one", "two", "three")


def test_events_are_chained_and_counted(path: Path, head: Head) -> None:
    events: list[Event] = [event for event, _ in log.read(path)]
    assert [(e.seq, e.lam, e.w) for e in events] == [(1, 1, _WRITER), (2, 2, _WRITER), (3, 3, _WRITER)]
    assert [e.prev for e in events] == [GENESIS, events[0].h, events[1].h]
    assert head == Head(3, 3, events[2].h, path.stat().st_size)


def test_reading_goes_on_from_any_record(path: Path, head: Head) -> None:
    heads = [reached for _, reached in log.read(path)]
    assert heads[-1] == head
    assert [_texts(path, h) for h in heads] == [["two", "three"], ["three"], []]
    _append(path, head, "four")
    assert _texts(path, head) == ["four"]


def test_times_are_rfc_3339_utc_with_milliseconds(path: Path, head: Head) -> None:
    for event, _ in log.read(path):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.ts)


def test_a_tail_torn_at_every_byte_is_kept_and_cut(path: Path, head: Head) -> None:
    whole_b = path.read_bytes()
    start = whole_b.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start + 1, len(whole_b)):
        path.write_bytes(whole_b[:cut])
        assert _texts(path) == ["one", "two"]
        kept = log.repair_tail(path)
        assert kept is not None
        assert kept.read_bytes() == whole_b[start:cut]
        assert path.read_bytes() == whole_b[:start]
    copies = list(path.parent.glob("*.torn-*"))
    assert len(copies) == len(whole_b) - start - 1
    *_, (_, reached) = log.read(path)
    _append(path, reached, "again")
    assert _texts(path) == ["one", "two", "again"]


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 300_000])
def test_a_torn_tail_of_any_length_is_found(path: Path, head: Head, size: int) -> None:
    good_b = path.read_bytes()
    path.write_bytes(good_b + b"x" * size)
    kept = log.repair_tail(path)
    assert kept is not None
    assert kept.read_bytes() == b"x" * size
    assert path.read_bytes() == good_b


def test_a_log_that_is_only_a_torn_line_becomes_empty(path: Path) -> None:
    path.write_bytes(b'{"v":1,"w":')
    kept = log.repair_tail(path)
    assert kept is not None
    assert path.read_bytes() == b""


def test_repair_leaves_a_whole_log_alone(path: Path, head: Head) -> None:
    before = path.stat()
    assert log.repair_tail(path) is None
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert list(path.parent.iterdir()) == [path]


def test_repair_of_nothing(tmp_path: Path) -> None:
    assert log.repair_tail(tmp_path / "absent.jsonl") is None
    (tmp_path / "empty.jsonl").touch()
    assert log.repair_tail(tmp_path / "empty.jsonl") is None


def test_copies_of_torn_tails_are_no_segments(path: Path, head: Head) -> None:
    with path.open("ab") as f:
        f.write(b"torn")
    log.repair_tail(path)
    assert log.segments(path.parent) == [path]


def test_a_flipped_byte_inside_is_reported_and_never_cut(path: Path, head: Head) -> None:
    good_b = path.read_bytes()
    last = good_b.rstrip(b"\n").rindex(b"\n") + 1
    for at in range(0, last, 7):
        damaged = bytearray(good_b)
        damaged[at] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(TaskError) as refused:
            _texts(path)
        assert refused.value.code in ("corrupt", "newer_schema")
        assert refused.value.hint
        assert log.repair_tail(path) is None
        assert path.read_bytes() == bytes(damaged)


def _drop(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1]]


def _double(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1], lines[1], lines[2]]


def _behead(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def _blank(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"\n", *lines[1:]]


@pytest.mark.parametrize("damage", [_drop, _swap, _double, _behead, _blank])
def test_missing_swapped_and_doubled_records_break_the_chain(path: Path, head: Head, damage: object) -> None:
    assert callable(damage)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(CorruptError) as refused:
        _texts(path)
    assert str(path) in refused.value.message
    assert "after record" in refused.value.message
    assert "nothing was changed" in refused.value.hint


def test_a_record_of_another_history_breaks_the_chain(path: Path, head: Head, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    _append(other, Head(), "eins", "zwei", "drei")
    ours, theirs = (p.read_bytes().splitlines(keepends=True) for p in (path, other))
    path.write_bytes(ours[0] + theirs[1] + theirs[2])
    with pytest.raises(CorruptError, match=r"chain of records is broken .*after record 1"):
        _texts(path)


def test_a_missing_log_is_corrupt_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="missing"):
        list(log.read(tmp_path / "absent.jsonl"))
    with pytest.raises(CorruptError, match="missing"):
        log.segments(tmp_path / "absent")


def test_a_link_is_not_followed(path: Path, head: Head, tmp_path: Path) -> None:
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    before_b = path.read_bytes()
    with pytest.raises(OSError, match="symbolic links"):
        _append(path, head, "four")
    assert (tmp_path / "elsewhere").read_bytes() == before_b


def test_a_full_disk_undoes_the_half_written_batch(small_disk: Path) -> None:
    path = log.segment(small_disk, _WRITER)
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
    path = log.segment(small_disk, _WRITER)
    _append(path, Head(), "one")
    with path.open("ab") as f:
        f.write(b"torn")
    before_b = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(TaskError) as refused:
        log.repair_tail(path)
    assert refused.value.code == "disk_full"
    assert path.read_bytes() == before_b
    filler.unlink()
    kept = log.repair_tail(path)
    assert kept is not None
    assert kept.read_bytes() == b"torn"


def test_a_read_only_log_is_refused(small_disk: Path) -> None:
    path = log.segment(small_disk, _WRITER)
    head = _append(path, Head(), "one")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for refuse in (lambda: _append(path, head, "two"), lambda: log.repair_tail(path)):
        with pytest.raises(TaskError) as refused:
            refuse()
        assert refused.value.code == "read_only"
        assert refused.value.hint
    assert _texts(path) == ["one"]


# The kernel kills a process that writes beyond this limit, after it has written up to it.
_KILLED_IN_WRITE = """
import resource
from opencode_tasks.store import log
path = Path(sys.argv[3])
*_, (_, head) = log.read(path)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (head.size_bytes + int(sys.argv[4]),) * 2)
log.append(path, "c0ffee-host", head, "test", [("note.added", {"text": "never acknowledged"})])
"""


@pytest.mark.parametrize("written", [0, 1, 100, 200])
def test_a_process_killed_in_its_write(path: Path, head: Head, spawn: Spawn, written: int) -> None:
    good_b = path.read_bytes()
    process = spawn(_KILLED_IN_WRITE, str(path), str(written))
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGXFSZ
    torn_b = path.read_bytes()[len(good_b) :]
    assert len(torn_b) == written
    assert _texts(path) == ["one", "two", "three"]
    kept = log.repair_tail(path)
    assert (kept.read_bytes() if kept else b"") == torn_b
    assert path.read_bytes() == good_b
    _append(path, head, "four")
    assert _texts(path) == ["one", "two", "three", "four"]
