"""The index follows the store: nothing that changed is missed, whoever is slow, killed, or works by hand."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from opencode_tasks.store import Store, feed, transactions
from opencode_tasks.store.feed import Entry, Feed
from opencode_tasks.store.index import Query
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Task
from tests.store.conftest import CREATES, ID, Spawn, create
from tests.store.indexes import contents, opened


def _titles(store: Store) -> list[str]:
    return sorted(t.title for t in store.index.page(Query(), limit=5000)[0])


def test_a_change_is_seen_at_once(store: Store, task: Task) -> None:
    assert _titles(store) == ["Fix the parser"]
    other = Store(store.layout.common_dir)
    other.update(ID, {"title": "Mend"}, actor="test")
    assert _titles(store) == ["Mend"]
    other.delete(ID, reason="x", actor="test")
    assert _titles(store) == []


def test_a_writer_killed_between_the_entry_and_its_event(store: Store, task: Task, spawn: Spawn) -> None:
    """An entry of what never came: forgotten, and no reason to wait."""
    killed = spawn(
        """
from opencode_tasks.store import log
log.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.update("fix-parser-7k3q9m", {"title": "never"}, actor="test")
"""
    )
    assert killed.wait(timeout=30) == -9
    assert _titles(store) == ["Fix the parser"]
    assert contents(store)["waiting"] == []
    store.update(ID, {"title": "Mend"}, actor="test")
    assert _titles(store) == ["Mend"]


_SLOW = """
from opencode_tasks.store import feed, log
real = log.append
def slowly(*args, **kwargs):
    print("noted", flush=True)
    sys.stdin.readline()
    return real(*args, **kwargs)
log.append = slowly
store.update("fix-parser-7k3q9m", {"title": "Mend"}, actor="test")
print("done", flush=True)
"""


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("meanwhile", ["look", "rebuild", "lose", "look twice", "change others"])
def test_a_slow_writer_is_waited_for(store: Store, task: Task, spawn: Spawn, meanwhile: str) -> None:
    """Its entry is read before its event is there."""
    create(store, "other-000000")
    slow = spawn(_SLOW)
    assert _line(slow) == "noted"
    if meanwhile == "rebuild":
        store.index.rebuild()
    if meanwhile == "lose":
        store.layout.index.unlink(missing_ok=True)
    if meanwhile == "change others":
        store.update("other-000000", {"title": "Other"}, actor="test")
    for _ in range(1 + (meanwhile == "look twice")):
        assert "Mend" not in _titles(store)
    _go(slow)
    assert _line(slow) == "done"
    assert "Mend" in _titles(store)
    assert contents(store)["waiting"] == []


def test_a_writer_that_ends_while_the_index_looks(store: Store, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the task and asking whether somebody writes to it."""
    store.index.count()
    with locked(store.layout.lock(ID), hot=True):
        Feed(store.layout.feed).note(Entry(ID, 2, "task.updated"))
        writer = Store(store.layout.common_dir, hot=True)
    real = transactions.under_way

    def late(layout: Layout, task_id: str) -> bool:
        monkeypatch.setattr(transactions, "under_way", real)
        writer.update(ID, {"title": "Mend"}, actor="test")
        return real(layout, task_id)

    monkeypatch.setattr(transactions, "under_way", late)
    monkeypatch.setattr(Feed, "note", lambda *_: None)  # it has done so
    assert _titles(store) == ["Mend"]


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a number of tasks where nobody looks for strays."""
    monkeypatch.setattr("opencode_tasks.store.index_file._MANY", 0)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_task_that_is_being_created(store: Store, task: Task, spawn: Spawn, unlisted: None, is_killed: bool) -> None:
    """Its entry is read before it has its name."""
    assert _titles(store) == ["Fix the parser"]
    slow = spawn(CREATES, "create")
    assert _line(slow) == "noted"
    assert _titles(store) == ["Fix the parser"]
    if is_killed:
        slow.kill()
        slow.wait(timeout=30)
        assert _titles(store) == ["Fix the parser"]
        with store.registry_lock():
            store.sweep_unfinished()
    else:
        _go(slow)
        assert _line(slow) == "done"
    assert _titles(store) == ["Fix the parser", *([] if is_killed else ["Late"])]
    assert contents(store)["waiting"] == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_tasks_that_are_being_created_together(
    store: Store, task: Task, spawn: Spawn, unlisted: None, is_killed: bool
) -> None:
    """They are committed before they have their names, and so they are there, whoever gives them these."""
    slow = spawn(CREATES, "create_many")
    assert _line(slow) == "noted"
    if is_killed:
        slow.kill()
        slow.wait(timeout=30)
    assert _titles(store) == ["Fix the parser", "Late"]
    if not is_killed:
        _go(slow)
        assert _line(slow) == "done"
    assert contents(store)["waiting"] == []


def test_a_transaction_that_others_carry_out(store: Store, task: Task, spawn: Spawn, unlisted: None) -> None:
    """Committed and killed: the entry was read long before its event."""
    killed = spawn(
        """
