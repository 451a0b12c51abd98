"""The store's history with many tasks, many commits, large logs, and several processes at once."""

import hashlib
import subprocess
import sys
import time
import zlib
from pathlib import Path

from opencode_tasks.git import memory
from opencode_tasks.store import Store, log
from opencode_tasks.store.log import Head
from tests.conftest import run
from tests.git.conftest import commits, git, kept
from tests.store.conftest import CREATES, ID, PRELUDE, create, new

MANY = 3000


def many(store: Store) -> list[str]:
    """The logs of `MANY` tasks, written without what makes them durable, which takes longer than all else."""
    ids = [f"task-{n:06d}" for n in range(MANY)]
    for task_id in ids:
        wanted = new(task_id)
        data = {**vars(wanted), "base": vars(wanted.base), "workspace": vars(wanted.workspace), "limits": {}}
        _, content_b, _ = log.lines(store.writer, Head(), 0, "test", 0, [("task.created", data)])
        store.layout.log(task_id).mkdir(parents=True)
        (store.layout.log(task_id) / log.name_of(store.writer, 1)).write_bytes(content_b)
        (store.layout.task(task_id) / "plan.md").write_text(f"# {task_id}\n")
    return ids


def objects(store: Store) -> dict[str, int]:
    """Name to size of everything in the history."""
    listed = git(store, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objectsize)")
    return {name: int(size) for name, size in map(str.split, listed.splitlines())}


def test_one_change_among_thousands_of_tasks_writes_little(store: Store) -> None:
    ids = many(store)
    memory.commit(store)
    tree = git(store, "ls-tree", "-r", "--name-only", "main").splitlines()
    assert len(tree) == 2 * MANY
    assert memory.commit(store) is False
    before = objects(store)
    store.record(ids[1234], ("task.updated", {"changes": {"title": ["Fix the parser", "Other"]}}), actor="test")
    memory.commit_if_due(store)
    made = {name: size for name, size in objects(store).items() if name not in before}
    # A commit, four trees and the log.
    assert len(made) == 6
    assert sum(made.values()) < 20_000
    assert "task.updated" in kept(store, ids[1234])


def sizes(store: Store) -> dict[str, int]:
    """Of every segment of the log: the size of its lines, as history has it."""
    listed = git(store, "ls-tree", "-r", "--long", "main", f"{ID[-2:]}/{ID}/log/")
    return {path.rpartition("/")[2]: int(size) for _, _, _, size, path in map(str.split, listed.splitlines())}


def test_sealed_segments_are_written_once_and_whole(store: Store, task: Path) -> None:
    def grow(records: int) -> None:
        for n in range(records):
            store.record(ID, ("note.added", {"text": f"{n}" * 400_000}), actor="test")

    def there() -> dict[str, int]:
        parts = log.segments(task.parent)[store.writer]
        return {log.name_of(store.writer, part.number): len(log.content(part)) for part in parts}

    grow(1)  # the first segment goes into history before it is full
    memory.commit(store)
    grow(8)  # and is two behind when history looks again
    assert len(there()) >= 3
    memory.commit(store)
    assert sizes(store) == there()
    grow(1)
    read = {name for name, _ in memory._files(store.layout, ID) if name.startswith("log/")}
    assert read == {f"log/{max(there())}"}
    memory.commit(store)
    assert sizes(store) == there()


_HALFWAY = """
import sys
from pathlib import Path
from opencode_tasks.store import Store, log
store = Store(Path(sys.argv[1]), hot=True)
append = log.append
def slowly(*args):
    print("noted", flush=True)
    sys.stdin.readline()
    append(*args)
log.append = slowly
store.record(sys.argv[2], ("note.added", {"text": "in flight"}), actor="test")
"""


def test_what_was_in_flight_is_not_forgotten(store: Store, task: Path) -> None:
    create(store, "other-000000")
    command = [sys.executable, "-c", _HALFWAY, str(store.layout.common_dir), ID]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "noted\n"
        assert memory.commit(store)
        assert "in flight" not in kept(store)
        writer.communicate("go on\n", timeout=20)
    # The feed tells nothing new, and nobody else changes this task again.
    assert memory.commit(store)
    assert "in flight" in kept(store)
    assert not memory.commit(store)


