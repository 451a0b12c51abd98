"""`complete-task` closes a task for good, keeps its files in a checkpoint and says what is still open."""

from pathlib import Path

import pytest

from tests.conftest import Repo


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def test_a_task_is_closed_and_its_files_are_kept(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.write("unsaved", "x\n")
    sha = repo.commit("mine")
    repo.write("README.md", "changed\n")
    done = repo.tasks("complete-task")
    assert f"1 commit not merged into main: {sha[:9]} mine" in done.out
    assert "1 uncommitted file: README.md" in done.out
    task = repo.tasks("task-status", "--json").json
    assert (task["status"], task["checkpoints"]["count"]) == ("completed", 1)
    (kept,) = repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    assert kept["id"] == task["checkpoints"]["last"]
    assert repo.branch == "task/one"
    assert (repo.top / "README.md").read_text() == "changed\n"


def test_again_is_refused_with_what_is_possible(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.tasks("complete-task")
    before = repo.events(repo.only_id())
    done = repo.tasks("complete-task", "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "transition")
    assert "possible from completed" in done.json["error"]["hint"]
    assert repo.events(repo.only_id()) == before


def test_a_paused_task_is_closed_from_another_branch_without_touching_it(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("checkout", "-q", "-b", "task/two")
    assert repo.tasks("complete-task", "task/one", "--json").json["status"] == "completed"
    assert repo.tasks("task-status", "--json").json["status"] == "running"
    assert (repo.common / "opencode-task").exists()


def test_a_completed_task_gets_no_more_trailers(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.tasks("complete-task")
    before = repo.events(repo.only_id())
    repo.git("commit", "-q", "--allow-empty", "-m", "late")
    late = repo.events(repo.only_id())[len(before) :]
    assert [e["type"] for e in late] in ([], ["commit.recorded"])
    assert repo.tasks("task-status", "--json").json["status"] == "completed"
