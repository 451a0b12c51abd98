"""Where nothing can be written the index answers all the same: from memory."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store, feed
from opencode_tasks.store.index import Query
from tests.store.conftest import ID, Spawn, fill, mounted, new
from tests.store.indexes import contents
from tests.store.test_index_file import HARM, answers, die_in_a_change, filled


def _made(common_dir: Path) -> Store:
    made = Store(common_dir, hot=True)
    made.make()
    return made


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Its name is one that means something in a URI."""
    with mounted(tmp_path / "a?b#c%41 d", "16m") as place:
        yield place


@pytest.mark.parametrize("state", ["current", "behind", "gone", "garbage", "another version", "journal"])
def test_a_store_that_can_only_be_read(disk: Path, spawn: Spawn, state: str) -> None:
    kept = filled(_made(disk))
    _ = answers(kept)
    if state == "behind":
        kept.update("task-000005", {"title": "a late word"}, actor="test")
        kept.create(new("late-000000", title="word"), actor="test")
    elif state == "journal":
        die_in_a_change(kept, lambda script: spawn(script, common_dir=disk))
    elif state != "current":
        HARM[state](kept.layout.index)
    with _read_only(disk):
        told = answers(Store(disk, hot=True))
        listed = sorted(p.name for p in kept.layout.root.iterdir())
        with pytest.raises(TaskError) as refused:
            kept.index.rebuild()
        assert refused.value.code == "read_only"
    assert sorted(p.name for p in kept.layout.root.iterdir()) == listed
    assert answers(kept) == told
    kept.index.rebuild()
    assert answers(kept) == told


def test_whoever_can_only_read_waits_for_who_writes(disk: Path, tmp_path: Path, spawn: Spawn) -> None:
    """A container sees the store through a mount of its own."""
    kept = filled(_made(disk))
    kept.index.count()
    holder = spawn(
        """
from opencode_tasks.store.locks import locked
with locked(store.layout.lock("index"), hot=True):
    print("held", flush=True)
    sys.stdin.readline()
""",
        common_dir=disk,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    inside, found = tmp_path / "inside", []
    inside.mkdir()
    subprocess.run(["mount", "--bind", disk, inside], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", inside], check=True)
        looking = threading.Thread(target=lambda: found.append(Store(inside, hot=True).index.count()))
        looking.start()
        looking.join(timeout=0.3)
        assert found == []
        holder.communicate("\n")
        looking.join(timeout=30)
    finally:
        subprocess.run(["umount", "--lazy", inside], check=True)
    assert found == [30]


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers come from memory, and what was not written is not taken for read."""
    kept = _made(small_disk)
    kept.create(new(ID), actor="test")
    filler = fill(small_disk)
    assert [t.id for t in kept.index.page(Query(), limit=9)[0]] == [ID]
    assert [m.task.id for m in kept.index.find("parser", limit=9)] == [ID]
    assert not kept.layout.index.exists() or kept.layout.index.stat().st_size == 0
    filler.unlink()
    monkeypatch.setattr(feed, "_ROLL_BYTES", 10)
    kept.update(ID, {"title": "Mend"}, actor="test")
    assert [t.title for t in kept.index.page(Query(), limit=9)[0]] == ["Mend"]


def test_a_disk_that_fills_up_while_the_index_is_behind(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filled(_made(disk))
    kept.index.count()
    monkeypatch.setattr(feed, "_ROLL_BYTES", 10)
    place = kept.layout.memory_git / "opencode-tasks-place"
    place.parent.mkdir()
    place.write_text("99 0\n")
    for n in range(30):
        kept.update(f"task-{n:06d}", {"title": f"word {n}"}, actor="test")
    filler = fill(disk)
    titles = sorted(t.title for t in kept.index.page(Query(), limit=99)[0])
    assert titles == sorted(f"word {n}" for n in range(30))
    filler.unlink()
    assert sorted(t.title for t in kept.index.page(Query(), limit=99)[0]) == titles
    grown = contents(kept)
    kept.index.rebuild()
    assert contents(kept) == grown