def test_a_task_that_was_being_created_is_not_forgotten(store: Store, task: Path) -> None:
    command = [sys.executable, "-c", PRELUDE + CREATES, str(store.layout.common_dir), "hot", "create"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as creator:
        assert creator.stdout is not None
        assert creator.stdout.readline() == "noted\n"
        memory.commit(store)
        assert "late-000000" not in git(store, "ls-tree", "-r", "--name-only", "main")
        creator.communicate("go on\n", timeout=20)
    memory.commit(store)
    assert "00/late-000000/log/" in git(store, "ls-tree", "-r", "--name-only", "main")


_TOGETHER = """
import sys
from pathlib import Path
from opencode_tasks.git import memory
from opencode_tasks.store import Store
from tests.store.conftest import CREATES, PRELUDE, create
store = Store(Path(sys.argv[1]), hot=True)
for n in range(15):
    create(store, f"task{n}-{sys.argv[2]:0>6}")
    store.decide("fix-parser-7k3q9m", f"{sys.argv[2]} {n}", actor="test")
    memory.commit_if_due(store)
"""


def test_several_processes_at_once(store: Store, task: Path) -> None:
    shared = [sys.executable, "-c", _TOGETHER, str(store.layout.common_dir)]
    started = [subprocess.Popen([*shared, str(n)], cwd=Path(__file__).parents[2]) for n in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    memory.commit(store)
    assert git(store, "fsck", "--strict") == ""
    assert kept(store).count("decision.added") == 45
    logs = [name for name in git(store, "ls-tree", "-r", "--name-only", "main").splitlines() if "/log/" in name]
    assert len(logs) == 46
    parents = git(store, "rev-list", "--parents", "main").splitlines()
    assert all(len(line.split()) == 2 for line in parents[:-1])  # one line of commits


_DECIDING = """
import sys
from pathlib import Path
from opencode_tasks.git import memory
from opencode_tasks.store import Store
memory._PACKS = int(sys.argv[3])
store = Store(Path(sys.argv[1]), hot=True)
for n in range(int(sys.argv[2])):
    store.decide("fix-parser-7k3q9m", f"{n}", actor="test")
    memory.commit_if_due(store)
"""


def decide(store: Store, times: int, *, packs: int = memory._PACKS) -> None:
    """In a process of its own, which packing in the background outlives."""
    run([sys.executable, "-c", _DECIDING, store.layout.common_dir, str(times), str(packs)], cwd=store.layout.root)


def eventually_packed(store: Store, *, packs: int) -> None:
    until = time.monotonic() + 60
    while True:
        counted = dict(line.split(": ") for line in git(store, "count-objects", "-v").splitlines())
        if int(counted["in-pack"]) and int(counted["packs"]) <= packs:
            return
        assert time.monotonic() < until, (counted, store.layout.background_log.read_text())
        time.sleep(0.05)


def test_many_loose_objects_are_packed_in_the_background(store: Store, task: Path) -> None:
    # Git guesses from one of 256 folders, and so do we: fill that one.
    folder = store.layout.memory_git / "objects" / "17"
    folder.mkdir(exist_ok=True)
    planted, n = 0, 0
    while planted < 28:
        content_b = b"blob %d\0%d" % (len(str(n)), n)
        name = hashlib.sha1(content_b, usedforsecurity=False).hexdigest()
        if name.startswith("17"):
            (folder / name[2:]).write_bytes(zlib.compress(content_b))
            planted += 1
        n += 1
    decide(store, 1)
    eventually_packed(store, packs=1)
    assert kept(store).encode() == task.read_bytes()


def test_many_packs_are_made_one_in_the_background(store: Store, task: Path) -> None:
    # As commits of very many tasks make them, and with smaller numbers.
    git(store, "config", "fastimport.unpackLimit", "1")
    git(store, "config", "gc.autoPackLimit", "3")
    decide(store, 5, packs=3)
    eventually_packed(store, packs=2)
    assert commits(store) == 6
    assert git(store, "fsck", "--strict") == ""


def test_a_rush_of_commits_is_linear_and_quick_to_mend_from(store: Store, task: Path) -> None:
    for n in range(100):
        store.ensure_status(ID, "running" if n % 2 == 0 else "paused", reason="test", actor="test")
        memory.commit_if_due(store)
    assert commits(store) == 101
    found = list(memory.versions(store.layout)(ID))
    assert len(found) <= 4
    assert max(len(content_b) for _, content_b in found) == len(task.read_bytes())
    assert run(["git", "log", "--oneline"], cwd=store.layout.store).out.count("\n") == 101
