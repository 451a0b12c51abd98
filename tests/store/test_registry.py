"""Tasks of one clone: made whole, changed whole, found again, whatever is killed or raced."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import Store
from opencode_tasks.store.index import Query
from opencode_tasks.task import Task, is_id
from tests.conftest import Repo
from tests.store.conftest import ID, Spawn, create, is_consistent


def _note(store: Store, n: int, *, size: int = 0) -> Task:
    return store.record(ID, ("note.added", {"n": n, "pad": "x" * size}), actor="test")


def _notes(store: Store) -> list[int]:
    return [e.data["n"] for e in store.history(ID) if e.type == "note.added"]


def test_make_is_idempotent_and_private(tmp_path: Path) -> None:
    made = Store(tmp_path)
    assert not made.exists()
    assert made.make()
    clone = made.clone_id
    assert not made.make()
    assert made.clone_id == clone
    assert made.layout.root.stat().st_mode & 0o077 == 0


def test_without_a_store_every_use_says_so(tmp_path: Path) -> None:
    absent = Store(tmp_path)
    for use in (absent.require, lambda: create(absent)):
        with pytest.raises(TaskError) as refused:
            use()
        assert refused.value.code == "not_initialised"
        assert refused.value.hint == "opencode-tasks init"
    assert absent.ids() == []
    assert not absent.layout.root.exists()


def test_a_new_task_is_whole(store: Store, task: Task) -> None:
    assert store.get(ID) == task
    assert store.ids() == [ID]
    assert {p.name for p in store.layout.task(ID).iterdir()} == {"log", "state.json", "plan.md", "decisions.md"}
    assert "Fix the parser" in store.layout.plan(ID).read_text()
    assert "Fix the parser" in store.layout.decisions(ID).read_text()
    assert is_consistent(store)


def test_a_taken_id_is_refused_and_the_first_task_kept(store: Store, task: Task) -> None:
    _note(store, 1)
    with pytest.raises(ConflictError) as refused:
        create(store)
    assert refused.value.hint
    assert _notes(store) == [1]
    assert [p.name for p in store.layout.store.iterdir()] == [ID]


def test_a_refused_event_leaves_no_trace(store: Store, task: Task, log_path: Path) -> None:
    before = log_path.read_bytes(), store.layout.state(ID).read_bytes()
    batch: list[tuple[str, dict[str, object]]] = [
        ("note.added", {"n": 1}),
        ("status.changed", {"from": "pending", "to": "completed", "reason": "x"}),
    ]
    with pytest.raises(TaskError) as refused:
        store.record(ID, *batch, actor="test")
    assert refused.value.code == "transition"
    assert (log_path.read_bytes(), store.layout.state(ID).read_bytes()) == before


def test_a_batch_that_is_impossible_in_its_second_step_is_refused_whole(store: Store, task: Task) -> None:
    change = ("status.changed", {"from": "pending", "to": "running", "reason": "x"})
    with pytest.raises(TaskError, match="is running and cannot become running"):
        store.record(ID, change, change, actor="test")
    assert store.get(ID) == task


def test_ensure_status_is_idempotent(store: Store, task: Task) -> None:
    first = store.ensure_status(ID, "running", reason="x", actor="test")
    assert store.ensure_status(ID, "running", reason="x", actor="test") == first
    assert len(list(store.history(ID))) == 2


@pytest.mark.parametrize("name", ["absent-123456", "", "..", "../..", ".new-fix-123456", "locks"])
def test_no_such_task(store: Store, task: Task, name: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: store.get(name),
        lambda: store.record(name, ("note.added", {}), actor="test"),
        lambda: list(store.history(name)),
        lambda: store.resolve(name),
    ]
    for use in uses:
        with pytest.raises(NoTaskError) as refused:
            use()
        assert refused.value.code == "no_task"
        assert "list-tasks" in refused.value.hint


def test_resolve(store: Store) -> None:
    for task_id in ("fix-one-000000", "fix-two-111111", "other-222222"):
        create(store, task_id)
    assert store.resolve("fix-one-000000").id == "fix-one-000000"
    assert store.resolve("fix-t").id == "fix-two-111111"
    assert store.resolve("o").id == "other-222222"
    with pytest.raises(NoTaskError) as refused:
        store.resolve("fix-")
    assert "fix-one-000000" in refused.value.hint
    assert "fix-two-111111" in refused.value.hint


def test_a_branch_resolves_to_its_open_task(store: Store) -> None:
    for task_id in ("old-000000", "new-111111"):
        create(store, task_id)
    store.ensure_status("old-000000", "cancelled", reason="x", actor="test")
    assert store.resolve("task/fix-parser").id == "new-111111"
    store.ensure_status("new-111111", "cancelled", reason="x", actor="test")
    assert store.resolve("task/fix-parser").id in ("old-000000", "new-111111")


def test_a_damaged_task_does_not_hide_the_others(store: Store, task: Task, log_path: Path) -> None:
    other = create(store, "other-abcdef")
    log_path.write_bytes(b"garbage\n")
    store.layout.state(ID).unlink()
    assert store.all() == [other]
    assert list(store.damaged()) == [ID]
    assert store.resolve("task/fix-parser") == other


def test_a_flipped_byte_in_the_middle_is_reported_and_the_log_untouched(
    store: Store, task: Task, log_path: Path
) -> None:
    for n in range(5):
        _note(store, n)
    damaged = bytearray(log_path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x04
    log_path.write_bytes(damaged)
    with pytest.raises(CorruptError):
        list(store.history(ID))
    store.layout.state(ID).unlink()
    uses: list[Callable[[], object]] = [lambda: store.get(ID), lambda: _note(store, 9)]
    for use in uses:
        with pytest.raises(CorruptError) as refused:
            use()
        assert str(log_path) in refused.value.message
        assert "doctor" in refused.value.hint
    assert log_path.read_bytes() == bytes(damaged)
    assert list(store.layout.log(ID).iterdir()) == [log_path]


def test_a_lost_log_is_never_an_empty_task(store: Store, task: Task, log_path: Path) -> None:
    log_path.unlink()
    uses: list[Callable[[], object]] = [lambda: store.get(ID), lambda: _note(store, 1)]
    for use in uses:
        with pytest.raises(CorruptError):
            use()
    assert not log_path.exists()


def test_a_host_that_changed_its_name_goes_on_with_the_same_log(store: Store, task: Task, log_path: Path) -> None:
    _note(store, 1)
    script = f"""
