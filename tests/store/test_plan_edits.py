"""`plan.md` is changed while others save it: what they saved is never lost, whatever happens to us."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks import plans
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store, documents, plan_edits
from opencode_tasks.task import Task
from tests.store.conftest import ID, Spawn, create, fill, mounted

_PRELUDE = """
from opencode_tasks import plans
from opencode_tasks.store import documents, plan_edits
path = store.layout.plan("fix-parser-7k3q9m")
"""
_CHECK = f"""{_PRELUDE}
for line in sys.stdin:
    number = int(line.split()[1]) + 1
    plan_edits.change(store, "fix-parser-7k3q9m", lambda text: plans.checked(text, [number])[0])
    print("done", flush=True)
"""
_EDIT = f"""{_PRELUDE}
import random, time
for line in sys.stdin:
    time.sleep(random.random() * 0.01)  # not in step with us
    while True:
        text = path.read_text() + f"\\n{{line}}"
        if sys.argv[3] == "at the end":
            with path.open("a") as f:
                f.write(f"\\n{{line}}")
        elif sys.argv[3] == "in place":
            with path.open("r+") as f:
                f.write(text[: len(text) // 2])
                f.flush()
                f.write(text[len(text) // 2 :])
        else:
            temp = path.with_name(line.strip())
            temp.write_text(text)
            if path.read_text() + f"\\n{{line}}" != text:
                continue  # where an editor asks what to do
            temp.replace(path)
        break
    print("done", flush=True)
"""
_ROUNDS = 40


@pytest.fixture
def path(store: Store, task: Task) -> Path:
    made = store.layout.plan(ID)
    made.write_text("".join(f"- [ ] step {n + 1}\n" for n in range(_ROUNDS)))
    return made


def _race(*processes: subprocess.Popen[str]) -> list[list[str]]:
    """Everybody gets a word of its own at the same moment, again and again; the words of each."""
    for n in range(_ROUNDS):
        for at, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(f"word {n} of {at}.\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
    return [[f"word {n} of {at}." for n in range(_ROUNDS)] for at, _ in enumerate(processes)]


def _missing(words: list[str], path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [word for word in words if word not in lines]


def _beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if "plan" in p.name or "word" in p.name)


def _check(path: Path, number: int = 1) -> str:
    return plan_edits.change(Store(path.parents[3]), ID, lambda text: plans.checked(text, [number])[0])


@pytest.mark.parametrize("how", ["in place", "at the end", "by rename"])
def test_nothing_that_an_editor_saves_is_lost(path: Path, spawn: Spawn, how: str) -> None:
    _, saved = _race(spawn(_CHECK), spawn(_EDIT, how))
    assert _missing(saved, path) == []
    assert _beside(path) == ["plan.md"]


def test_two_of_us_lose_nothing_of_each_other(path: Path, spawn: Spawn) -> None:
    add = _CHECK.replace("plans.checked(text, [number])[0]", 'text + f"\\n{line}"')
    _, saved, also = _race(spawn(_CHECK), spawn(add), spawn(add))
    assert _missing([*saved, *also], path) == []
    assert all(step.done for step in plans.steps(path.read_text()))
    assert _beside(path) == ["plan.md"]


def test_where_names_cannot_be_swapped(path: Path, spawn: Spawn) -> None:
    """There, what is saved between our last look and the rename is lost; of what is saved at other times nothing."""
    without = "from opencode_tasks.store import documents\ndocuments.exchange = lambda *_: False\n"
    checking, editing = spawn(without + _CHECK), spawn(_EDIT, "at the end")
    for n in range(_ROUNDS):
        for process in (editing, checking):  # one after the other
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"word {n} of 0.\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
    assert _missing([f"word {n} of 0." for n in range(_ROUNDS)], path) == []
    assert all(step.done for step in plans.steps(path.read_text()))
    assert _beside(path) == ["plan.md"]


@pytest.mark.parametrize("save", ["in place", "by rename"])
def test_saved_before_the_last_look_where_names_cannot_be_swapped(
    path: Path, monkeypatch: pytest.MonkeyPatch, save: str
) -> None:
    saves = [_appends if save == "in place" else _renames]

    def exchange(one: Path, other: Path) -> bool:
        if saves:
            saves.pop()(path)
        return False

    monkeypatch.setattr(documents, "exchange", exchange)
    before = path.read_text()
    _check(path)
    assert path.read_text() == before.replace("[ ]", "[x]", 1) + f"saved {save}\n"
    assert _beside(path) == ["plan.md"]


def _at_exchange(monkeypatch: pytest.MonkeyPatch, path: Path, *saves: Callable[[Path], object]) -> None:
    """Somebody saves at the moment before our first, second, … exchange."""
    real, left = documents.exchange, list(saves)

    def exchange(one: Path, other: Path) -> bool:
        if left:
            left.pop(0)(path)
        return real(one, other)

    monkeypatch.setattr(documents, "exchange", exchange)


def _appends(path: Path) -> None:
    with path.open("a") as f:
        f.write("saved in place\n")


def _renames(path: Path) -> None:
    path.with_name("editor").write_text(path.read_text() + "saved by rename\n")
    path.with_name("editor").rename(path)


@pytest.mark.parametrize("save", [_appends, _renames])
def test_saved_at_the_last_moment_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    before = path.read_text()
    _at_exchange(monkeypatch, path, save)
    text = _check(path)
    assert path.read_text() == text
    assert re.sub("saved.*\n", "", text) == before.replace("[ ]", "[x]", 1)
    assert text.count("saved ") == 1
    assert _beside(path) == ["plan.md"]


def test_saved_again_and_again_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_exchange(monkeypatch, path, *[_appends, Path.exists] * 5)
    before = path.read_text()
    with pytest.raises(TaskError, match="changes all the time"):
        _check(path)
    assert path.read_text() == before + "saved in place\n" * 5
    assert _beside(path) == ["plan.md"]


def test_saved_twice_in_that_instant_keeps_both(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_exchange(monkeypatch, path, _appends, _renames)
    with pytest.raises(TaskError, match="saved twice") as refused:
        _check(path)
    assert path.read_text().endswith("saved by rename\n")
    (kept,) = [name for name in _beside(path) if name != "plan.md"]
    assert kept in refused.value.message
    assert path.with_name(kept).read_text().endswith("saved in place\n")


def test_deleted_at_the_last_moment_stays_deleted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_exchange(monkeypatch, path, Path.unlink)
    with pytest.raises(TaskError, match="No such file"):
        _check(path)
    assert _beside(path) == []


def test_a_directory_put_there_at_the_last_moment_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(path: Path) -> None:
        path.unlink()
        path.mkdir()

    _at_exchange(monkeypatch, path, replace)
    with pytest.raises(TaskError, match="no ordinary file"):
        _check(path)
    assert path.is_dir()
    assert _beside(path) == ["plan.md"]


@pytest.mark.parametrize("at", ["fsync", "exchange", "unlink"])
def test_killed_while_writing(path: Path, spawn: Spawn, at: str) -> None:
    before = path.read_text()
    killed = spawn(
        f"""{_PRELUDE}
at = sys.argv[3]
where = documents if at == "exchange" else os
real = getattr(where, at)
def dying(*args, **kwargs):
    real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(where, at, dying)
plan_edits.change(store, "fix-parser-7k3q9m", lambda text: plans.checked(text, [1])[0])
""",
        at,
    )
    assert killed.wait(timeout=30) == -9
    after = before.replace("[ ]", "[x]", 1)
    assert path.read_text() == (before if at == "fsync" else after)
    for kept in path.parent.glob(".plan.md.*"):
        assert kept.read_text() in (before, after)
    _check(path, 2)
    assert [step.done for step in plans.steps(path.read_text())][:2] == [at != "fsync", True]


def test_a_full_disk_leaves_it_as_it_was(tmp_path: Path) -> None:
    with mounted(tmp_path / "full", "1m") as place:
        store = Store(place)
        store.make()
        create(store)
        path = store.layout.plan(ID)
        path.write_text("- [ ] one\n" + "x" * 10_000)
        before = path.read_bytes()
        fill(place)
        with pytest.raises(TaskError) as refused:
            _check(path)
        assert refused.value.code == "disk_full"
        assert path.read_bytes() == before
        assert _beside(path) == ["plan.md"]


def test_nothing_to_change_writes_nothing(path: Path) -> None:
    before = path.stat()
    _check(path, 99)
    assert path.stat() == before
