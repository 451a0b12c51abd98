"""A full disk and one that cannot be written: a clear error, a log that still verifies, and on it goes afterwards."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store, log, state
from opencode_tasks.store.index import Query
from tests.store.conftest import ID, create, fill, new

CHILD = "child-7k3q9m"
Change = Callable[[Store], object]
_PAGE_B = 4096


def _mount(kind: str, place: Path) -> list[str]:
    if kind == "tmpfs":
        return ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    image = place.with_suffix(".ext4")
    with image.open("wb") as f:
        f.truncate(1_500_000)
    # Small blocks, no journal: the space is for files.
    made = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", "-O", "^has_journal", str(image)]
    subprocess.run(made, check=True)
    return ["mount", "-o", "loop", str(image), str(place)]


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real file system with little on it; both allocate, and refuse, in their own way."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(_mount(request.param, place), check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def store(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """With a task of several segments, decisions, and an index."""
    made = Store(disk, hot=True)
    made.make()
    create(made)
    monkeypatch.setattr(log, "SEAL_BYTES", 3000)
    for n in range(12):
        _note(made, n)
    made.decide(ID, "Use a queue", actor="test")
    made.ensure_status(ID, "running", reason="", actor="test")
    assert [t.id for t in made.index.page(Query(), limit=10)[0]] == [ID]
    return made


def _note(store: Store, n: int, size_bytes: int = 200) -> object:
    return store.record(ID, ("note.added", {"n": n, "pad": "x" * size_bytes}), actor="test")


def _notes(store: Store) -> list[int]:
    return [e.data["n"] for e in store.history(ID) if e.type == "note.added"]


def _refused(change: Change, store: Store) -> TaskError | None:
    try:
        change(store)
    except TaskError as e:
        return e
    return None


def _note_more(store: Store) -> object:
    return _note(store, 99, 8 * _PAGE_B)


def _batch(store: Store) -> object:
    pad = "x" * 3 * _PAGE_B
    return store.record(ID, *(("note.added", {"n": n, "pad": pad}) for n in (99, 100, 101)), actor="test")


def _create(store: Store) -> object:
    return store.create(new(CHILD, title="x" * 4 * _PAGE_B), actor="test")


def _create_child(store: Store) -> object:
    return store.create(new(CHILD, parent=ID, title="x" * 4 * _PAGE_B), actor="test")


def _decide(store: Store) -> object:
    return store.decide(ID, "x" * 8 * _PAGE_B, actor="test")


def _attach(store: Store) -> object:
    return store.attach(ID, "agent-" + "x" * 4 * _PAGE_B, actor="agent")


def _record_many(store: Store) -> object:
    return store.record_many({ID: [("note.added", {"n": 99, "pad": "x" * 8 * _PAGE_B})]}, actor="test")


def _seal(store: Store) -> object:
    log.SEAL_BYTES = 1
    return _note_more(store)


CHANGES: dict[str, Change] = {
    "note": _note_more,
    "batch": _batch,
    "create": _create,
    "create with a parent": _create_child,
    "decide": _decide,
    "attach": _attach,
    "record_many": _record_many,
    "seal": _seal,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def _again(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.layout.common_dir, hot=True)


def _reads(store: Store) -> dict[str, object]:
    """Everything that a reading command asks for; as another process."""
    mine = _again(store)
    return {
        "get": mine.get(ID),
        "resolve": mine.resolve("fix-parser"),
        "ids": mine.ids(),
        "survey": mine.survey(),
        "page": mine.index.page(Query(), limit=10),
        "find": [m.task for m in mine.index.find("parser", limit=5)],
        "history": list(mine.history(ID)),
        "decisions": mine.decisions(ID),
    }


def _is_well(store: Store) -> None:
    for task_id in store.ids():
        told = _again(store).get(task_id)
        stream = _again(store)._stream(task_id)
        assert stream.from_start()[0] == told
        _again(store).rebuild(task_id)
        assert store.layout.state(task_id).read_bytes() == state.render(*stream.from_start())
        assert _again(store).index.page(Query(), limit=10)[0].count(told) == 1


@changes
@pytest.mark.parametrize("pages_left", [0, 1, 2, 3, 5, 8])
def test_a_full_disk_refuses_and_it_goes_on_when_there_is_space(
    store: Store, disk: Path, change: Change, pages_left: int
) -> None:
    notes, revision = _notes(store), store.get(ID).rev
    filler = fill(disk, pages_left=pages_left)
    refused = next(e for _ in range(9) if (e := _refused(change, store)))
    assert refused.code == "disk_full"
    assert refused.hint
    # Reading never needs space.
    reads = _reads(store)
    assert _again(store).from_start(ID) == reads["get"]
    filler.unlink()
    found = _notes(store)
    assert found[: len(notes)] == notes
    assert store.get(ID).rev >= revision
    # The process to which it happened, and another one.
    for mine in (store, _again(store)):
        before = mine.get(ID).rev
        _note(mine, 7)
        assert mine.get(ID).rev == before + 1
    _is_well(store)


def test_what_does_not_fit_is_not_there_by_half(store: Store, disk: Path) -> None:
    """Byte by byte: events of all sizes around what is left."""
    filler = fill(disk, pages_left=6)
    acknowledged = []
    for n in range(100, 160):
        refused = _refused(lambda s, n=n: _note(s, n, (n * 997) % (3 * _PAGE_B)), store)  # type: ignore[misc]
        if refused is None:
            acknowledged.append(n)
        else:
            assert refused.code == "disk_full"
    assert acknowledged
    assert len(acknowledged) < 60
    assert [n for n in _notes(_again(store)) if n >= 100] == acknowledged
    filler.unlink()
    _note(_again(store), 200)
    assert [n for n in _notes(_again(store)) if n >= 100] == [*acknowledged, 200]
    _is_well(store)


@pytest.fixture
def frozen(store: Store, disk: Path) -> Iterator[Store]:
    """The same store, after the file system was made read-only."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield store
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@changes
def test_a_read_only_store_refuses_to_change(frozen: Store, disk: Path, change: Change) -> None:
    before = _reads(frozen)
    for mine in (frozen, _again(frozen)):
        with pytest.raises(TaskError) as refused:
            change(mine)
        assert refused.value.code == "read_only"
        assert refused.value.hint
    assert _reads(frozen) == before
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    for mine in (frozen, _again(frozen)):
        revision = mine.get(ID).rev
        _note(mine, 7)
        assert mine.get(ID).rev == revision + 1
    _is_well(frozen)


