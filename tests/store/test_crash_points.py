"""Every single change to the disk fails, is written by half, or is the last: what was acknowledged is there,
the rest is there whole or not at all, and the next command works."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from opencode_tasks.events import CorruptError
from opencode_tasks.store import Store, log, state
from tests.store.conftest import ID, new
from tests.store.faults import FAULTS, Fault, attempt, in_memory

OTHER, CHILD = "other-7k3q9m", "child-7k3q9m"
NOTES = list(range(1, 9))
"""What the task's log holds before, in segments of which the first ones are packed."""

_LATER = 100

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")

Use = Callable[[Store], object]


def _note(n: int) -> tuple[str, dict[str, int]]:
    return "note.added", {"n": n}


def _notes(store: Store, task_id: str = ID) -> list[int]:
    store.get(task_id)  # whoever reads comes past what a killed process left to do
    return [n for e in store.history(task_id) if (n := e.data.get("n", _LATER)) < _LATER]


def _nothing(_: Store) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """`prepare`: what is there before. `run`: what is interrupted. `found`: that it happened, wholly or not at all."""

    run: Use
    found: Callable[[Store], bool]
    prepare: Use = _nothing


def _wholly(store: Store, *batch: int) -> bool:
    found = _notes(store)
    assert found in (NOTES, [*NOTES, *batch])
    return found != NOTES


def _append(store: Store) -> object:
    return store.record(ID, _note(9), actor="test")


def _append_counted(store: Store) -> object:
    return store.record(ID, ("command.output", {"n": 9, "run": "r", "text": ""}), actor="test")


def _append_batch(store: Store) -> object:
    return store.record(ID, _note(9), _note(10), _note(11), actor="test")


def _append_much(store: Store) -> object:
    return store.record(ID, ("note.added", {"n": 9, "pad": "x" * 300_000}), actor="test")


def _one(store: Store) -> bool:
    return _wholly(store, 9)


def _seal(store: Store) -> object:
    log.SEAL_BYTES = 1
    return _append(store)


def _tear(store: Store) -> None:
    with _newest(store).open("ab") as f:
        f.write(b'{"v":1,"w":"torn')


def _newest(store: Store) -> Path:
    return log.segments(store.layout.log(ID))[store.writer][-1].path


def _create(store: Store) -> object:
    return store.create(new(CHILD), actor="test")


def _created(store: Store) -> bool:
    assert _notes(store) == NOTES
    made = CHILD in store.ids()
    if made:
        assert store.get(CHILD).rev == 1
        assert store.layout.plan(CHILD).read_text()
        assert store.decisions(CHILD).items == ()
    return made


def _create_child(store: Store) -> object:
    return store.create(new(CHILD, parent=ID), actor="test")


def _created_child(store: Store) -> bool:
    children = store.get(ID).children
    made = _created(store)
    assert children == ((CHILD,) if made else ())
    return made


def _record_many(store: Store) -> object:
    return store.record_many({OTHER: [_note(9), _note(10)], ID: [_note(9)]}, actor="test")


def _recorded_many(store: Store) -> bool:
    found = _wholly(store, 9)
    assert _notes(store, OTHER) == ([9, 10] if found else [])
    return found


def _seal_many(store: Store) -> object:
    log.SEAL_BYTES = 1
    return _record_many(store)


def _attach(store: Store) -> object:
    return store.attach(ID, "agent", actor="agent")


def _attached(store: Store) -> bool:
    assert _notes(store) == NOTES
    return store.get(ID).agents == ("agent",)


def _detach(store: Store) -> object:
    return store.detach(ID, "agent", actor="agent")


def _detached(store: Store) -> bool:
    return not _attached(store)


def _edit_by_hand(store: Store) -> None:
    store.decide(ID, "First", actor="test")
    with store.layout.decisions(ID).open("a") as f:
        f.write("\nBy hand\n")


def _decide(store: Store) -> object:
    return store.decide(ID, "Second", actor="test")


def _decided(store: Store) -> bool:
    """What was written by hand is nobody's to lose, nor taken in twice."""
    texts = sorted(d.text for d in store.decisions(ID).items)
    assert texts in (["By hand", "First"], ["By hand", "First", "Second"])
    store.rebuild(ID)
    shown = store.layout.decisions(ID).read_text()
    assert all(text in shown for text in texts)
    return "Second" in texts


def _harm(store: Store, n: int) -> None:
    """Other bytes in the record of note `n`, and no projection that could do without it."""
    path = next(s.path for s in log.segments(store.layout.log(ID))[store.writer] if _has(s, n))
    segment = log.parse_name(path)
    assert segment is not None
    content_b = log.content(segment).replace(f'"n":{n}}}'.encode(), f'"n":{n}]'.encode())
    path.unlink()
    path.with_name(log.name_of(segment.writer, segment.number)).write_bytes(content_b)
    _forget_projections(store)


def _has(segment: log.Segment, n: int) -> bool:
    return f'"n":{n}}}'.encode() in log.content(segment)


def _forget_projections(store: Store) -> None:
    for path in (store.layout.state(ID), *store.layout.log(ID).glob("*.snapshot.json")):
        path.unlink()


def _lose_newest(store: Store) -> None:
    content_b = _newest(store).read_bytes()
    _newest(store).write_bytes(content_b[: content_b.rindex(b"\n", 0, -1) + 1])


