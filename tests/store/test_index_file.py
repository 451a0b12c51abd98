"""`index.db` may be lost, damaged, locked away or left half written: the answers are the same."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.events import GENESIS
from opencode_tasks.store import Store, log
from opencode_tasks.store.index import Query
from opencode_tasks.store.log import Head
from tests.store.conftest import Spawn, new
from tests.store.indexes import contents


def answers(store: Store) -> list[object]:
    """Of every kind; none depends on the time."""
    index = store.index
    return [
        index.page(Query(), limit=5),
        index.page(Query(status=("pending", "running"), recent=True), limit=500)[0],
        [(m.task, m.part, m.line) for m in index.find("word", limit=30)],
        index.named("task-00001"),
        index.named("task/fix-parser")[1],
        index.stats(Query(status=("completed",))),
        index.count(),
        index.damaged(),
    ]


def filled(store: Store, count: int = 30) -> Store:
    made = [new(f"task-{n:06d}", title=f"Task {n}{' word' * (n % 2)}", owner="ana") for n in range(count)]
    store.create_many(made, actor="test")
    store.ensure_status("task-000003", "running", reason="x", actor="test")
    store.decide("task-000004", "a word on it", actor="test")
    return store


@pytest.fixture
def some(store: Store) -> Store:
    return filled(store)


def _overwrite(content_b: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content_b)


def _truncate(part: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * part))


def _sql(*statements: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    return run


HARM: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": _overwrite(b""),
    "garbage": _overwrite(b"no database" * 1000),
    "zeros": _overwrite(bytes(100_000)),
    "cut in half": _truncate(0.5),
    "cut a little": _truncate(0.99),
    "only its head": _truncate(0.02),
    "another version": _sql("update meta set value = '0' where key = 'version'"),
    "a newer version": _sql("update meta set value = '99' where key = 'version'"),
    "no meta": _sql("drop table meta"),
    "no texts": _sql("drop table texts"),
    "a doc that is not what was written": _sql("update docs set doc = replace(doc, 'Task', 'Tusk')"),
    "a doc that is no text": _sql("update docs set doc = x'ff'"),
    "a place that is none": _sql("update docs set at = '{'", "insert into waiting values ('task-000003', 1)"),
    "a place in the feed that is none": _sql("update meta set value = 'x' where key = 'feed_offset'"),
    "no docs": _sql("delete from docs"),
}


@pytest.mark.parametrize("harm", HARM)
def test_it_comes_back_by_itself(some: Store, harm: str) -> None:
    wanted = answers(some)
    HARM[harm](some.layout.index)
    if harm == "no docs":  # which SQLite cannot notice, but a rebuild mends
        some.index.rebuild()
    assert answers(some) == wanted
    assert not list(some.layout.root.glob("index.db.*"))


def test_a_flipped_bit_shows_no_wrong_task(some: Store) -> None:
    """In every 500th byte. What SQLite cannot notice may hide a task; what is shown is right, and nothing breaks."""
    wanted = {t.id: t for t in some.all()}
    _ = answers(some)
    good_b = some.layout.index.read_bytes()
    flipped = right = 0
    for at in range(0, len(good_b), 500):
        bad_b = bytearray(good_b)
        bad_b[at] ^= 1 << (at // 500 % 8)
        some.layout.index.write_bytes(bad_b)
        shown = some.index.page(Query(), limit=99)[0]
        found = [m.task for m in some.index.find("word", limit=99)]
        assert [t for t in [*shown, *found] if wanted[t.id] != t] == []
        _ = answers(some)
        flipped, right = flipped + 1, right + (len(shown) == len(wanted))
    assert flipped > 100
    assert right > flipped * 0.9
    some.index.rebuild()
    assert {t.id: t for t in some.index.page(Query(), limit=99)[0]} == wanted


_DIES = """
from opencode_tasks.store import index_file
from opencode_tasks.store.index_rows import Rows
real, count = Rows.upsert, 0
def dying(self, task_id, rev):
    global count
    self._db.execute("pragma cache_size = 1")  # so that it writes before the end
    real(self, task_id, rev)
    count += 1
    if count == 25:
        os.kill(os.getpid(), signal.SIGKILL)
