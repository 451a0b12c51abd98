"""A task is what its log says: with the projection behind or gone, over sealed segments, by any clock."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import Store, log, state
from opencode_tasks.task import Task
from tests.store.conftest import ID


def _count(store: Store, n: int) -> Task:
    for _ in range(n):
        task = store.record(ID, ("command.started", {}), actor="test")
    return task


def test_what_is_only_counted_is_folded_by_the_reader(store: Store, task: Task) -> None:
    """The projection is behind, by a bounded number of events, and nobody sees it."""
    path, behind = store.layout.state(ID), []
    for n in range(1, 100):
        written = store.record(ID, ("command.output", {"n": n}), ("command.started", {}), actor="test")
        assert (written.rev, written.commands.count) == (1 + 2 * n, n)
        assert store.get(ID) == Store(store.layout.common_dir).get(ID) == written
        behind.append(written.rev - state.read(path)[0].rev)
    assert 1 < max(behind) <= 32
    assert store.ensure_status(ID, "running", reason="x", actor="test") == state.read(path)[0] == store.from_start(ID)


def test_a_projection_that_is_behind_and_lost_changes_nothing(store: Store, task: Task) -> None:
    written = _count(store, 5)
    store.layout.state(ID).unlink()
    assert store.get(ID) == Store(store.layout.common_dir).get(ID) == written
    assert _count(store, 1).commands.count == 6
    assert store.from_start(ID) == store.get(ID)


def test_a_log_that_shrank_under_us_is_read_again(store: Store, task: Task, log_path: Path) -> None:
    _count(store, 1)
    shorter_b = log_path.read_bytes()
    known = _count(store, 2)
    log_path.write_bytes(shorter_b)
    found = store.record(ID, ("note.added", {}), actor="test")
    assert found.rev == known.rev - 1
    assert store.from_start(ID) == store.get(ID) == found


@pytest.fixture
def sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of about 2 KB."""
    monkeypatch.setattr(log, "SEAL_BYTES", 2000)


def _names(store: Store) -> list[str]:
    return sorted(p.name.removeprefix(store.writer) for p in store.layout.log(ID).iterdir())


@pytest.mark.usefixtures("sealing")
def test_a_full_segment_is_sealed_packed_and_followed_by_another(store: Store, task: Task) -> None:
    size_bytes = 0
    for n in range(20):
        store.record(ID, ("note.added", {"n": n}), actor="test")
        assert store.from_start(ID) == store.get(ID)
        (active,) = store.layout.log(ID).glob("*.jsonl")
        size_bytes = max(size_bytes, active.stat().st_size)
    assert 2000 <= size_bytes < 2400  # the batch that fills it is the last
    names = _names(store)
    assert names[:4] == ["-000001.jsonl.gz", "-000001.snapshot.json", "-000002.jsonl.gz", "-000002.snapshot.json"]
    assert [n for n in names if n.endswith(".jsonl")] == [f"-{len(names) // 2 + 1:06d}.jsonl"]
    assert [e.data["n"] for e in store.history(ID) if e.type == "note.added"] == list(range(20))
    assert [e.seq for e in store.history(ID)] == list(range(1, 22))


@pytest.mark.usefixtures("sealing")
def test_a_snapshot_stands_in_for_a_lost_projection(store: Store, task: Task) -> None:
    written = _count(store, 20)
    store.layout.state(ID).unlink()
    first = next(store.layout.log(ID).glob("*-000001.jsonl.gz"))
    first.write_bytes(b"damaged, and nobody needs it")
    assert Store(store.layout.common_dir).get(ID) == written
    for snapshot in store.layout.log(ID).glob("*.snapshot.json"):
        snapshot.unlink()
    with pytest.raises(CorruptError, match="cannot be unpacked"):
        Store(store.layout.common_dir).get(ID)


@pytest.mark.usefixtures("sealing")
def test_a_damaged_snapshot_is_not_believed(store: Store, task: Task) -> None:
    written = _count(store, 30)
    store.layout.state(ID).unlink()
    for snapshot in sorted(store.layout.log(ID).glob("*.snapshot.json"))[1:]:
        snapshot.write_bytes(snapshot.read_bytes().replace(b'"count":', b'"count":1'))
    assert Store(store.layout.common_dir).get(ID) == written
    assert store.from_start(ID) == written


