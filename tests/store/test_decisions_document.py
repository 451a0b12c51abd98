"""`decisions.md` in a real store: what is saved into it while we write is never lost."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_tasks.store import Store
from opencode_tasks.task import Task
from tests.store.conftest import ID, Spawn

_NAMES = {"decisions.md", "log", "plan.md", "state.json"}
_DECIDE = """
for line in sys.stdin:
    store.decide("fix-parser-7k3q9m", line.strip(), actor="test")
    print("done", flush=True)
"""
_EDIT = """
import random, time
path = store.layout.decisions("fix-parser-7k3q9m")
for line in sys.stdin:
    text = path.read_text() + f"\\n{line}"
    time.sleep(random.random() * 0.01)  # not in step with us
    if sys.argv[3] == "in place":
        with path.open("w") as f:
            f.write(text[: len(text) // 2])
            f.flush()
            f.write(text[len(text) // 2 :])
    elif sys.argv[3] == "at the end":
        with path.open("a") as f:
            f.write(f"\\n{line}")
    else:
        temp = path.with_name(line.strip())
        temp.write_text(text)
        temp.replace(path)
    print("done", flush=True)
"""


def _texts(store: Store) -> list[str]:
    return [item.text for item in store.decisions(ID).items]


def _names(path: Path) -> set[str]:
    return {p.name for p in path.parent.iterdir()}


@pytest.fixture
def path(store: Store, task: Task) -> Path:
    return store.layout.decisions(ID)


def test_what_is_decided_is_in_the_document(store: Store, path: Path) -> None:
    made = store.decide(ID, "Parse by hand", because="small", alternatives=["lark"], actor="ana")
    assert store.decisions(ID).items == (made,)
    assert f"<!-- decision {made.id} " in path.read_text()
    assert store.get(ID).decisions.count == 1
    assert Store(store.layout.common_dir).decisions(ID).items == (made,)


def test_projections_come_back_byte_identical(store: Store, path: Path) -> None:
    store.decide(ID, "one\r\n```\n<!-- /decision -->\n```\0", because="\ud800 \udcff é", actor="ana")
    path.write_bytes(path.read_bytes() + b"by hand \xff\n")
    store.decide(ID, "two", actor="ana")
    kept = [store.layout.state(ID), path]
    before = [p.read_bytes() for p in kept]
    for p in kept:
        p.unlink()
    Store(store.layout.common_dir).rebuild(ID)
    assert [p.read_bytes() for p in kept] == before
    store.rebuild(ID)
    assert [p.read_bytes() for p in kept] == before


def test_reading_takes_in_what_was_edited(store: Store, path: Path) -> None:
    store.decide(ID, "one", actor="ana")
    path.write_text(path.read_text().replace("## one", "## uno") + "\nmine\n")
    assert _texts(store) == ["uno", "mine"]
    assert _texts(Store(store.layout.common_dir)) == ["uno", "mine"]
    assert path.read_text().count("mine") == 1
    assert [e.type for e in store.history(ID)][2:] == ["decision.edited", "decision.added"]


def test_a_removed_file_takes_nothing_away(store: Store, path: Path) -> None:
    store.decide(ID, "one", actor="ana")
    path.unlink()
    assert _texts(store) == ["one"]
    store.decide(ID, "two", actor="ana")
    assert "## one" in path.read_text()
    assert "## two" in path.read_text()


def test_bytes_that_are_no_text_stay(store: Store, path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    store.decide(ID, "one", actor="ana")
    assert b"\ncaf\xe9\n" in path.read_bytes()
    assert _texts(store) == ["caf\udce9", "one"] or _texts(store) == ["one", "caf\udce9"]


def test_a_document_keeps_its_mode(store: Store, path: Path) -> None:
    path.chmod(0o640)
    store.decide(ID, "one", actor="ana")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def immutable(path: Path) -> Iterator[Path]:
    """Not even root can write, rename or remove it."""
    path.write_text(path.read_text() + "\nmine\n")
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_a_document_that_cannot_be_written_refuses_no_decision(store: Store, immutable: Path) -> None:
    before = immutable.read_bytes()
    for text in ("one", "two"):
        assert store.decide(ID, text, actor="ana").text == text
    assert sorted(_texts(store)) == ["mine", "one", "two"]
    assert len(store.decisions(ID).items) == 3, "taken in once, however often it is read"
    assert immutable.read_bytes() == before
    assert _names(immutable) == _NAMES
    subprocess.run(["chattr", "-i", immutable], check=True)
    store.decide(ID, "three", actor="ana")
    assert all(f"\n{t}\n" in immutable.read_text() or f"## {t}\n" in immutable.read_text() for t in _texts(store))


def test_a_directory_in_its_place_refuses_no_decision(store: Store, path: Path) -> None:
    path.unlink()
    path.mkdir()
    store.decide(ID, "one", actor="ana")
    assert _texts(store) == ["one"]
    assert path.is_dir()


def test_what_somebody_writes_for_hours_is_taken_in(store: Store, path: Path) -> None:
    """As `cat >> decisions.md` does."""
    with path.open("ab", buffering=0) as f:
        f.write(b"\nmy wo")
        store.decide(ID, "one", actor="ana")
        assert "## one" in path.read_text()
        f.write(b"rds")
        store.decide(ID, "two", actor="ana")
        assert _texts(store) == ["one", "two"]
        f.write(b", all of them\n")
    assert sorted(_texts(store)) == ["my words, all of them", "one", "two"]
    assert path.read_text().count("my words") == 1
    assert _names(path) == _NAMES


def test_whoever_opens_it_while_we_look_waits_and_ends_nobody(store: Store, path: Path) -> None:
    """A lease on the file tells us by a signal, which must not be our end."""
    with path.open("rb") as f:
        from opencode_tasks.store import documents

        with documents.not_being_written(f) as is_whole:
            assert is_whole
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def _race(rounds: int, *processes: subprocess.Popen[str]) -> list[list[str]]:
    """Everybody gets a word of its own at the same moment, again and again; those that each has acknowledged."""
    done: list[list[str]] = [[] for _ in processes]
    for n in range(rounds):
        for at, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(f"word {n} of {at}.\n")
            process.stdin.flush()
        for at, process in enumerate(processes):
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            done[at].append(f"word {n} of {at}.")
    return done


def _missing(words: list[str], text: str) -> list[str]:
    return [word for word in words if not re.search(rf"^(## )?{re.escape(word)}$", text, re.MULTILINE)]


@pytest.mark.parametrize("how", ["in place", "at the end", "by rename"])
def test_nothing_that_an_editor_saves_is_lost(store: Store, path: Path, spawn: Spawn, how: str) -> None:
    decided, saved = _race(40, spawn(_DECIDE), spawn(_EDIT, how))
    _ = store.decisions(ID)
    text = path.read_text()
    assert [word for word in decided if text.count(f"## {word}\n") != 1] == []
    assert _missing(saved, text) == []
    assert _names(path) == _NAMES


def test_two_editors_and_two_of_us(store: Store, path: Path, spawn: Spawn) -> None:
    """The editors overwrite each other, which is theirs to bear."""
    both = (spawn(_EDIT, "by rename"), spawn(_EDIT, "at the end"))
    one, two, *_ = _race(30, spawn(_DECIDE), spawn(_DECIDE), *both)
    texts = _texts(store)
    assert sorted(t for t in texts if re.search(r"of [01]\.$", t)) == sorted([*one, *two])
    assert Store(store.layout.common_dir).decisions(ID) == store.decisions(ID)
    assert _names(path) == _NAMES


@pytest.mark.parametrize("at", ["link", "exchange", "rename", "unlink"])
def test_killed_while_writing_it(store: Store, path: Path, spawn: Spawn, at: str) -> None:
    """Also when it had been saved at the very last moment."""
    store.decide(ID, "one", actor="ana")
    killed = spawn(
        """
from opencode_tasks.store import documents
at = sys.argv[3]
where = documents if at == "exchange" else os
real = getattr(where, at)
if at == "rename":
    documents.exchange = lambda one, other: False
if at == "link":
    (store.layout.task("fix-parser-7k3q9m") / "decisions.md").unlink()
def dying(*args, **kwargs):
    if ".kept" in str(args):
        if at in ("exchange", "rename"):
            with store.layout.decisions("fix-parser-7k3q9m").open("a") as f:
                f.write("\\nat the last moment\\n")
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(where, at, dying)
store.decide("fix-parser-7k3q9m", "two", actor="test")
""",
        at,
    )
    assert killed.wait(timeout=30) == -9
    late = ["at the last moment"] if at in ("exchange", "rename") else []
    assert sorted(_texts(store)) == sorted(["one", "two", *late])
    store.decide(ID, "three", actor="ana")
    assert _missing([*late, "one", "two", "three"], path.read_text()) == []
    assert _names(path) == _NAMES


def test_where_names_cannot_be_swapped(store: Store, path: Path, spawn: Spawn) -> None:
    deciding = spawn("from opencode_tasks.store import documents\ndocuments.exchange = lambda *_: False\n" + _DECIDE)
    decided, saved = _race(30, deciding, spawn(_EDIT, "by rename"))
    _ = store.decisions(ID)
    assert _missing([*decided, *saved], path.read_text()) == []
    assert _names(path) == _NAMES
