"""The feed: a change is never without its entry, whoever writes, reads, forgets or is killed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.store import Store, feed
from opencode_tasks.store.feed import Entry, Feed, Place
from opencode_tasks.task import Task
from tests.store.conftest import ID, Spawn

_WRITER = """
from opencode_tasks.store import feed
from opencode_tasks.store.feed import Entry, Feed
feed._ROLL_BYTES = 400
name, folder = sys.argv[3], Path(sys.argv[4])
to = Feed(folder)
for n in range(int(sys.argv[5])):
    to.note(Entry(name, n, "x" * (n % 50)))
print("done", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "feed"


def _read(folder: Path, place: Place = Place()) -> list[Entry]:  # noqa: B008 (a value)
    return feed.after(folder, place)[0]


def test_what_is_noted_is_read_once(folder: Path) -> None:
    assert feed.after(folder, Place()) == ([], Place())
    Feed(folder).note(Entry("one-000000", 1, "task.created"), Entry("two-000000", 7, ""))
    entries, place = feed.after(folder, Place())
    assert entries == [Entry("one-000000", 1, "task.created"), Entry("two-000000", 7, "")]
    assert feed.after(folder, place) == ([], place)
    assert feed.end(folder) == place
    Feed(folder).note(Entry("one-000000", 2, "b"))
    assert _read(folder, place) == [Entry("one-000000", 2, "b")]


def test_nothing_is_noted_for_nothing(folder: Path) -> None:
    Feed(folder).note()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("a b  c ", "a b  c "),
        ("two\nlines\r\n", "two lines  "),
        ("nul \0 and \x85 and \u2028", "nul   and   and  "),
        ("\udcff\ud800", "  "),
        ("é\N{PILE OF POO}", "é\N{PILE OF POO}"),
        ("x" * 500, "x" * 200),
    ],
)
def test_odd_labels_stay_in_their_line(folder: Path, label: str, read: str) -> None:
    Feed(folder).note(Entry("one-000000", 1, label), Entry("two-000000", 2, "next"))
    assert _read(folder) == [Entry("one-000000", 1, read), Entry("two-000000", 2, "next")]


def test_a_torn_line_does_not_take_the_next_one_along(folder: Path) -> None:
    """At every byte at which a writer can be killed."""
    Feed(folder).note(Entry("one-000000", 12, "status.changed:running"))
    whole_b = (folder / "000001").read_bytes()
    for cut in range(len(whole_b)):
        (folder / "000001").write_bytes(whole_b[:cut])
        before, place = feed.after(folder, Place())
        assert feed.end(folder) == place
        Feed(folder).note(Entry("two-000000", 1, "x"))
        later = [e for e in _read(folder, place) if e.task_id != "one-000000"]
        assert before == []
        assert later == [Entry("two-000000", 1, "x")]


def test_what_is_being_written_is_read_when_it_is_whole(folder: Path) -> None:
    Feed(folder).note(Entry("one-000000", 12, "status.changed:running"))
    whole_b = (folder / "000001").read_bytes()
    for cut in range(len(whole_b)):
        (folder / "000001").write_bytes(whole_b[:cut])
        for start in (feed.after(folder, Place())[1], feed.end(folder)):
            (folder / "000001").write_bytes(whole_b)
            assert _read(folder, start) == [Entry("one-000000", 12, "status.changed:running")]


def test_garbage_is_passed_over(folder: Path) -> None:
    Feed(folder).note(Entry("one-000000", 1, "x"))
    with (folder / "000001").open("ab") as f:
        f.write(b"\xff\xfe\n\n \nx y z\n" + b"a " + b"9" * 5000 + b" b\n")
    (folder / "7").touch()
    (folder / "000002~").touch()
    Feed(folder).note(Entry("two-000000", 2, "x"))
    assert [e.task_id for e in _read(folder)] == ["one-000000", "two-000000"]


def test_it_rolls_and_forgets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 200)
    to = Feed(folder)
    for n in range(100):
        to.note(Entry("one-000000", n, "x"))
    names = sorted(p.name for p in folder.iterdir())
    assert len(names) > 5
    assert {e.rev for e in _read(folder)} == set(range(100))
    middle = Place(int(names[3]), 0)
    kept = _read(folder, middle)
    feed.forget(folder, middle)
    assert sorted(p.name for p in folder.iterdir()) == names[3:]
    assert _read(folder, middle) == kept
    assert feed.holds(folder, middle)
    assert not feed.holds(folder, Place())


