"""Several tasks change together or not at all, whatever is killed when; and nobody else waits for them."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import Store, files, log, state, transactions
from opencode_tasks.store.locks import locked
from tests.store.conftest import Spawn, new
from tests.store.faults import attempt, in_memory

A, B, C = "one-7k3q9m", "two-7k3q9m", "three-7k3q9m"
CHILD, SISTER = "child-7k3q9m", "sister-7k3q9m"

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def template(memory: Path) -> Path:
    """Three tasks that nobody has changed."""
    made = Store(memory / "template", hot=True)
    made.layout.common_dir.mkdir()
    made.make()
    for task_id in (A, B, C):
        made.create(new(task_id), actor="test")
    return made.layout.common_dir


@pytest.fixture
def store(memory: Path, template: Path) -> Iterator[Store]:
    place = memory / "store"
    shutil.copytree(template, place)
    yield Store(place, hot=True)
    shutil.rmtree(place)


def _again(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.layout.common_dir, hot=True)


def _record_both(store: Store) -> object:
    return store.record_many({A: [_note(1)], B: [_note(1), _note(2)]}, actor="test")


def _create_both(store: Store) -> object:
    return store.create_many([new(CHILD, parent=A), new(SISTER, parent=B)], actor="test")


def _note(n: int) -> tuple[str, dict[str, int]]:
    return "note.added", {"n": n}


def _notes(store: Store, task_id: str) -> list[int]:
    return [e.data["n"] for e in store.history(task_id) if e.type == "note.added"]


def _all_of_record(store: Store) -> bool:
    store.get(A)
    found = _notes(store, A), _notes(store, B)
    assert found in (([], []), ([1], [1, 2]))
    return found == ([1], [1, 2])


def _all_of_create(store: Store) -> bool:
    told = {*store.get(A).children, *store.get(B).children}
    made = {CHILD, SISTER} & set(store.ids())
    assert made == told
    assert made in (set(), {CHILD, SISTER})
    return bool(made)


CHANGES: dict[str, tuple[Callable[[Store], object], Callable[[Store], bool]]] = {
    "record_many": (_record_both, _all_of_record),
    "create_many": (_create_both, _all_of_create),
}
changes = pytest.mark.parametrize(("change", "whole"), CHANGES.values(), ids=CHANGES)
Change = Callable[[Store], object]
Whole = Callable[[Store], bool]


def _is_well(store: Store) -> None:
    """Nothing is left to do, every log verifies, the projections are right, and every task goes on."""
    assert not store.layout.transactions.exists()
    for task_id in store.ids():
        told = store.get(task_id)
        assert _again(store).from_start(task_id) == told
        assert store.record(task_id, _note(99), actor="test").rev == told.rev + 1
        stream = store._stream(task_id)
        store.rebuild(task_id)
        assert store.layout.state(task_id).read_bytes() == state.render(*stream.from_start())


@changes
def test_a_change_of_several_tasks_is_made(store: Store, change: Change, whole: Whole) -> None:
    change(store)
    assert whole(_again(store))
    assert "note.added" in store.written or "task.created" in store.written
    _is_well(_again(store))


@pytest.mark.parametrize("fault", ["before", "torn", "EIO"])
@changes
def test_killed_anywhere_it_is_made_wholly_or_not_at_all(
    memory: Path, template: Path, change: Change, whole: Whole, fault: str
) -> None:
    """After `before` and `torn` the process is gone; another one finds what it left."""
    seen = set()
    for at in range(1, 1000):
        place = memory / f"at-{at}"
        shutil.copytree(template, place)
        mine = Store(place, hot=True)
        ended = attempt(lambda s=mine: change(s), lambda: None, at=at, fault=fault)  # type: ignore[misc,arg-type]
        # The tasks that have no part in it first: they are read and written as ever.
        assert Store(place, hot=True).record(C, _note(1), actor="test").rev == 2
        found = whole(Store(place, hot=True))
        assert found or not ended.done
        seen.add(found)
        _is_well(Store(place, hot=True))
        shutil.rmtree(place)
        if not ended.reached:
            break
    assert at > (5 if fault == "torn" else 20)
    assert seen == {False, True}


def _leave_committed(store: Store, change: Change) -> Path:
    """The change is committed by a process that was killed before it carried it out."""
    pid = os.fork()
    if pid == 0:
        try:
            transactions._carry_out = lambda *_: os._exit(9)
            change(store)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    (path,) = store.layout.transactions.iterdir()
    return path


def _get(store: Store) -> object:
    return store.get(A)


def _write(store: Store) -> object:
    return store.record(B, _note(3), actor="test")


def _write_both(store: Store) -> object:
    return store.record_many({A: [_note(3)], C: [_note(3)]}, actor="test")


def _attach(store: Store) -> object:
    return store.attach(A, "agent", actor="agent")


def _create(store: Store) -> object:
    return store.create(new("fourth-7k3q9m", parent=B), actor="test")


@pytest.mark.parametrize("use", [_get, _write, _write_both, _attach, _create])
@changes
def test_whoever_comes_next_finishes_it_first(
    store: Store, change: Change, whole: Whole, use: Callable[[Store], object]
) -> None:
    _leave_committed(store, change)
    use(_again(store))
    assert not store.layout.transactions.exists()
    if use in (_get, _attach):
        assert whole(_again(store))
    for task_id in (A, B):
        types = [e.type for e in store.history(task_id)]
        assert types[1] == ("note.added" if change is _record_both else "child.added")
    for task_id in store.ids():
        assert _again(store).from_start(task_id) == store.get(task_id)


def test_two_that_find_it_do_it_once(store: Store, spawn: Spawn) -> None:
    _leave_committed(store, _record_both)
    script = f"sys.stdin.readline(); print(store.get({A!r}).rev, store.get({B!r}).rev)"
    both = [spawn(script, common_dir=store.layout.common_dir) for _ in range(2)]
    told = [process.communicate("go\n")[0] for process in both]
    assert told == ["2 3\n", "2 3\n"]
    assert _all_of_record(store)


def test_others_do_not_wait_for_one_that_is_being_made(store: Store) -> None:
    """Its locks are held, as by a process that is at it right now."""
    _leave_committed(store, _record_both)
    with locked(store.layout.lock(A), hot=True), locked(store.layout.lock(B), hot=True):
        other = _again(store)
        assert other.get(C).rev == 1
        assert other.record(C, _note(1), actor="test").rev == 2
        assert len(other.create_many([new(CHILD, parent=C)], actor="test")) == 1
    assert _all_of_record(_again(store))
    _is_well(_again(store))


def test_a_second_one_for_the_same_tasks_waits_for_the_first_to_be_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is committed, and its process killed, after the second has looked and before it has the locks."""
    real = transactions._locked_together

    def late(*args: object, **named: object) -> object:
        monkeypatch.undo()
        _leave_committed(store, _record_both)
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(transactions, "_locked_together", late)
    mine = _again(store)
    mine.record_many({A: [_note(7)], B: [_note(7)]}, actor="test")
    assert (_notes(store, A), _notes(store, B)) == ([1, 7], [1, 2, 7])
    _is_well(_again(store))