def _no_index(store: Store) -> None:
    store.layout.index.unlink()


def _no_projection(store: Store) -> None:
    store.layout.state(ID).unlink()


def _a_damaged_projection(store: Store) -> None:
    store.layout.state(ID).write_bytes(b"{}")


def _a_torn_end(store: Store) -> None:
    with log.segments(store.layout.log(ID))[store.writer][-1].path.open("ab") as f:
        f.write(b'{"v":1,"w":')


def _an_index_behind(store: Store) -> None:
    store.update(ID, {"title": "Fix the parser twice"}, actor="test")


@pytest.mark.parametrize("prepare", [_no_index, _no_projection, _a_damaged_projection, _a_torn_end, _an_index_behind])
def test_a_read_only_store_reads_what_it_cannot_mend(
    store: Store, disk: Path, prepare: Callable[[Store], None]
) -> None:
    prepare(store)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    reads = _reads(store)
    assert reads["page"] == ([reads["get"]], None)
    assert reads["find"] == [reads["get"]]
    assert reads["survey"] == ([reads["get"]], {})
    assert reads["get"] == store.from_start(ID)


def _freeze(disk: Path) -> Change:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return lambda _: subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def _fill(disk: Path) -> Change:
    filler = fill(disk)
    return lambda _: filler.unlink()


@pytest.mark.parametrize("refuse", [_freeze, _fill])
def test_a_decision_written_by_hand_is_shown_before_it_can_be_taken_in(
    store: Store, disk: Path, refuse: Callable[[Path], Change]
) -> None:
    with store.layout.decisions(ID).open("a") as f:
        f.write("\nBy hand\n")
    allow = refuse(disk)
    assert [d.text for d in _again(store).decisions(ID).items] == ["Use a queue", "By hand"]
    allow(store)
    assert [d.text for d in _again(store).decisions(ID).items] == ["Use a queue", "By hand"]
    assert [e.type for e in store.history(ID)].count("decision.added") == 2
