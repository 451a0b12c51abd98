"""A damaged log is mended from what is sound, here and in history; what is lost is told, and never guessed."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencode_tasks import events
from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import Store, damage, log, state
from opencode_tasks.task import Task
from tests.store.conftest import ID, create, new
from tests.store.faults import in_memory

History = dict[str, bytes]
Segments = tuple[Path, ...]
COUNTED = "command.output"
"""A type of event after which `state.json` may be behind."""


@pytest.fixture
def history() -> History:
    """What the store's history holds, by the name of the segment; empty: it holds nothing."""
    return {}


@pytest.fixture
def store(history: History) -> Iterator[Store]:
    with in_memory() as place:
        made = Store(place, hot=True, versions=lambda _: history.items())
        made.make()
        yield made


@pytest.fixture
def grown(store: Store, monkeypatch: pytest.MonkeyPatch) -> Segments:
    """A task of 24 events in several segments; the last is not sealed, and has three."""
    monkeypatch.setattr(log, "SEAL_BYTES", 2000)
    create(store)
    for n in range(1, 21):
        _note(store, n)
    monkeypatch.setattr(log, "SEAL_BYTES", 1)
    _note(store, 21)
    monkeypatch.setattr(log, "SEAL_BYTES", 2000)
    _note(store, 22)
    _note(store, 23)
    found = tuple(s.path for s in log.segments(store.layout.log(ID))[store.writer])
    assert len(found) >= 4
    assert [path.name.endswith(".gz") for path in found] == [True] * (len(found) - 1) + [False]
    assert _sequence(found[-1]) == [22, 23, 24]
    return found


def _note(store: Store, n: int, type_: str = "note.added") -> Task:
    return store.record(ID, (type_, {"n": n}), actor="test")


def _notes(store: Store) -> list[int]:
    return [e.data["n"] for e in store.history(ID) if "n" in e.data]


def _remember(history: History, store: Store) -> None:
    """History has the log as it is now."""
    for segment in log.segments(store.layout.log(ID))[store.writer]:
        history[log.name_of(segment.writer, segment.number)] = log.content(segment)


def _again(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.layout.common_dir, hot=True, versions=store._versions)


def _is_consistent(store: Store) -> None:
    """Log, projection, and what is read are one, and it goes on from there."""
    told = store.get(ID)
    assert _again(store).rebuild(ID) == told
    assert store.layout.state(ID).read_bytes() == state.render(*store._stream(ID).from_start())
    assert _again(store).record(ID, ("note.added", {"n": 1000}), actor="test").rev == told.rev + 1
    assert _notes(store)[-1] == 1000


def _flip(path: Path, at: int) -> bytes:
    """Another bit at `at`; what it was before."""
    before = path.read_bytes()
    at %= len(before)
    path.chmod(0o644)
    path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
    return before


def _sequence(path: Path) -> list[int]:
    return [events.decode(line).seq for line in path.read_bytes().splitlines(keepends=True)]


def _kept(store: Store) -> list[str]:
    return [name for name in damage.marks(store.layout.log(ID)) if ".corrupt-" in name]


def _drop(path: Path) -> None:
    path.unlink()


