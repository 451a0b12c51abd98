"""What is remembered of a file, and when it is read again."""

import os
import time
from pathlib import Path

import pytest

from opencode_tasks.git import discovery, plumbing, ties
from opencode_tasks.store import notes
from tests.conftest import Repo


class Counted:
    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def __call__(self) -> dict[str, object]:
        self.count += 1
        return {"content": self.path.read_text()}


def aged(path: Path, s: float = 60) -> None:
    at = time.time() - s
    os.utime(path, (at, at))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_text("one")
    aged(made)
    return made


def test_it_is_read_once_while_it_is_the_same(path: Path, tmp_path: Path) -> None:
    ask = Counted(path)
    for _ in range(3):
        assert notes.of_file(tmp_path / "note", path, ask) == {"content": "one"}
    assert ask.count == 1
    path.write_text("two")
    aged(path)
    assert notes.of_file(tmp_path / "note", path, ask) == {"content": "two"}
    # The same size and time: another change time of the inode.
    path.write_text("six")
    aged(path)
    assert notes.of_file(tmp_path / "note", path, ask) == {"content": "six"}
    other = tmp_path / "other"
    os.link(path, other)
    assert notes.of_file(tmp_path / "note", other, Counted(other)) == {"content": "six"}


def test_what_changed_just_now_is_read_again(path: Path, tmp_path: Path) -> None:
    path.write_text("now")
    ask = Counted(path)
    for _ in range(3):
        notes.of_file(tmp_path / "note", path, ask)
    assert ask.count == 3


def test_links_damage_and_what_is_no_json(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    ask = Counted(link)
    for _ in range(2):
        notes.of_file(tmp_path / "note", link, ask)
    assert ask.count == 2
    ask = Counted(path)
    notes.of_file(tmp_path / "note", path, ask)
    (tmp_path / "note").write_text("torn")
    assert notes.of_file(tmp_path / "note", path, ask) == {"content": "one"}
    assert ask.count == 2
    (tmp_path / "note").unlink()
    for _ in range(2):
        assert notes.of_file(tmp_path / "note", path, lambda: {"when": {1, 2}}) == {"when": {1, 2}}
    assert notes.of_file(tmp_path / "nowhere" / "note", path, ask) == {"content": "one"}
    assert not (tmp_path / "nowhere").exists()


def test_settings_and_ties_are_seen_when_they_change(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    settings, config = repo.top / ".opencode" / "tasks.toml", repo.common / "config"
    aged(settings)
    aged(config)
    first = repo.tasks("task-status", "--json").json["id"]
    assert repo.tasks("task-status", "--json").json["id"] == first
    assert (repo.common / "opencode-tasks" / "ties.json").exists()
    settings.write_text("[container]\nlimits = 5\n")
    aged(settings)
    refused = repo.tasks("limits", "--json", check=False)
    assert refused.json["error"]["code"] == "config"
    settings.write_text("when = 2026-01-01T00:00:00Z\n")
    aged(settings)
    for _ in range(2):
        assert "when" in repo.tasks("limits", "--json", check=False).json["error"]["message"]
    settings.unlink()
    assert repo.tasks("limits").code == 0
    repo.git("config", "--unset", "branch.task/one.opencodetask")
    assert repo.tasks("task-status", "--json", check=False).json["error"]["code"] == "no_task"


def test_what_we_tie_is_known_without_asking_git_and_what_others_write_is_asked_for(repo: Repo) -> None:
    def unasked() -> ties.Ties:
        raise AssertionError("git was asked")

    for branch in ("task/one", "feature/gr\u00fc\u00dfe", "task/two"):
        repo.tasks("create-task", "x", "--branch", branch)
    known = ties.read(repo.common, unasked)
    assert known == plumbing._asked_for_ties(discovery.find(repo.top, {}))
    assert len(known) == 3
    repo.tasks("create-task", "x", "--branch", 'task/quo"te')
    assert len(plumbing.tasks_by_branch(discovery.find(repo.top, {}))) == 4
    repo.git("config", "branch.task/one.description", "by hand")
    with pytest.raises(AssertionError):
        ties.read(repo.common, unasked)
    repo.git("branch", "-m", "task/one", "task/three")
    assert plumbing.tasks_by_branch(discovery.find(repo.top, {}))["task/three"] == known["task/one"]
    (repo.common / "config").rename(repo.common / "elsewhere")
    (repo.common / "config").symlink_to("elsewhere")
    with pytest.raises(AssertionError):
        ties.read(repo.common, unasked)