import socket, sys
from pathlib import Path
socket.sethostname("renamed-by-dhcp")
from opencode_tasks.store import Store
from opencode_tasks.store.index import Query
store = Store(Path({str(store.layout.common_dir)!r}))
store.record({ID!r}, ("note.added", {{"n": 2}}), actor="test")
print(store.get({ID!r}).rev)
"""
    done = subprocess.run(
        ["unshare", "--uts", sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "3"
    _note(store, 3)
    assert _notes(store) == [1, 2, 3]
    assert list(store.layout.log(ID).iterdir()) == [log_path]
    assert is_consistent(store)


def test_a_lost_clone_file_is_made_again_and_the_tasks_go_on(store: Store, task: Task) -> None:
    store.layout.clone.unlink()
    again = Store(store.layout.common_dir)
    with pytest.raises(TaskError) as refused:
        _note(again, 1)
    assert "opencode-tasks init" in refused.value.hint
    again.make()
    _note(again, 2)
    assert _notes(again) == _notes(store) == [2]
    assert again.writer != store.writer
    assert is_consistent(again)


_APPENDER = """
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3]), int(sys.argv[4])):
    store.record("fix-parser-7k3q9m", ("note.added", {"n": n}), actor=f"process {os.getpid()}")
"""


def test_two_processes_append_to_one_task(store: Store, task: Task, spawn: Spawn) -> None:
    first, second = spawn(_APPENDER, "0", "100", hot=True), spawn(_APPENDER, "100", "200", hot=False)
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in (first, second):
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = 1
    while first.poll() is None or second.poll() is None:
        rev = store.get(ID).rev
        assert rev >= seen
        seen = rev
        time.sleep(0.005)
    assert (first.returncode, second.returncode) == (0, 0)
    notes = _notes(store)
    assert sorted(notes) == list(range(200))
    assert [n for n in notes if n < 100] == list(range(100))
    assert [n for n in notes if n >= 100] == list(range(100, 200))
    assert [e.seq for e in store.history(ID)] == list(range(1, 202))
    assert store.get(ID).rev == 201
    assert is_consistent(store)
    assert not list(store.layout.task(ID).rglob("*torn*"))


_MAKER = """
print("ready", flush=True)
for line in sys.stdin:
    made = Store(Path(line.strip()), hot=store.hot)
    made.layout.common_dir.mkdir(exist_ok=True)
    made.make()
    print(made.clone_id, flush=True)
