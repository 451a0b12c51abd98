import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError, fold
from opencode_tasks.store import Store, log, state
from opencode_tasks.task import Task, is_id
from tests.conftest import Repo
from tests.store.conftest import ID, Spawn, create, fill


def _note(store: Store, n: int, *, size: int = 0) -> Task:
    return store.record(ID, ("note.added", {"n": n, "pad": "x" * size}), actor="test")


def _notes(store: Store) -> list[int]:
    return [e.data["n"] for e in store.history(ID) if e.type == "note.added"]


def _is_consistent(store: Store) -> bool:
    """What is read, what the log says, and the projection's bytes are one."""
    head = [head for _, head in log.read(next(store.layout.log(ID).glob("*.jsonl")))][-1]
    folded = fold(store.history(ID))
    return store.get(ID) == folded and store.layout.state(ID).read_bytes() == state.render(folded, head)


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
    assert _is_consistent(store)


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
    assert _is_consistent(store)


def test_a_lost_clone_file_is_made_again_and_the_tasks_go_on(store: Store, task: Task) -> None:
    store.layout.clone.unlink()
    with pytest.raises(TaskError) as refused:
        _note(store, 1)
    assert "opencode-tasks init" in refused.value.hint
    store.make()
    _note(store, 2)
    assert _notes(store) == [2]


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
    assert _is_consistent(store)
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
        rest, _ = writer.communicate(timeout=10)
        acknowledged += [int(n) for n in (first + rest).split()]
        if cycle % 3 == 0 and log_path.read_bytes().endswith(b"\n"):
            # The kernel ends most writes whole before it kills: tear one as a lost power does.
            with log_path.open("ab") as f:
                f.write(b'{"v":1,"w":"c0ffee' + b"x" * cycle)
        content_b = log_path.read_bytes()
        if not content_b.endswith(b"\n"):
            torn.append(content_b[content_b.rfind(b"\n") + 1 :])
        assert store.get(ID).rev >= 1 + len(acknowledged)
    _note(store, -1)
    notes = _notes(store)
    assert set(acknowledged) <= set(notes)
    assert len(notes) == len(set(notes))
    assert len(notes) - len(acknowledged) - 1 <= 30
    kept = sorted(log_path.parent.glob("*.torn-*"))
    assert [p.read_bytes() for p in kept] == torn
    assert len(torn) >= 10
    assert _is_consistent(store)


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
    store.create(
        id="fix-parser-7k3q9m",
        title="Fix the parser",
        branch="task/fix-parser",
        base=Base("main", "a" * 40),
        workspace=Workspace("in-place", "/src/repo"),
        image=None,
        actor="test",
    )
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
            assert _is_consistent(store)
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


def test_record_on_a_full_disk(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    create(store)
    _note(store, 1)
    path = next(store.layout.log(ID).iterdir())
    before = path.read_bytes(), store.layout.state(ID).read_bytes(), store.get(ID)
    filler = fill(small_disk)
    for hot in (True, False):
        with pytest.raises(TaskError) as refused:
            _note(Store(small_disk, hot=hot), 2, size=10_000)
        assert refused.value.code == "disk_full"
        assert "free space" in refused.value.hint
        assert (path.read_bytes(), store.layout.state(ID).read_bytes(), store.get(ID)) == before
    assert _is_consistent(store)
    filler.unlink()
    _note(store, 3, size=10_000)
    assert _notes(store) == [1, 3]
    assert _is_consistent(store)


def test_an_event_that_still_fits_is_recorded_although_its_projection_does_not(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    create(store)
    before_b = store.layout.state(ID).read_bytes()
    filler = fill(small_disk)
    assert _note(store, 1).rev == 2
    assert store.layout.state(ID).read_bytes() == before_b
    assert store.get(ID).rev == 2
    assert {p.name for p in store.layout.task(ID).iterdir()} == {"log", "state.json", "plan.md", "decisions.md"}
    filler.unlink()
    _note(store, 2)
    assert _notes(store) == [1, 2]
    assert _is_consistent(store)


def test_create_on_a_disk_that_fills_at_any_step(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    refusals = 0
    for pages_left in range(10):
        filler = fill(small_disk, pages_left=pages_left)
        try:
            create(store)
        except TaskError as e:
            assert e.code == "disk_full"  # noqa: PT017 (create succeeds once there is room)
            assert "free space" in e.hint  # noqa: PT017
            assert list(store.layout.store.iterdir()) == []
            refusals += 1
        filler.unlink()
        if store.ids():
            break
    assert refusals >= 3
    assert store.ids() == [ID]
    _note(store, 1)
    assert _is_consistent(store)


def test_make_on_a_full_disk(small_disk: Path) -> None:
    filler = fill(small_disk)
    store = Store(small_disk, hot=True)
    with pytest.raises(TaskError) as refused:
        store.make()
    assert refused.value.code == "disk_full"
    filler.unlink()
    store.make()
    assert create(store).id == ID


def test_a_read_only_store_is_read_and_refuses_writes(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    task = create(store)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert store.all() == [task]
    assert len(list(store.history(ID))) == 1
    for hot in (True, False):
        writing = Store(small_disk, hot=hot)
        for write in (
            lambda s=writing: _note(s, 1),
            lambda s=writing: create(s, "other-abcdef"),
            lambda s=writing: s.ensure_status(ID, "running", reason="x", actor="test"),
        ):
            with pytest.raises(TaskError) as refused:
                write()
            assert refused.value.code == "read_only"
            assert "writable" in refused.value.hint
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    store.layout.state(ID).write_bytes(b"damaged")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert store.get(ID) == task
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    _note(store, 1)
    assert _is_consistent(store)


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
    with pytest.raises(CorruptError, match="changed after it was written"):
        store.ensure_status(task.id, "paused", reason="test", actor="test")
    assert path.read_bytes() == damaged_b