@pytest.mark.usefixtures("sealing")
@pytest.mark.parametrize("left", ["both", "sealed", "torn"])
def test_a_writer_that_died_while_it_sealed_is_gone_on_from(
    store: Store, task: Task, log_path: Path, left: str
) -> None:
    while log_path.stat().st_size < 2000:
        _count(store, 1)
    before = store.get(ID)
    if left == "torn":
        with log_path.open("ab") as f:
            f.write(b'{"v":1,"w":')
    if left == "both":
        plain_b = log_path.read_bytes()
        log.pack(log.Segment(store.writer, 1, log_path))
        log_path.write_bytes(plain_b)
    if left != "torn":
        log_path.chmod(0o444)
    again = Store(store.layout.common_dir, hot=True)
    assert again.get(ID) == before
    assert again.record(ID, ("command.started", {}), actor="test").rev == before.rev + 1
    assert again.from_start(ID) == again.get(ID) == store.get(ID)
    assert [e.seq for e in again.history(ID)] == list(range(1, before.rev + 2))
    assert not log_path.exists()


def test_nothing_is_added_to_a_sealed_segment(store: Store, task: Task, log_path: Path) -> None:
    log_path.chmod(0o444)
    sealed_b = log_path.read_bytes()
    assert _count(store, 2).rev == 3
    assert _names(store) == ["-000001.jsonl.gz", "-000001.snapshot.json", "-000002.jsonl"]
    assert log.content(log.segments(log_path.parent)[store.writer][0]) == sealed_b
    assert store.from_start(ID) == store.get(ID)


@pytest.mark.parametrize("year", [1971, 2001, 2999])
def test_a_clock_that_is_wrong_changes_times_and_no_order(
    store: Store, task: Task, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    store.ensure_status(ID, "running", reason="x", actor="test")
    with monkeypatch.context() as wrong:
        at_ns = int(datetime(year, 6, 1, tzinfo=UTC).timestamp()) * 10**9
        wrong.setattr(time, "time_ns", lambda: at_ns)
        store.ensure_status(ID, "paused", reason="x", actor="test")
    done = store.ensure_status(ID, "completed", reason="x", actor="test")
    said = [e.data.get("to") for e in store.history(ID)]
    assert said == [None, "running", "paused", "completed"]
    assert str(year) in [e.ts[:4] for e in store.history(ID)]
    assert (done.status, done.conflicts) == ("completed", ())
    assert min(vars(done.spent).values()) >= 0
    assert store.from_start(ID) == done


def test_a_batch_is_there_whole_or_not_at_all_wherever_its_write_was_torn(
    store: Store, task: Task, log_path: Path
) -> None:
    before_b = log_path.read_bytes()
    store.record(ID, *(("note.added", {"n": n}) for n in range(3)), actor="test")
    whole_b = log_path.read_bytes()
    for size in range(len(before_b), len(whole_b), 13):
        log_path.write_bytes(whole_b[:size])
        store.layout.state(ID).unlink(missing_ok=True)
        fresh = Store(store.layout.common_dir, hot=True)
        assert fresh.get(ID) == task
        assert len(list(fresh.history(ID))) == 1
        assert fresh.record(ID, ("note.added", {"n": 9}), actor="test").rev == 2
        assert [e.data.get("n") for e in fresh.history(ID)] == [None, 9]


def test_types_that_this_version_does_not_know_are_counted_and_kept(store: Store, task: Task) -> None:
    said = {"anything": [1, {"deep": None}], "text": "é"}
    assert store.record(ID, ("from.the.future", said), actor="test").rev == 2
    assert [e.data for e in store.history(ID)][1] == said
    assert store.from_start(ID) == store.get(ID)


def test_a_log_of_a_newer_schema_is_refused_and_left_alone(store: Store, task: Task, log_path: Path) -> None:
    newer_b = log_path.read_bytes() + b'{"v":2,"unheard":"of"}\n'
    log_path.write_bytes(newer_b)
    names = {p.name for p in store.layout.task(ID).rglob("*")}
    for use in (lambda: store.get(ID), lambda: _count(store, 1), lambda: list(store.history(ID))):
        with pytest.raises(TaskError) as refused:
            use()
        assert refused.value.code == "newer_schema"
    assert log_path.read_bytes() == newer_b
    assert {p.name for p in store.layout.task(ID).rglob("*")} == names


def test_numbers_that_another_program_drove_too_high_are_not_written_on(store: Store, task: Task) -> None:
    _, content_b, _ = log.lines("other-host", log.Head(), 10**18 - 2, "x", 0, [("note.added", {})])
    log.append(store.layout.log(ID) / log.name_of("other-host", 1), 0, content_b)
    store.layout.state(ID).unlink()
    assert store.get(ID).rev == 2
    with pytest.raises(TaskError, match="could not be read again"):
        _count(store, 1)
    assert store.from_start(ID).rev == 2