def _refused_rev(store: Store) -> None:
    store.record_many({A: [_note(1)], B: [_note(1)]}, actor="test", expected_rev={B: 7})


def _refused_event(store: Store) -> None:
    impossible = ("status.changed", {"from": "pending", "to": "completed", "reason": ""})
    store.record_many({A: [_note(1)], B: [impossible]}, actor="test")


def _refused_size(store: Store) -> None:
    store.record_many({A: [_note(1)], B: [("note.added", {"pad": "x" * 17_000_000})]}, actor="test")


def _no_such_task(store: Store) -> None:
    store.record_many({A: [_note(1)], CHILD: [_note(1)]}, actor="test")


def _no_such_parent(store: Store) -> None:
    store.create_many([new(CHILD, parent=A), new(SISTER, parent="nobody-7k3q9m")], actor="test")


def _taken(store: Store) -> None:
    store.create_many([new(CHILD, parent=A), new(B)], actor="test")


def _twice(store: Store) -> None:
    store.create_many([new(CHILD, parent=A), new(CHILD)], actor="test")


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (_refused_rev, ConflictError),
        (_refused_event, TaskError),
        (_refused_size, TaskError),
        (_no_such_task, NoTaskError),
        (_no_such_parent, NoTaskError),
        (_taken, ConflictError),
        (_twice, ConflictError),
    ],
)
def test_one_that_is_refused_changes_nothing(
    store: Store, refused: Callable[[Store], None], kind: type[TaskError]
) -> None:
    def looks() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(store.layout.store.rglob("*")) if p.is_file()}

    before = looks()
    with pytest.raises(kind):
        refused(store)
    assert looks() == before
    _is_well(_again(store))