def _repair(store: Store) -> object:
    return store.repair(ID)


def _repaired(store: Store, left: list[int]) -> bool:
    """Refused, or said in the task: never just shorter."""
    try:
        task = store.get(ID)
    except CorruptError:
        assert store.repair(ID).degraded
        assert _notes(store) == left
        return False
    assert len(task.degraded) == 1
    assert _notes(store) == left
    return True


def _healed(store: Store) -> bool:
    assert _notes(store) == NOTES
    assert store.get(ID).degraded == ()
    return True


def _rebuild(store: Store) -> object:
    return store.rebuild(ID)


def _unchanged(store: Store) -> bool:
    assert _notes(store) == NOTES
    return True


def _renew(store: Store) -> None:
    (lease,) = store.get(ID).leases
    store.renew(ID, lease)


OPERATIONS = {
    "append": Operation(_append, _one),
    "append what is only counted": Operation(_append_counted, _one),
    "append a batch": Operation(_append_batch, lambda s: _wholly(s, 9, 10, 11)),
    "append much": Operation(_append_much, _one),
    "append after a torn end": Operation(_append, _one, _tear),
    "seal and pack": Operation(_seal, _one),
    "create": Operation(_create, _created),
    "create with a parent": Operation(_create_child, _created_child),
    "record_many": Operation(_record_many, _recorded_many),
    "record_many and seal": Operation(_seal_many, _recorded_many),
    "attach": Operation(_attach, _attached),
    "detach": Operation(_detach, _detached, _attach),
    "renew": Operation(_renew, _attached, _attach),
    "decide": Operation(_decide, _decided, _edit_by_hand),
    "mend without loss": Operation(_repair, _healed, partial(_harm, n=3)),
    "mend with a gap": Operation(_repair, lambda s: _repaired(s, [1, 2, *NOTES[3:]]), partial(_harm, n=3)),
    "mend with a loss at the end": Operation(_repair, lambda s: _repaired(s, NOTES[:-1]), _lose_newest),
    "rebuild": Operation(_rebuild, _unchanged, _forget_projections),
}


@pytest.fixture(autouse=True)
def own_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SEAL_BYTES", log.SEAL_BYTES)  # some operations set it


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as made:
        yield made


@pytest.fixture
def stage() -> Iterator[Path]:
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def template(memory: Path) -> Path:
    (memory / "template").mkdir()
    made = Store(memory / "template", hot=True)
    made.make()
    made.create(new(OTHER), actor="test")
    made.create(new(ID), actor="test")
    with pytest.MonkeyPatch.context() as patch:
        for n in NOTES:
            patch.setattr(log, "SEAL_BYTES", 1 if n in (3, 5) else 1_000_000)
            made.record(ID, _note(n), actor="test")
    assert len(log.segments(made.layout.log(ID))[made.writer]) == 3
    return made.layout.common_dir


def _history_of(template: Path) -> dict[str, bytes]:
    store = Store(template)
    parts = log.segments(store.layout.log(ID))[store.writer]
    return {log.name_of(s.writer, s.number): log.content(s) for s in parts}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_at_every_change_to_the_disk(stage: Path, template: Path, name: str, fault: Fault) -> None:
    operation = OPERATIONS[name]
    kept = _history_of(template) if name == "mend without loss" else {}

    def opened(place: Path) -> Store:
        return Store(place, hot=True, versions=lambda _: kept.items())

    before = stage / "before"
    shutil.copytree(template, before)
    operation.prepare(opened(before))
    for at in range(1, 1000):
        place = stage / f"at-{at}"
        shutil.copytree(before, place)
        mine = opened(place)
        ended = attempt(partial(operation.run, mine), partial(_goes_on, mine), at=at, fault=fault)
        _check(operation, partial(opened, place), done=ended.done)
        assert "BUG" not in ended.raised
        assert not ended.went_on
        shutil.rmtree(place)
        if not ended.reached:
            break
    assert ended.done
    # At the least one is written; that, the lock, the feed, and its sync are changed.
    assert at > (1 if fault in ("short", "torn") else 4)


def _goes_on(store: Store) -> None:
    """In the process to which it happened, with all that it remembers."""
    store.record(OTHER, _note(_LATER), actor="test")
    try:
        store.record(ID, ("went.on", {}), actor="test")
    except CorruptError:
        store.repair(ID)  # as it was before: it was damaged, and is not mended yet
        store.record(ID, ("went.on", {}), actor="test")


def _check(operation: Operation, opened: Callable[[], Store], *, done: bool) -> None:
    found = operation.found(opened())
    assert found or not done
    for task_id in opened().ids():
        told = opened().get(task_id)
        assert opened().record(task_id, _note(_LATER), actor="test").rev == told.rev + 1
        after = opened()
        task = after.rebuild(task_id)
        stream = after._stream(task_id)
        assert after.layout.state(task_id).read_bytes() == state.render(*stream.from_start())
        assert opened().get(task_id) == task
        if operation.run is not _repair:
            *sealed, newest = log.segments(stream._log)[after.writer]
            assert all(segment.packed for segment in sealed)
            assert newest.path.stat().st_mode & 0o222
    assert not opened().layout.transactions.exists()
    if not found:
        operation.run(opened())
