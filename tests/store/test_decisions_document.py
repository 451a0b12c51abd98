"""`decisions.md` in a real store: what is saved into it while we write is never lost."""

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_tasks.store import Store
from opencode_tasks.task import Task
from tests.store.conftest import ID, Spawn

_DECIDE = """
from opencode_tasks.errors import ConflictError
for line in sys.stdin:
    try:
        store.decide("fix-parser-7k3q9m", line.strip(), actor="test")
    except ConflictError as e:
        assert "edited without end" in e.message  # recorded; only the document is behind
    print("done", flush=True)
"""
_EDITOR = """
import random, time
path = store.layout.decisions("fix-parser-7k3q9m")
how, name, stop = sys.argv[3], sys.argv[4], Path(sys.argv[5])
n = 0
while not stop.exists():
    n += 1
    word = f"{name}{n:04d}"
    time.sleep(random.random() * 0.03)  # a person thinks
    while True:
        try:
            text = path.read_text()
            break
        except FileNotFoundError:
            pass
    text = text + f"\\n{word}\\n"
    if how == "in place":
        with path.open("w") as f:
            f.write(text[: len(text) // 2])
            f.flush()
            f.write(text[len(text) // 2 :])
    elif how == "at the end":
        with path.open("a") as f:
            f.write(f"\\n{word}\\n")
    else:
        temp = path.with_name(name)
        temp.write_text(text)
        temp.replace(path)
    print(word, flush=True)
"""


def _texts(store: Store) -> list[str]:
    return [item.text for item in store.decisions(ID).items]


def _words_anywhere(store: Store) -> str:
    """What the log and the files hold."""
    logged = "".join(str(event.data) for event in store.history(ID))
    return logged + "".join(p.read_text() for p in store.layout.task(ID).glob("*decisions.md*"))


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
    assert {p.name for p in immutable.parent.iterdir()} == {"decisions.md", "log", "plan.md", "state.json"}
    subprocess.run(["chattr", "-i", immutable], check=True)
    store.decide(ID, "three", actor="ana")
    assert all(f"\n{t}\n" in immutable.read_text() or f"## {t}\n" in immutable.read_text() for t in _texts(store))


def test_a_directory_in_its_place_refuses_no_decision(store: Store, path: Path) -> None:
    path.unlink()
    path.mkdir()
    store.decide(ID, "one", actor="ana")
    assert _texts(store) == ["one"]
    assert path.is_dir()


def test_a_file_that_somebody_is_writing_is_left_alone(store: Store, path: Path) -> None:
    """As `cat >> decisions.md` holds it open, for hours."""
    with path.open("ab", buffering=0) as f:
        store.decide(ID, "one", actor="ana")
        f.write(b"\nmy wo")
        assert _texts(store) == ["one"]
        f.write(b"rds\n")
        store.decide(ID, "two", actor="ana")
    assert sorted(_texts(store)) == ["my words", "one", "two"]
    assert path.read_text().count("my words") == 1
    assert "## two" in path.read_text()


def test_whoever_opens_it_while_we_look_waits_and_ends_nobody(store: Store, path: Path) -> None:
    """A lease on the file tells us by a signal, which must not be our end."""
    with path.open("rb") as f:
        from opencode_tasks.store import documents

        with documents._not_being_written(f) as is_whole:
            assert is_whole
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def _decide(*processes: subprocess.Popen[str], rounds: int) -> list[str]:
    """All of them at the same time, again and again; what was acknowledged."""
    decided = []
    for n in range(rounds):
        for at, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(f"decided {n} by {at}.\n")
            process.stdin.flush()
        for at, process in enumerate(processes):
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            decided.append(f"decided {n} by {at}.")
    return decided


@pytest.mark.parametrize("how", ["in place", "at the end", "by rename"])
def test_nothing_that_an_editor_saves_is_lost(
    store: Store, path: Path, spawn: Spawn, tmp_path: Path, how: str
) -> None:
    editor = spawn(_EDITOR, how, "word", str(tmp_path / "stop"))
    decided = _decide(spawn(_DECIDE), rounds=60)
    (tmp_path / "stop").touch()
    saved = editor.communicate(timeout=60)[0].split()
    assert len(saved) > 5
    _ = store.decisions(ID)
    text = path.read_text()
    assert [word for word in decided if text.count(word) != 1] == []
    assert [word for word in saved if not re.search(rf"^{word}$", text, re.MULTILINE)] == []


def test_two_editors_and_two_of_us(store: Store, path: Path, spawn: Spawn, tmp_path: Path) -> None:
    """The editors overwrite each other, which is theirs to bear."""
    stop = str(tmp_path / "stop")
    editors = [spawn(_EDITOR, "by rename", "ana", stop), spawn(_EDITOR, "at the end", "bob", stop)]
    decided = _decide(spawn(_DECIDE), spawn(_DECIDE), rounds=30)
    (tmp_path / "stop").touch()
    for editor in editors:
        assert editor.wait(timeout=60) == 0
    texts = _texts(store)
    assert sorted(t for t in texts if t.startswith("decided")) == sorted(decided)
    assert Store(store.layout.common_dir).decisions(ID) == store.decisions(ID)
    assert {p.name for p in path.parent.iterdir()} == {"decisions.md", "log", "plan.md", "state.json"}


@pytest.mark.parametrize("at", ["rename", "link", "unlink"])
def test_killed_while_writing_it(store: Store, path: Path, spawn: Spawn, at: str) -> None:
    """Also when the file had been saved at the very moment before it was taken away."""
    store.decide(ID, "one", actor="ana")
    killed = spawn(
        """
at, real = sys.argv[3], getattr(os, sys.argv[3])
def dying(*args, **kwargs):
    if "decisions.md" in str(args[0]) and (at != "rename" or ".taken" in str(args[1])):
        if at == "rename":
            with open(args[0], "a") as f:
                f.write("\\nat the last moment\\n")
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(os, at, dying)
store.decide("fix-parser-7k3q9m", "two", actor="test")
""",
        at,
    )
    assert killed.wait(timeout=30) == -9
    store.decide(ID, "three", actor="ana")
    assert sorted(_texts(store)) == sorted(["one", "two", "three", *(["at the last moment"] if at == "rename" else [])])
    assert {p.name for p in path.parent.iterdir()} == {"decisions.md", "log", "plan.md", "state.json"}
    for text in _texts(store):
        assert text in path.read_text()


def test_two_editors_save_at_the_same_moment(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before we take the file away, one before we can give it back: both stay."""
    real = os.rename

    def between(source: str, target: str) -> None:
        if str(target).endswith(".taken"):
            path.write_text("the first\n")
            real(source, target)
            path.write_text("the second\n")
        else:
            real(source, target)

    monkeypatch.setattr(os, "rename", between)
    with pytest.raises(Exception, match="edited without end"):
        store.decide(ID, "one", actor="ana")
    monkeypatch.undo()
    there = _words_anywhere(store)
    assert "the first" in there
    assert "the second" in there