def test_a_writer_that_slept_while_its_file_was_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 200)
    sleeper, other = Feed(folder), Feed(folder)
    sleeper.note(Entry("one-000000", 1, "x"))
    for n in range(100):
        other.note(Entry("two-000000", n, "x"))
    _, place = feed.after(folder, Place())
    feed.forget(folder, place)
    sleeper.note(Entry("one-000000", 2, "y"))
    assert _read(folder, place) == [Entry("one-000000", 2, "y")]


@pytest.mark.parametrize("forgotten", [1, 3])
def test_a_file_is_forgotten_between_its_opening_and_the_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch, forgotten: int
) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 200)
    slow, other = Feed(folder), Feed(folder)
    slow.note(Entry("one-000000", 1, "x"))
    place = Place()
    real = os.write

    def late(fd: int, content_b: bytes) -> int:
        nonlocal place
        monkeypatch.setattr(os, "write", real)
        while len(feed._numbers(folder)) <= forgotten:
            other.note(Entry("two-000000", 1, "x"))
        place = feed.after(folder, Place())[1]
        feed.forget(folder, place)
        return real(fd, content_b)

    monkeypatch.setattr(os, "write", late)
    slow.note(Entry("one-000000", 2, "y"))
    assert Entry("one-000000", 2, "y") in _read(folder, place)


@pytest.mark.parametrize("rolls_at", [100, 1_000_000])
def test_a_writer_behind_the_reader_is_not_overlooked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rolls_at: int
) -> None:
    """The reader went on to the next file when the other made it; another version may roll at another size."""
    monkeypatch.setattr(feed, "_ROLL_BYTES", 100)
    other, slow = Feed(folder), Feed(folder)
    slow.note(Entry("two-000000", 1, "x"))
    other.note(Entry("one-000000", 1, "x" * 100))
    place = feed.after(folder, Place())[1]
    assert place.file == 2
    monkeypatch.setattr(feed, "_ROLL_BYTES", rolls_at)
    slow.note(Entry("two-000000", 2, "x"))
    assert Entry("two-000000", 2, "x") in _read(folder, place)