"""


def test_two_first_inits_agree_on_the_name_of_the_clone(spawn: Spawn, tmp_path: Path) -> None:
    makers = [spawn(_MAKER) for _ in range(2)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for n in range(60):
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.write(f"{tmp_path / f'common{n}'}\n")
            maker.stdin.flush()
        names = {maker.stdout.readline() for maker in makers if maker.stdout is not None}
        assert names == {Store(tmp_path / f"common{n}").clone_id + "\n"}


_WRITER = """
n = int(sys.argv[3])
while True:
    store.record("fix-parser-7k3q9m", ("note.added", {"n": n, "pad": "x" * 50_000}), actor="test")
    print(n, flush=True)
    n += 1
"""


def test_a_writer_killed_again_and_again_loses_nothing_it_acknowledged(
    store: Store, task: Task, log_path: Path, spawn: Spawn
) -> None:
    chance = random.Random(7)
    acknowledged: list[int] = []
    torn: list[bytes] = []
    for cycle in range(30):
        writer = spawn(_WRITER, str(cycle * 1_000_000), hot=cycle % 2 == 0)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(chance.random() * 0.03)
        writer.kill()
        rest = writer.stdout.read()  # not `communicate`, which passes over what `readline` took too much of
        writer.wait(timeout=10)
        acknowledged += [int(n) for n in (first + rest).split()]
        active = max(log_path.parent.glob("*.jsonl"), default=None)
        if active is not None and cycle % 3 == 0 and active.read_bytes().endswith(b"\n"):
            # The kernel ends most writes whole before it kills: tear one as a lost power does.
            with active.open("ab") as f:
                f.write(b'{"v":1,"w":"c0ffee' + b"x" * cycle)
        content_b = active.read_bytes() if active is not None else b""
        if content_b and not content_b.endswith(b"\n"):  # a new segment may be empty yet
            torn.append(content_b[content_b.rfind(b"\n") + 1 :])
        assert store.get(ID).rev >= 1 + len(acknowledged)
    _note(store, -1)
    notes = _notes(store)
    assert set(acknowledged) <= set(notes)
    assert len(notes) == len(set(notes))
    assert len(notes) - len(acknowledged) - 1 <= 30
    kept = sorted(log_path.parent.glob("*.torn-*"), key=lambda p: p.name.rpartition("-")[2])
    assert [p.read_bytes() for p in kept] == torn
    assert len(torn) >= 5
    assert len(list(log_path.parent.glob("*.gz"))) >= 2
    assert is_consistent(store)


# An audit hook is called before each of these system calls: the process dies between two of them.
_KILLED_IN_CREATE = """
left = int(sys.argv[3])
def die_later(event, args):
    global left
    if event in ("open", "os.mkdir", "os.rename") and str(store.layout.store) in str(args[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
with store.registry_lock():
    sys.addaudithook(die_later)
    base, workspace = Base("main", "a" * 40), Workspace("in-place", "/src/repo")
    store.create(NewTask("fix-parser-7k3q9m", "Fix the parser", "task/fix-parser", base, workspace), actor="test")
"""


def test_a_create_killed_between_any_two_steps_leaves_a_whole_task_or_none(store: Store, spawn: Spawn) -> None:
    outcomes = []
    for step in range(40):
        creator = spawn(_KILLED_IN_CREATE, str(step))
        creator.communicate(timeout=30)
        visible = store.ids() == [ID]
        outcomes.append((creator.returncode, visible))
        if visible:
            assert store.get(ID).rev == 1
            assert is_consistent(store)
            break
        assert creator.returncode == -signal.SIGKILL
        assert store.all() == []
        left = {p.name for p in store.layout.store.iterdir()}
        with store.registry_lock():
            assert set(store.sweep_unfinished()) == left
        assert list(store.layout.store.iterdir()) == []
    assert outcomes[-1] == (-signal.SIGKILL, True), "never killed between the rename and the end"
    assert len(outcomes) >= 8


def test_init_sweeps_what_a_killed_create_left(repo: Repo, spawn: Spawn) -> None:
    repo.git("checkout", "--quiet", "-b", "task/kept")
    creator = spawn(_KILLED_IN_CREATE, "5", common_dir=repo.common)
    creator.communicate(timeout=30)
    half_made = repo.store / f".new-{ID}"
    assert half_made.is_dir()
    listed = repo.tasks("list-tasks", "--json").json["tasks"]
    assert [t["branch"] for t in listed] == ["task/kept"]
    assert f"half-made task .new-{ID} removed" in repo.tasks("init", "--json").json["changed"]
    assert not half_made.exists()
    assert len(repo.ids()) == 1


def test_every_listed_name_is_an_id(store: Store, task: Task) -> None:
    for name in (".new-other-abcdef", "no-id", ".DS_Store"):
        (store.layout.store / name).mkdir()
    (store.layout.store / "file-abcdef").touch()
    assert store.ids() == [ID]
    assert all(is_id(i) for i in store.ids())


def test_an_end_that_was_damaged_after_it_was_written_is_not_taken_for_a_torn_one(store: Store, task: Task) -> None:
    store.ensure_status(task.id, "running", reason="test", actor="test")
    (path,) = (store.layout.log(task.id)).glob("*.jsonl")
    damaged_b = path.read_bytes()[:-1] + b"!"
    path.write_bytes(damaged_b)
    with pytest.raises(CorruptError, match="differs at, what was written"):
        Store(store.layout.common_dir).ensure_status(task.id, "paused", reason="test", actor="test")
    assert path.read_bytes() == damaged_b


def test_an_update_says_what_it_changed_and_only_of_what_can_be(store: Store, task: Task) -> None:
    updated = store.update(ID, {"title": "Mend", "depends_on": ["other-abcdef"]}, actor="test")
    assert (updated.title, updated.depends_on, updated.rev) == ("Mend", ("other-abcdef",), 2)
    *_, event = store.history(ID)
    assert event.data == {"changes": {"title": ["Fix the parser", "Mend"], "depends_on": [[], ["other-abcdef"]]}}
    with pytest.raises(TaskError) as refused:
        store.update(ID, {"status": "completed"}, actor="test")
    assert refused.value.code == "usage"
    assert is_consistent(store)


def test_a_deleted_task_is_remembered_and_listed_no_more(store: Store, task: Task) -> None:
    deleted = store.delete(ID, reason="mistake", actor="test")
    assert deleted.deleted_at is not None
    assert store.get(ID) == deleted
    assert (store.all(), store.ids()) == ([], [ID])
    refusals: list[Callable[[], object]] = [
        lambda: _note(store, 1),
        lambda: store.delete(ID, reason="again", actor="test"),
    ]
    for refuse in refusals:
        with pytest.raises(TaskError) as refused:
            refuse()
        assert refused.value.code == "deleted"
    assert store.get(ID) == deleted
    store.undelete(ID, reason="mistake", actor="test")
    again = store.undelete(ID, reason="mistake", actor="test")
    assert (again.deleted_at, again.rev) == (None, deleted.rev + 1)
    noted = _note(store, 1)
    assert store.all() == store.index.page(Query(), limit=9)[0] == [noted]


def test_a_write_that_goes_by_another_revision_is_told_what_happened_since(store: Store, task: Task) -> None:
    for n in range(2):
        _note(store, n)
    writes: list[Callable[[], object]] = [
        lambda: store.record(ID, ("note.added", {"n": 9}), actor="late", expected_rev=2),
        lambda: store.update(ID, {"title": "x"}, actor="late", expected_rev=2),
        lambda: store.delete(ID, reason="x", actor="late", expected_rev=2),
        lambda: store.ensure_status(ID, "running", reason="x", actor="late", expected_rev=2),
        lambda: store.decide(ID, "x", actor="late", expected_rev=2),
        lambda: store.attach(ID, "late", actor="late", expected_rev=2),
        lambda: store.record_many({ID: [("note.added", {"n": 9})]}, actor="late", expected_rev={ID: 2}),
    ]
    for write in writes:
        with pytest.raises(ConflictError) as refused:
            write()
        assert "at revision 3, and you go by 2" in refused.value.message
        assert "note.added by test" in refused.value.message
        assert f"task-history {ID} --after 2" in refused.value.hint
    assert (store.get(ID).rev, _notes(store)) == (3, [0, 1])
    assert store.record(ID, ("note.added", {"n": 9}), actor="late", expected_rev=3).rev == 4
