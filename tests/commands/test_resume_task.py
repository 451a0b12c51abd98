"""`resume-task`: in place, in a worktree, and what stands in the way."""

from pathlib import Path

import pytest

from opencode_tasks.store import Store
from tests.commands.conftest import made_aside
from tests.conftest import Repo


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def test_a_task_is_at_work_again(repo: Repo) -> None:
    assert repo.tasks("resume-task", "--json", check=False).json["error"]["code"] == "no_task"
    repo.git("checkout", "--quiet", "-b", "task/first")
    first = repo.only_id()
    repo.commit("First", file="first\n")
    repo.git("checkout", "--quiet", "main")
    done = repo.tasks("resume-task", "--json").json
    assert (done["id"], done["status"], repo.branch) == (first, "running", "task/first")
    assert repo.tasks("resume-task", "task/first", "--json").json["rev"] == done["rev"]
    repo.git("checkout", "--quiet", "main")
    repo.write("file", "in the way\n")
    error = repo.tasks("resume-task", first, "--json", check=False).json["error"]
    assert (error["code"], repo.branch) == ("git", "main")
    assert Store(repo.common).get(first).status == "paused"
    (repo.top / "file").unlink()
    work, aside = made_aside(repo, "Aside")
    Store(repo.common).ensure_status(aside, "paused", reason="test", actor="test")
    assert f"cd {work.top}" in repo.tasks("resume-task", aside).out
    assert Store(repo.common).get(aside).status == "running"
    assert repo.branch == "main"
    repo.git("worktree", "remove", "--force", str(work.top))
    error = repo.tasks("resume-task", aside, "--json", check=False).json["error"]
    assert (error["code"], "git worktree add" in error["hint"]) == ("worktree", True)
    repo.tasks("cleanup-task", aside, "--discard", "unmerged")
    assert repo.tasks("resume-task", aside, "--json", check=False).json["error"]["code"] == "not_running"