def test_a_family_is_made_in_one(store: Store) -> None:
    """The parent is new, too."""
    store.create_many([new(CHILD), new(SISTER, parent=CHILD)], actor="test")
    assert _again(store).get(CHILD).children == (SISTER,)
    _is_well(_again(store))


def test_one_who_helps_to_finish_it_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """New tasks have no lock that would keep a reader from finishing what their creator is at."""
    real = transactions._carry_out

    def helped(*args: object) -> None:
        monkeypatch.undo()
        transactions.recover(store.layout, hot=True)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(transactions, "_carry_out", helped)
    made = store.create_many([new(CHILD), new(SISTER)], actor="test")
    assert [_again(store).get(task.id) for task in made] == made
    _is_well(_again(store))


@pytest.mark.parametrize("harm", ["flipped", "halved", "emptied"])
def test_a_damaged_one_is_refused_by_its_tasks_alone(store: Store, harm: str) -> None:
    path = _leave_committed(store, _create_both)
    content_b = path.read_bytes()
    at = content_b.index(SISTER.encode()) + 1
    flipped = content_b[:at] + b"Q" + content_b[at + 1 :]
    path.write_bytes({"flipped": flipped, "halved": content_b[: len(content_b) // 2], "emptied": b""}[harm])
    assert store.record(C, _note(1), actor="test").rev == 2
    assert store.record_many({C: [_note(2)]}, actor="test")[0].rev == 3
    if harm != "emptied":
        with pytest.raises(CorruptError) as refused:
            _again(store).record(A, _note(1), actor="test")
        assert str(path) in refused.value.message
    # What it built is not thrown away either.
    with pytest.raises(CorruptError), store.registry_lock():
        store.sweep_unfinished()
    path.write_bytes(content_b)
    assert _all_of_create(_again(store))
    _is_well(_again(store))


def test_what_was_left_before_the_commit_goes(store: Store) -> None:
    """The temporary file of a process that was killed; while its folder is there, every use looks into it."""
    pid = os.fork()
    if pid == 0:
        try:
            real = os.write
            os.write = lambda fd, b: os._exit(9) if b"appended" in bytes(b) else real(fd, b)
            _record_both(store)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(list(store.layout.transactions.iterdir())) == 1
    _again(store).record(C, _note(1), actor="test")
    assert not store.layout.transactions.exists()
    assert not _all_of_record(store)


def test_a_full_disk_after_the_commit_is_told_and_the_change_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        with files.refused_writes(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "append", full)
    with pytest.raises(TaskError) as refused:
        _record_both(store)
    assert refused.value.code == "disk_full"
    assert "do not repeat" in refused.value.hint
    monkeypatch.undo()
    assert _all_of_record(_again(store))
    _is_well(_again(store))
