"""Audit records: written in groups, in order, and only what waited is lost with its process."""

import errno
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from opencode_tasks.store import Store, audit, log
from opencode_tasks.store.audit import MOST_WAITING, Audit
from opencode_tasks.task import Task
from tests.store.conftest import ID, Spawn, create, fill, is_consistent


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes: a group is written when it is full, or when somebody asks."""
    monkeypatch.setattr(audit, "LONGEST_WAIT_S", 3600)


def texts(store: Store, task_id: str = ID) -> list[str]:
    return [e.data["text"] for e in store.history(task_id) if e.type == "command.output"]


def groups(store: Store) -> list[int]:
    """How many records each batch has."""
    made: list[int] = []
    expected = 0
    for event in store.history(ID):
        if event.type == "command.output":
            if expected == 0:
                made.append(event.follow_on + 1)
            expected = event.follow_on
    return made


def goes_on(store: Store) -> bool:
    """The projection may be behind such records, until the next of another kind."""
    store.record(ID, ("note.added", {}), actor="test")
    return is_consistent(store)


def test_a_group_is_written_when_it_is_full(store: Store, task: Task, patient: None) -> None:
    with Audit(store, ID, actor="test") as out:
        for n in range(MOST_WAITING - 1):
            out.write("command.output", {"run": "1", "text": f"{n}"})
        assert texts(store) == []
        out.write("command.output", {"run": "1", "text": "full"})
        assert len(texts(store)) == MOST_WAITING
        out.write("command.output", {"run": "1", "text": "end"})
        assert len(texts(store)) == MOST_WAITING
    assert texts(store) == [*map(str, range(MOST_WAITING - 1)), "full", "end"]
    assert groups(store) == [MOST_WAITING, 1]
    assert goes_on(store)


def test_or_when_its_time_has_come(store: Store, task: Task) -> None:
    out = Audit(store, ID, actor="test")
    for n in range(3):
        out.write("command.output", {"run": "1", "text": f"{n}"})
        until = time.monotonic() + 20
        while len(texts(store)) <= n:
            assert time.monotonic() < until
    assert texts(store) == ["0", "1", "2"]


def test_text_is_joined_as_long_as_all_else_is_the_same(store: Store, task: Task, patient: None) -> None:
    with Audit(store, ID, actor="test") as out:
        for run, text in [("1", "a"), ("1", "b"), ("2", "c"), ("1", "d"), ("1", "e")]:
            out.write("command.output", {"run": run, "text": text}, joined="text")
        out.write("note.added", {"run": "1", "text": "f"}, joined="text")
        out.write("command.output", {"run": "1", "text": "g"}, joined="text")
        out.write("command.output", {"run": "1", "text": "h"})
        out.write("command.output", {"run": "1"}, joined="text")
        out.write("command.output", {"run": "1", "text": "i"}, joined="text")
    written = [(e.data["run"], e.data.get("text")) for e in store.history(ID) if "run" in e.data]
    assert written == [("1", "ab"), ("2", "c"), ("1", "de"), *(("1", t) for t in ("f", "g", "h", None, "i"))]


def test_joined_text_comes_in_records_of_bounded_size(store: Store, task: Task, patient: None) -> None:
    chunks = [f"{n:06d}" * 100 for n in range(1000)]
    with Audit(store, ID, actor="test") as out:
        for chunk in chunks:
            out.write("command.output", {"run": "1", "text": chunk}, joined="text")
    found = texts(store)
    assert "".join(found) == "".join(chunks)
    assert max(map(len, found)) < 70_000
    assert len(found) < 12


def test_any_thread_may_write_and_each_keeps_its_order(store: Store, task: Task) -> None:
    def work(name: int) -> None:
        for n in range(300):
            out.write("command.output", {"run": f"{name}", "text": f"{n}"})

    with Audit(store, ID, actor="test") as out:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for n in range(50):  # and the caller goes on with its own store
            store.record(ID, ("note.added", {"n": n}), actor="test")
        for thread in threads:
            thread.join()
    by_run: dict[str, list[int]] = {}
    for event in store.history(ID):
        if event.type == "command.output":
            by_run.setdefault(event.data["run"], []).append(int(event.data["text"]))
    assert by_run == {f"{name}": list(range(300)) for name in range(6)}
    assert store.get(ID).rev == 1 + 6 * 300 + 50
    assert max(groups(store)) <= MOST_WAITING + 6


def test_what_waits_is_written_when_its_user_fails(store: Store, task: Task, patient: None) -> None:
    def fails() -> None:
        with Audit(store, ID, actor="test") as out:
            out.write("command.output", {"run": "1", "text": "before"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert texts(store) == ["before"]


_WRITING = """
from opencode_tasks.store.audit import Audit
out = Audit(store, sys.argv[3], actor="test")
for n in range(1_000_000):
    os.write(1, f"writing {n}\\n".encode())
    out.write("command.output", {"run": "1", "text": str(n)})
    if n % 100 == 99:
        out.flush()
        os.write(1, f"flushed {n}\\n".encode())
