"""What a commit says of other tasks that changed the same files: real commits through the real hook."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Ran, Repo

TEN = "".join(f"line {n}\n" for n in range(1, 11))


def changed(number: int, text: str) -> str:
    return TEN.replace(f"line {number}\n", f"{text}\n")


@pytest.fixture
def shared(repo: Repo) -> Repo:
    """Its main has a file of ten lines, and two more."""
    repo.commit("files", **{"a.py": TEN, "b.py": TEN, "c.py": TEN})
    return repo


def task(repo: Repo, name: str) -> str:
    """A new task of main, checked out; its id."""
    known = set(repo.ids())
    repo.git("checkout", "-q", "main")
    repo.git("checkout", "-q", "-b", f"task/{name}")
    (made,) = set(repo.ids()) - known
    return made


def commit(repo: Repo, **files: str) -> list[str]:
    """What is told when they are committed."""
    for name, content in files.items():
        repo.write(name, content)
    repo.git("add", "--all")
    return told(repo.git("commit", "-q", "--allow-empty", "-m", "change"))


def told(ran: Ran) -> list[str]:
    assert "failed" not in ran.err, ran.err
    return [line.removeprefix("opencode-tasks: ") for line in ran.err.splitlines() if line.startswith("opencode-tasks")]


def test_the_same_lines_and_the_same_file_are_told_once(shared: Repo) -> None:
    one = task(shared, "fix-login")
    assert commit(shared, **{"a.py": changed(4, "one"), "b.py": changed(1, "one"), "mine": "x"}) == []
    task(shared, "two")
    said = commit(shared, **{"a.py": changed(5, "two\nmore"), "b.py": changed(9, "two")})
    assert said == [f'task {one} ("Fix login") changed the same lines of a.py:5-6; the same file: b.py']
    assert commit(shared, **{"a.py": changed(5, "two again")}) == []
    assert commit(shared, **{"c.py": changed(1, "two")}) == []


def test_the_other_task_is_told_at_its_next_commit(shared: Repo) -> None:
    task(shared, "one")
    commit(shared, **{"a.py": changed(4, "one")})
    two = task(shared, "two")
    commit(shared, **{"a.py": changed(4, "two")})
    shared.git("checkout", "-q", "task/one")
    assert commit(shared) == [f'task {two} ("Two") changed the same lines of a.py:4']
    assert commit(shared) == []


def test_only_what_is_new_is_told(shared: Repo) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one"), "b.py": changed(2, "one")})
    task(shared, "two")
    assert commit(shared, **{"a.py": changed(9, "two")}) == [f'task {one} ("One") changed the same file: a.py']
    worse = commit(shared, **{"a.py": changed(3, "two"), "b.py": changed(9, "two")})
    assert worse == [f'task {one} ("One") changed the same lines of a.py:3; the same file: b.py']
    assert commit(shared, **{"a.py": changed(9, "two"), "b.py": TEN}) == []
    back = commit(shared, **{"b.py": changed(9, "two")})
    assert back == [f'task {one} ("One") changed the same file: b.py']


def test_a_closed_task_is_told_of_no_more(shared: Repo) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    task(shared, "two")
    shared.tasks("complete-task", one)
    assert commit(shared, **{"a.py": changed(2, "two")}) == []


def test_five_lines_and_how_many_more(shared: Repo) -> None:
    for number in range(7):
        task(shared, f"n{number}")
        commit(shared, **{"a.py": changed(2, f"n{number}")})
    task(shared, "last")
    said = commit(shared, **{"a.py": changed(2, "last")})
    assert len(said) == 6
    assert all("the same lines of a.py:2" in line for line in said[:5])
    assert said[5] == "and 2 more: opencode-tasks task-status"
    assert len(shared.tasks("task-status", "--json").json["overlaps"]) == 7


def test_many_files_are_counted(shared: Repo) -> None:
    one = task(shared, "one")
    files = {f"f{n}": "one\n" for n in range(5)}
    commit(shared, **files)
    task(shared, "two")
    said = commit(shared, **files)
    assert said == [f'task {one} ("One") changed the same lines of f0, f1, f2 and 2 more']


def test_the_setting_keeps_it_quiet(shared: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    task(shared, "two")
    monkeypatch.setenv("OPENCODE_TASKS_GIT_OVERLAPS", "false")
    assert commit(shared, **{"a.py": changed(2, "two")}) == []
    (found,) = shared.tasks("task-status", "--json").json["overlaps"]
    assert found == {"task": one, "title": "One", "files": [{"path": "a.py", "kind": "region"}]}


def test_nothing_in_a_title_or_path_steers_the_terminal(shared: Repo) -> None:
    odd = "a\n\x1b[31m\u202eb"
    shared.tasks("create-task", "red \x1b[31m and\nmore")
    commit(shared, **{odd: "one\n"})
    task(shared, "two")
    (said,) = commit(shared, **{odd: "two\n"})
    assert said.isprintable()
    assert "\\x1b[31m" in said
    status = shared.tasks("task-status").out
    assert all(c.isprintable() for line in status.splitlines() for c in line)
    (found,) = shared.tasks("task-status", "--json").json["overlaps"]
    assert [f["path"] for f in found["files"]] == [odd]


def test_the_lines_of_task_status(shared: Repo) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one"), "b.py": changed(2, "one")})
    task(shared, "two")
    commit(shared, **{"a.py": changed(2, "two"), "b.py": changed(8, "two")})
    assert f"  overlaps     {one}: a.py (same lines), b.py" in shared.tasks("task-status").out.splitlines()
    shared.tasks("complete-task")
    assert shared.tasks("task-status", "--json").json["overlaps"] == []


def remove_notes(place: Path) -> None:
    shutil.rmtree(place)


def scribble(place: Path) -> None:
    for path in place.iterdir():
        path.write_bytes(b"damaged\n{}")


def empty(place: Path) -> None:
    for path in place.iterdir():
        path.write_bytes(b"")


def lead_elsewhere(place: Path) -> None:
    (place.parent / "secret").write_text("kept\n")
    for path in place.iterdir():
        path.unlink()
        path.symlink_to(place.parent / "secret")


def put_a_file_there(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("in the way\n")


@pytest.mark.parametrize("damage", [remove_notes, scribble, empty, lead_elsewhere, put_a_file_there])
def test_without_the_notes_all_is_found_anew(shared: Repo, damage: Callable[[Path], None]) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    task(shared, "two")
    assert len(commit(shared, **{"a.py": changed(2, "two")})) == 1
    damage(shared.common / "opencode-tasks" / "overlaps")
    assert commit(shared) == [f'task {one} ("One") changed the same lines of a.py:2']
    elsewhere = shared.common / "opencode-tasks" / "secret"
    assert not elsewhere.exists() or elsewhere.read_text() == "kept\n"


def test_a_commit_in_a_worktree_is_told_of_the_main_checkouts_task(shared: Repo, tmp_path: Path) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    shared.git("worktree", "add", "-q", "-b", "task/two", str(tmp_path / "two"), "main")
    aside = Repo(tmp_path / "two", shared.env)
    assert commit(aside, **{"a.py": changed(2, "two")}) == [f'task {one} ("One") changed the same lines of a.py:2']


def test_two_commits_at_the_same_moment(shared: Repo, tmp_path: Path) -> None:
    sides = []
    for name in ("one", "two"):
        shared.git("worktree", "add", "-q", "-b", f"task/{name}", str(tmp_path / name), "main")
        sides.append(Repo(tmp_path / name, shared.env))
    for number in range(3):
        for side in sides:
            side.write("a.py", changed(2, f"{side.top.name} {number}"))
            side.write(f"new{number}", side.top.name)
            side.git("add", "--all")
        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(lambda side: told(side.git("commit", "-q", "-m", "change")), sides))
        assert all(len(lines) <= 1 for lines in said)
    for side in sides:
        commit(side)
        (overlap,) = side.tasks("task-status", "--json").json["overlaps"]
        assert [f["path"] for f in overlap["files"]] == ["a.py", "new0", "new1", "new2"]
        assert commit(side) == []


def test_where_nothing_can_be_noted_it_is_told_again(shared: Repo) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    task(shared, "two")
    place = shared.common / "opencode-tasks" / "overlaps"
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("in the way\n")
    for text in ("two", "again"):
        said = commit(shared, **{"a.py": changed(2, text)})
        assert said == [f'task {one} ("One") changed the same lines of a.py:2']


def test_a_broken_branch_hides_no_other(shared: Repo) -> None:
    one = task(shared, "one")
    commit(shared, **{"a.py": changed(2, "one")})
    task(shared, "broken")
    task(shared, "two")
    (shared.common / "refs" / "heads" / "task" / "broken").write_text("damaged\n")
    assert commit(shared, **{"a.py": changed(2, "two")}) == [f'task {one} ("One") changed the same lines of a.py:2']
    (shared.common / "refs" / "heads" / "task" / "broken").write_text("1" * 40 + "\n")
    assert commit(shared, **{"b.py": changed(2, "two")}) == []