def test_a_writer_about_to_roll_does_not_bring_a_forgotten_file_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer, which had it open as the newest one, would go on there, behind every reader."""
    monkeypatch.setattr(feed, "_ROLL_BYTES", 100)
    fast, sleeper, roller = Feed(folder), Feed(folder), Feed(folder)
    roller.note(Entry("one-000000", 1, "x"))
    place, real = Place(), os.path.lexists

    def late(path: str) -> bool:
        nonlocal place
        found = real(path)
        monkeypatch.setattr(os.path, "lexists", real)
        fast.note(Entry("one-000000", 1, "x"))
        sleeper.note(Entry("two-000000", 1, "x"))
        for n in range(10):
            fast.note(Entry("one-000000", n, "x" * 50))
        place = feed.after(folder, place)[1]
        feed.forget(folder, place)
        return found

    monkeypatch.setattr(os.path, "lexists", late)
    roller.note(Entry("one-000000", 2, "x" * 100))
    sleeper.note(Entry("two-000000", 2, "x"))
    assert Entry("two-000000", 2, "x") in _read(folder, place)


@pytest.mark.parametrize("look", ["lexists", "fstat"])
def test_files_are_forgotten_between_a_writers_two_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 200)
    fast, slow = Feed(folder), Feed(folder)
    slow.note(Entry("two-000000", 1, "x"))
    place = Place()
    write, where = os.write, os.path if look == "lexists" else os
    real = getattr(where, look)

    def late_write(fd: int, content_b: bytes) -> int:
        nonlocal place
        monkeypatch.setattr(os, "write", write)
        for n in range(20):
            fast.note(Entry("one-000000", n, "x" * 50))
        place = feed.after(folder, place)[1]
        monkeypatch.setattr(where, look, late_look)
        return write(fd, content_b)

    def late_look(at: object) -> object:
        monkeypatch.setattr(where, look, real)
        feed.forget(folder, place)
        return real(at)

    monkeypatch.setattr(os, "write", late_write)
    slow.note(Entry("two-000000", 2, "x"))
    assert Entry("two-000000", 2, "x") in _read(folder, place)


def test_two_writers_fill_a_file_at_the_same_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_ROLL_BYTES", 100)
    other, slow = Feed(folder), Feed(folder)
    slow.note(Entry("two-000000", 1, "x"))
    seen: list[Entry] = []
    place, real = Place(), os.open

    def late(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal seen, place
        if flags & os.O_EXCL:
            monkeypatch.setattr(os, "open", real)
            os.close(real(path, flags, mode))
            seen, place = feed.after(folder, place)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", late)
    slow.note(Entry("two-000000", 2, "x" * 100))
    other.note(Entry("one-000000", 1, "x"))
    assert place.file == 2
    assert [(e.task_id, e.rev) for e in seen] == [("two-000000", 1), ("two-000000", 2)]
    assert [(e.task_id, e.rev) for e in _read(folder, place)] == [("one-000000", 1)]


def test_a_short_write_is_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a moment; somebody else writes before we go on."""
    to, real = Feed(folder), os.write
    to.note(Entry("one-000000", 1, "x"))

    def short(fd: int, content_b: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        written = real(fd, content_b[:8])
        Feed(folder).note(Entry("two-000000", 1, "x"))
        return written

    monkeypatch.setattr(os, "write", short)
    to.note(Entry("one-000000", 2, "y"))
    assert {(e.task_id, e.rev) for e in _read(folder)} >= {("one-000000", 1), ("two-000000", 1), ("one-000000", 2)}


def test_a_feed_that_was_lost_is_noticed(folder: Path) -> None:
    Feed(folder).note(Entry("one-000000", 1, "x"))
    place = feed.end(folder)
    assert feed.holds(folder, place)
    path = folder / "000001"
    path.write_bytes(path.read_bytes()[:-5])
    assert not feed.holds(folder, place)
    Feed(folder).note(Entry("two-000000", 1, "x"))
    assert Entry("two-000000", 1, "x") in _read(folder, Place(1, 10_000))
    path.unlink()
    assert not feed.holds(folder, place)
    Feed(folder).note(Entry("three-000000", 1, "x"))
    assert _read(folder, Place(5, 100)) == [Entry("three-000000", 1, "x")]


def test_several_processes_and_a_reader_that_forgets(folder: Path, store: Store, spawn: Spawn) -> None:
    writers = [spawn(_WRITER, f"writer-{n}", str(folder), "1500") for n in range(4)]
    seen: dict[str, set[int]] = {f"writer-{n}": set() for n in range(4)}
    place = Place()
    while True:
        ended = all(w.poll() is not None for w in writers)
        entries, reached = feed.after(folder, place)
        assert reached >= place
        place = reached
        feed.forget(folder, place)
        for entry in entries:
            seen[entry.task_id].add(entry.rev)
        if ended:
            break
    assert [w.returncode for w in writers] == [0] * 4
    assert place.file > 100
    assert {name: set(range(1500)) - revs for name, revs in seen.items()} == {name: set() for name in seen}


def test_the_entry_is_there_before_its_event(store: Store, task: Task, spawn: Spawn) -> None:
    """Killed at the moment of the event: there is an entry too many, and never one too few."""
    killed = spawn(
        """
from opencode_tasks.store import log
log.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.record("fix-parser-7k3q9m", ("note.added", {}), actor="test")
"""
    )
    assert killed.wait(timeout=30) == -9
    assert _read(store.layout.feed)[-1] == Entry(ID, 2, "note.added")
    assert store.get(ID).rev == 1


@pytest.mark.parametrize("how", ["create", "create_many"])
def test_a_task_has_its_entry_before_it_is_there(store: Store, spawn: Spawn, how: str) -> None:
    made = {
        "create": "store.create(new, actor='test')",
        "create_many": "store.create_many([new], actor='test')",
    }[how]
    killed = spawn(
        f"""
os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
new = NewTask("fix-parser-7k3q9m", "Fix", "task/fix", Base("main", "a" * 40), Workspace("in-place", "/src"))
{made}
"""
    )
    assert killed.wait(timeout=30) == -9
    assert [e.task_id for e in _read(store.layout.feed)] == [ID]
    assert store.ids() == []


def _labels(store: Store) -> list[str]:
    return [e.label for e in _read(store.layout.feed)]


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (lambda s: s.ensure_status(ID, "running", reason="x", actor="a"), "status.changed:running"),
        (lambda s: s.record(ID, ("a.b", {}), ("c.d", {}), actor="a"), "a.b+c.d"),
        (lambda s: s.decide(ID, "x", actor="a"), "decision.added"),
        (lambda s: s.delete(ID, reason="x", actor="a"), "task.deleted"),
        (lambda s: s.record_many({ID: [("a.b", {})]}, actor="a"), "a.b"),
    ],
)
def test_every_change_is_told(store: Store, task: Task, change: Callable[[Store], object], label: str) -> None:
    change(store)
    assert _labels(store) == ["task.created", label]