"""


@pytest.mark.parametrize("after", [250, 1777])
def test_a_killed_process_loses_what_waited_and_no_more(store: Store, task: Task, spawn: Spawn, after: int) -> None:
    process = spawn(_WRITING, ID)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    said += process.communicate(timeout=20)[0].splitlines(keepends=True)
    last = {word: int(n) for word, n in (line.split() for line in said if line.endswith("\n"))}
    kept = list(map(int, texts(store)))
    assert kept == list(range(len(kept)))
    assert last["flushed"] < len(kept)
    assert last["writing"] - len(kept) <= MOST_WAITING
    assert goes_on(store)


def test_a_task_that_is_gone_drops_what_comes(store: Store, task: Task, patient: None) -> None:
    with Audit(store, ID, actor="test") as out:
        out.write("command.output", {"run": "1", "text": "before"})
        out.flush()
        store.delete(ID, reason="test", actor="test")
        out.write("command.output", {"run": "1", "text": "after"})
        out.flush()
        assert texts(store) == ["before"]
        shutil.rmtree(store.layout.task(ID))
        out.write("command.output", {"run": "1", "text": "after"})
        out.flush()
        shutil.rmtree(store.layout.root)
        out.write("command.output", {"run": "1", "text": "after"})
    assert not store.layout.task(ID).exists()


def test_one_that_is_too_large_takes_no_other_along(store: Store, task: Task, patient: None) -> None:
    with Audit(store, ID, actor="test") as out:
        for text in ("before", "x" * 17_000_000, "after", *("y" * 4_000_000 for _ in range(5))):
            out.write("command.output", {"run": "1", "text": text})
    assert [text[:6] for text in texts(store)] == ["before", "after", *["yyyyyy"] * 5]


def test_a_full_disk_drops_what_comes_and_not_what_was_there(small_disk: Path, patient: None) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    create(store)
    with Audit(store, ID, actor="test") as out:
        out.write("command.output", {"run": "1", "text": "before"})
        out.flush()
        filler = fill(small_disk)
        out.write("command.output", {"run": "1", "text": "x" * 10_000})
        out.flush()
        assert texts(store) == ["before"]
        filler.unlink()
        out.write("command.output", {"run": "1", "text": "after"})
    assert texts(store) == ["before", "after"]
    assert goes_on(store)


def test_a_disk_that_fails_drops_what_comes(
    store: Store, task: Task, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Audit(store, ID, actor="test") as out:
        with monkeypatch.context() as broken:
            broken.setattr(log, "_FSYNC", fails)
            out.write("command.output", {"run": "1", "text": "dropped"})
            out.flush()
        out.write("command.output", {"run": "1", "text": "after"})
    assert texts(store) == ["after"]
    assert goes_on(store)