def _flip_middle(path: Path) -> None:
    _flip(path, path.stat().st_size // 2)


def _halve(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def _is_refused(store: Store) -> None:
    for use in (_get_again, _note_again):
        with pytest.raises(CorruptError):
            use(store)


HARM: dict[str, Callable[[Path], None]] = {
    "missing": _drop,
    "flipped": _flip_middle,
    "halved": _halve,
    "emptied": _empty,
}


@pytest.mark.parametrize("projected", [True, False], ids=["with state.json", "without any projection"])
@pytest.mark.parametrize("which", [0, 1, -1], ids=["first", "inner", "last"])
@pytest.mark.parametrize("harm", HARM)
def test_what_history_holds_comes_back_by_itself(
    store: Store, history: History, grown: Segments, harm: str, which: int, projected: bool
) -> None:
    _remember(history, store)
    before = store.get(ID)
    HARM[harm](grown[which])
    if not projected:
        _forget(store)
    task = _again(store).get(ID)
    assert (task.title, task.degraded) == (before.title, ())
    store.repair(ID)
    assert _notes(store) == list(range(1, 24))
    assert store.get(ID).degraded == ()
    assert any(name.startswith(grown[which].name) for name in _kept(store)) == (harm != "missing")
    _is_consistent(store)


def _forget(store: Store) -> None:
    store.layout.state(ID).unlink()
    for path in store.layout.log(ID).glob("*.snapshot.json"):
        path.unlink()


def test_a_write_heals_what_history_holds(store: Store, history: History, grown: Segments) -> None:
    _remember(history, store)
    _flip(grown[-1], -100)
    _forget_state(store)
    assert _note(_again(store), 24).degraded == ()
    assert _notes(store) == list(range(1, 25))
    assert len(_kept(store)) == 1
    _is_consistent(store)


def test_history_need_not_hold_the_newest(store: Store, history: History, grown: Segments) -> None:
    _remember(history, store)
    _note(store, 24)
    _flip(grown[-1], 100)
    assert store.repair(ID).degraded == ()
    assert _notes(store) == list(range(1, 25))


def test_a_damaged_file_is_kept_as_it_was(store: Store, history: History, grown: Segments) -> None:
    _remember(history, store)
    _flip(grown[0], -100)
    damaged = grown[0].read_bytes()
    store.repair(ID)
    (kept,) = _kept(store)
    assert (store.layout.log(ID) / kept).read_bytes() == damaged


def test_a_gap_is_refused_until_somebody_accepts_it(store: Store, grown: Segments) -> None:
    _flip(grown[-1], 100)
    files = _files(store)
    for use in (_note_again, _get_again):
        _forget_state(store)
        with pytest.raises(CorruptError) as refused:
            use(store)
        assert "doctor --repair" in refused.value.hint
        assert _files(store) == {name: b for name, b in files.items() if not name.startswith("state.json")}


def _forget_state(store: Store) -> None:
    store.layout.state(ID).unlink(missing_ok=True)


def _note_again(store: Store) -> None:
    _note(_again(store), 99)


def _get_again(store: Store) -> None:
    _again(store).get(ID)


def _files(store: Store) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(store.layout.task(ID).rglob("*")) if p.is_file()}


def test_a_lost_record_is_told_and_the_task_goes_on(store: Store, grown: Segments) -> None:
    _flip(grown[-1], 100)
    assert store.repair(ID).degraded == (f"records 22 to 22 of {store.writer}",)
    assert _notes(store) == [*range(1, 21), 22, 23]
    _is_consistent(store)


@pytest.mark.parametrize("harm", ["missing", "flipped", "emptied"])
def test_a_lost_segment_is_told_and_the_task_goes_on(store: Store, grown: Segments, harm: str) -> None:
    parts = [log.content(s).splitlines(keepends=True) for s in log.segments(store.layout.log(ID))[store.writer]]
    first = events.decode(parts[1][0]).seq
    last = events.decode(parts[1][-1]).seq
    HARM[harm](grown[1])
    assert store.repair(ID).degraded == (f"records {first} to {last} of {store.writer}",)
    assert _notes(store) == [n for n in range(1, 24) if not first <= n + 1 <= last]
    _is_consistent(store)


@pytest.mark.parametrize("harm", ["missing", "flipped", "emptied"])
@pytest.mark.parametrize("known_by", ["state.json", "snapshot"])
def test_a_lost_newest_segment_is_told_and_the_task_goes_on(
    store: Store, grown: Segments, harm: str, known_by: str
) -> None:
    """The newest is a sealed one: whoever sealed it was killed before it went on."""
    for n in range(24, 60):
        _note(store, n)
        active = log.segments(store.layout.log(ID))[store.writer][-1]
        if active.path.stat().st_size >= log.SEAL_BYTES:
            break
    first = _sequence(active.path)[0]
    _note(store, 60)
    sealed = active.path.with_name(active.path.name + ".gz")
    after = log.segments(store.layout.log(ID))[store.writer][-1].path
    after.unlink()
    HARM[harm](sealed)
    if known_by == "snapshot":
        _forget_state(store)
    with pytest.raises(CorruptError):
        _again(store).get(ID)
    assert store.repair(ID).degraded == (f"records from {first} on of {store.writer}",)
    assert _notes(store) == list(range(1, first - 1))
    _is_consistent(store)


def test_a_log_shorter_than_the_projection_says_is_refused_and_told(store: Store, grown: Segments) -> None:
    lines = grown[-1].read_bytes().splitlines(keepends=True)
    last = events.decode(lines[-1]).seq
    grown[-1].write_bytes(b"".join(lines[:-1]))
    with pytest.raises(CorruptError):
        _again(store).get(ID)
    with pytest.raises(CorruptError):
        _note(_again(store), 99)
    assert store.repair(ID).degraded == (f"records from {last} on of {store.writer}",)
    assert _notes(store) == list(range(1, 23))
    _is_consistent(store)


def test_a_damaged_last_record_is_lost_only_with_consent(store: Store, grown: Segments) -> None:
    """The projection is behind, and nothing else tells of the record; its line is there, and is not torn."""
    _note(store, 24, COUNTED)
    assert state.read(store.layout.state(ID))[0].rev == 24
    _flip(grown[-1], -100)
    _is_refused(store)
    assert store.repair(ID).degraded == (f"records from 25 on of {store.writer}",)
    assert _notes(store) == list(range(1, 24))
    _is_consistent(store)


def test_a_last_record_that_lost_its_newline_is_not_taken_for_a_torn_one(store: Store, grown: Segments) -> None:
    _note(store, 24, COUNTED)
    _flip(grown[-1], -1)
    _is_refused(store)


def test_a_damaged_record_out_of_its_place_is_not_passed_over(store: Store, grown: Segments) -> None:
    """A sound line that does not belong there follows it, and it might be the newest."""
    _note(store, 24, COUNTED)
    lines = grown[-1].read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"n":24', b'"n":25')
    grown[-1].write_bytes(b"".join([*lines, lines[0]]))
    _is_refused(store)
    assert store.repair(ID).degraded == (f"records from 25 on of {store.writer}",)
    assert _notes(store) == list(range(1, 24))
    _is_consistent(store)


def test_a_lost_first_record_cannot_be_mended_and_nothing_is_touched(store: Store, grown: Segments) -> None:
    content_b = log.content(log.segments(store.layout.log(ID))[store.writer][0])
    grown[0].unlink()
    first = grown[0].with_name(grown[0].name.removesuffix(".gz"))
    first.write_bytes(content_b.replace(b"task.created", b"task.Created", 1))
    before = store.get(ID)
    files = _files(store)
    with pytest.raises(CorruptError):
        _again(store).rebuild(ID)
    with pytest.raises(CorruptError):
        store.repair(ID)
    assert _files(store) == files
    # The projection knows the task, and what is written now is as safe as ever.
    assert store.get(ID) == before
    assert _note(_again(store), 24).rev == before.rev + 1


def test_a_repair_does_what_it_can_where_several_things_are_lost(
    store: Store, history: History, grown: Segments
) -> None:
    _remember(history, store)
    del history[log.name_of(store.writer, 2)]
    lost = [
        events.decode(line).seq
        for line in log.content(log.parse_name(grown[1]) or pytest.fail("no segment")).splitlines(True)
    ]
    for path in grown[:-1]:
        _flip(path, -50)
    task = store.repair(ID)
    assert task.degraded == (f"records {lost[0]} to {lost[-1]} of {store.writer}",)
    assert set(_notes(store)) == set(range(1, 24)) - {n - 1 for n in lost}
    _is_consistent(store)


def test_what_is_lost_already_is_not_told_twice(store: Store, history: History, grown: Segments) -> None:
    _flip(grown[-1], 100)
    told = store.repair(ID).degraded
    _remember(history, store)
    _flip(grown[0], -50)
    # Healed by itself: the gap is known.
    _forget(store)
    assert _again(store).get(ID).degraded == told
    assert store.repair(ID).degraded == told
    _is_consistent(store)


def test_lost_records_that_turn_up_again_end_the_gap(store: Store, history: History, grown: Segments) -> None:
    """A backup that somebody found: its records fit in, and the log is whole again."""
    whole = log.content(log.Segment(store.writer, len(grown), grown[-1]))
    _flip(grown[-1], 100)
    store.repair(ID)
    history[grown[-1].name] = whole
    store.repair(ID)
    assert _notes(store) == list(range(1, 24))
    _is_consistent(store)


def test_what_was_written_since_a_loss_stays_when_the_lost_turns_up(
    store: Store, history: History, grown: Segments
) -> None:
    """The last two were lost, and their numbers are others' now."""
    _remember(history, store)
    found = dict(history)
    history.clear()
    lines = grown[-1].read_bytes().splitlines(keepends=True)
    grown[-1].write_bytes(lines[0])
    store.repair(ID)
    history.update(found)
    _flip(grown[0], -50)
    store.repair(ID)
    assert [e.type for e in store.history(ID)][-3:] == ["note.added", "log.repaired", "log.repaired"]
    assert _notes(store) == list(range(1, 22))
    _is_consistent(store)


def test_a_repair_of_a_sound_task_loses_nothing(store: Store, grown: Segments) -> None:
    before = store.get(ID)
    assert store.repair(ID).degraded == ()
    assert _notes(store) == list(range(1, 24))
    assert store.get(ID).rev == before.rev + 1
    assert _kept(store) == []
    _is_consistent(store)


def test_a_log_of_a_newer_schema_is_not_repaired(store: Store, grown: Segments) -> None:
    line_b = grown[-1].read_bytes().splitlines(keepends=True)[-1]
    newer = line_b[: line_b.rindex(b',"h"')].replace(b'{"v":1', b'{"v":2', 1)
    _hashed = hashlib.sha256(newer + b"}").hexdigest()
    with grown[-1].open("ab") as f:
        f.write(newer + f',"h":"{_hashed}"}}\n'.encode())
    files = _files(store)
    for use in (_get_again, _note_again, lambda s: s.repair(ID)):
        with pytest.raises(TaskError) as refused:
            use(store)
        assert refused.value.code == "newer_schema"
    assert _files(store) == files


def test_one_damaged_task_takes_no_other_along(store: Store, grown: Segments) -> None:
    store.create(new("other-7k3q9m"), actor="test")
    _flip(grown[-1], 100)
    _forget_state(store)
    tasks, damaged = _again(store).survey()
    assert [t.id for t in tasks] == ["other-7k3q9m"]
    assert list(damaged) == [ID]