from opencode_tasks.store import transactions
transactions._carry_out = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
changes = {"title": ["Fix the parser", "Mend"]}
store.record_many({"fix-parser-7k3q9m": [("task.updated", {"changes": changes})]}, actor="x")
"""
    )
    assert killed.wait(timeout=30) == -9
    _ = _titles(store)
    assert store.get(ID).title == "Mend"
    assert _titles(store) == ["Mend"]
    assert contents(store)["waiting"] == []


def test_tasks_that_come_and_go_by_hand(store: Store, task: Task) -> None:
    create(store, "other-000000")
    aside = store.layout.root / "aside"
    shutil.copytree(store.layout.task(ID), aside)
    assert store.index.count() == 2
    shutil.rmtree(store.layout.task(ID))
    assert [t.id for t in store.index.page(Query(), limit=9)[0]] == ["other-000000"]
    assert contents(store) == _rebuilt(store)
    aside.rename(store.layout.task(ID))
    assert store.index.count() == 2
    assert {m.task.id for m in store.index.find("parser", limit=9)} == {ID, "other-000000"}


def test_a_store_in_which_no_task_came_or_went_is_not_listed(
    store: Store, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(store.layout.store, (1, 1))  # not just now
    store.index.count()
    with monkeypatch.context() as patched:
        patched.setattr(Store, "ids", lambda _: pytest.fail("listed"))
        store.update(ID, {"title": "Mend"}, actor="test")
        assert _titles(store) == ["Mend"]
    store.layout.task(ID).rename(store.layout.root / "aside")
    assert _titles(store) == []
    os.utime(store.layout.store, (2, 2))
    assert _titles(store) == []
    (store.layout.root / "aside").rename(store.layout.task(ID))
    assert _titles(store) == ["Mend"]


def _rebuilt(store: Store) -> dict[str, object]:
    store.index.rebuild()
    return contents(store)


def test_the_feed_is_lost(store: Store, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed by hand, or cut short when the power went: everything is compared."""
    store.update(ID, {"title": "one"}, actor="test")
    assert _titles(store) == ["one"]
    store.update(ID, {"title": "two"}, actor="test")
    shutil.rmtree(store.layout.feed)
    assert _titles(store) == ["two"]
    store.update(ID, {"title": "three"}, actor="test")
    assert _titles(store) == ["three"]
    store.update(ID, {"title": "four"}, actor="test")
    with (store.layout.feed / "000001").open("r+b") as f:
        f.truncate(3)
    assert _titles(store) == ["four"]


def test_after_a_boot_everything_is_compared_once(store: Store, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, "other-000000")
    assert _titles(store) == ["Fix the parser"] * 2
    with monkeypatch.context() as patched:
        patched.setattr(Feed, "note", lambda *_: None)  # what the power took with it
        store.update(ID, {"title": "Mend"}, actor="test")
    assert "Mend" not in _titles(store)
    db = opened(store)
    db.execute("update meta set value = 'another' where key = 'boot'")
    db.close()
    assert "Mend" in _titles(store)
    db = opened(store)
    (boot,) = db.execute("select value from meta where key = 'boot'").fetchone()
    db.close()
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert contents(store) == _rebuilt(store)


def test_feed_files_that_were_read_go(store: Store, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 200)
    for n in range(30):
        store.update(ID, {"title": f"Title {n}"}, actor="test")
        if n % 4 == 0:
            assert _titles(store) == [f"Title {n}"]
    kept = len(list(store.layout.feed.iterdir()))
    place = store.layout.memory_git / "opencode-tasks-place"
    place.parent.mkdir()
    place.write_text("99999 0\n")
    for n in range(30, 40):
        store.update(ID, {"title": f"Title {n}"}, actor="test")
        assert _titles(store) == [f"Title {n}"]
    assert kept > 5, "history has not read them"
    assert len(list(store.layout.feed.iterdir())) <= 2


_READER = """
from opencode_tasks.store.index import Query
while True:
    line = sys.stdin.readline()
    found = store.index.page(Query(), limit=1000)[0]
    assert store.index.stats()["tasks"] >= len(found)
    store.index.find("round", limit=20)
    print(*sorted(f"{t.id}:{t.rev}" for t in found), flush=True)
    if not line:
        break
"""
_WRITER = """
name, at = sys.argv[3], (Base("main", "a" * 40), Workspace("in-place", "/"))
for line in sys.stdin:
    n = int(line)
    store.create(NewTask(f"{name}-{n:06d}", f"Round {n}", "b", *at), actor="x")
    store.update(f"{name}-{n // 2:06d}", {"title": f"round {n}"}, actor="x")
    print("done", flush=True)
"""


def test_readers_and_writers_in_processes(store: Store, spawn: Spawn) -> None:
    """What a writer has acknowledged is in whatever is read after that."""
    writers, readers = [spawn(_WRITER, f"w{n}") for n in range(3)], [spawn(_READER) for _ in range(2)]
    acknowledged: set[str] = set()
    for n in range(15):
        for process in writers:
            assert process.stdin is not None
            process.stdin.write(f"{n}\n")
            process.stdin.flush()
        for process in readers:
            _go(process)
        for process in readers:
            assert acknowledged <= {pair.split(":")[0] for pair in _line(process).split()}
        for at, process in enumerate(writers):
            assert _line(process) == "done"
            acknowledged.add(f"w{at}-{n:06d}")
    now = sorted(f"{t.id}:{t.rev}" for t in store.all())
    for process in readers:
        _go(process)
        assert _line(process).split() == now
    assert contents(store) == _rebuilt(store)