Rows.upsert = dying
store.index.count()
"""


def die_in_a_change(store: Store, spawn: Spawn) -> None:
    store.index.count()
    for n in range(30):
        store.update(f"task-{n:06d}", {"title": f"word {n}"}, actor="test")
    assert spawn(_DIES).wait(timeout=30) == -9
    assert store.layout.index.with_name("index.db-journal").stat().st_size > 512


@pytest.mark.parametrize("then", ["look", "rebuild", "harm", "lose"])
def test_a_journal_that_a_killed_process_left(some: Store, spawn: Spawn, then: str) -> None:
    """It belongs to the file beside which it was made, and must not be played into another one."""
    die_in_a_change(some, spawn)
    if then == "rebuild":
        some.index.rebuild()
    if then == "harm":
        some.layout.index.write_bytes(b"no database" * 1000)
    if then == "lose":
        some.layout.index.unlink()
    assert [t.title for t in some.index.page(Query(ids=("task-000007",)), limit=1)[0]] == ["word 7"]
    grown = contents(some)
    some.index.rebuild()
    assert contents(some) == grown


def test_one_task_that_cannot_be_read_takes_no_other_along(some: Store) -> None:
    _ = answers(some)
    before = some.get("task-000001")
    for task_id in ("task-000001", "task-000002"):
        some.update(task_id, {"title": "changed"}, actor="test")
        (path,) = some.layout.log(task_id).iterdir()
        good_b = path.read_bytes()
        path.write_bytes(good_b.replace(b"Task", b"Tusk", 1))
        some.layout.state(task_id).unlink()
    assert set(some.index.damaged()) == {"task-000001", "task-000002"}
    shown = {t.id: t for t in some.index.page(Query(), limit=99)[0]}
    assert shown["task-000001"] == before, "as it was known last"
    assert len(shown) == 30
    some.index.rebuild()
    assert set(some.index.damaged()) == {"task-000001", "task-000002"}
    assert some.index.count() == 30
    assert len(some.index.page(Query(), limit=99)[0]) == 28
    path.write_bytes(good_b)
    some.record("task-000002", ("note.added", {}), actor="test")
    assert set(some.index.damaged()) == {"task-000001"}
    shutil.rmtree(some.layout.task("task-000001"))
    assert some.index.damaged() == {}


@pytest.mark.parametrize(
    "odd", [{"title": 5}, {"title": ["x"]}, {"owner": {}}, {"parent": 10**30}, {"branch": None}, {"title": None}]
)
def test_what_another_program_wrote_takes_no_other_along(
    some: Store, odd: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {**vars(new("odd-000000")), "base": {"branch": None, "commit": ""}, "limits": {}, **odd}
    data["workspace"] = {"kind": "in-place", "path": "/"}
    folder = some.layout.log("odd-000000")
    folder.mkdir(parents=True)
    _, content_b, _ = log.lines(some.writer, Head(1, 0, GENESIS, 0), 0, "x", 0, [("task.created", data)])
    (folder / log.name_of(some.writer, 1)).write_bytes(content_b)
    assert some.index.count() == 31
    assert len(some.index.page(Query(ids=tuple(f"task-{n:06d}" for n in range(30))), limit=99)[0]) == 30
    assert set(some.index.damaged()) <= {"odd-000000"}
    some.index.find("word", limit=99)
    some.index.stats()
    as_read_one_by_one = contents(some)
    # Read by helpers, they are put in many at once.
    monkeypatch.setattr("opencode_tasks.store.index_file._WORTH_HELP", 1)
    some.index.rebuild()
    assert contents(some) == as_read_one_by_one


def test_a_rebuild_tells_how_far_it_is(some: Store) -> None:
    told: list[tuple[int, int]] = []
    assert some.index.rebuild(lambda done, total: told.append((done, total))) == 30
    assert told[0] == (0, 30)
    assert told[-1] == (30, 30)


def test_a_rebuild_with_helpers_is_the_same(some: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    some.record("task-000006", ("command.started", {"run": "r", "argv": ["make"], "cwd": "/"}), actor="test")
    some.index.rebuild()
    alone = contents(some)
    monkeypatch.setattr("opencode_tasks.store.index_file._WORTH_HELP", 1)
    monkeypatch.setattr("opencode_tasks.store.index_helpers._BATCH", 4)
    some.index.rebuild()
    assert contents(some) == alone


def _helpers() -> list[int]:
    """Those of this process that are at work."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_a_helper_that_is_killed_leaves_no_task_out(some: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    some.index.rebuild()
    alone = contents(some)
    monkeypatch.setattr("opencode_tasks.store.index_file._WORTH_HELP", 1)
    monkeypatch.setattr("opencode_tasks.store.index_helpers._BATCH", 4)
    path = some.layout.state("task-000009")
    content_b = path.read_bytes()
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits there
    rebuilding = threading.Thread(target=some.index.rebuild)
    rebuilding.start()
    reached = os.open(path, os.O_WRONLY)  # so somebody has opened it
    path.unlink()
    path.write_bytes(content_b)
    for pid in _helpers():
        os.kill(pid, signal.SIGKILL)
    os.close(reached)
    rebuilding.join(timeout=60)
    assert not rebuilding.is_alive()
    assert contents(some) == alone


def test_rebuilds_while_others_write(some: Store, spawn: Spawn) -> None:
    rebuilding = [spawn("for _ in sys.stdin: print(store.index.rebuild(), flush=True)") for _ in range(2)]
    for n in range(20):
        for process in rebuilding:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        some.create(new(f"late-{n:06d}"), actor="test")
        some.update("task-000001", {"title": f"word {n}"}, actor="test")
        assert some.index.count() == 31 + n
        assert [t.title for t in some.index.page(Query(ids=("task-000001",)), limit=1)[0]] == [f"word {n}"]
    for process in rebuilding:
        process.communicate(timeout=60)
        assert process.returncode == 0
    grown = contents(some)
    some.index.rebuild()
    assert contents(some) == grown
