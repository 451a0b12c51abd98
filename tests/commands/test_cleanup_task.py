"""`cleanup-task` removes what is safe elsewhere, refuses the rest by name, and never loses memory."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repo, run


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


@pytest.fixture
def aside(repo: Repo) -> tuple[Repo, str]:
    """The task's own worktree and its id; the main checkout stays on `main`."""
    made = repo.tasks("create-task", "aside", "--worktree", "--json").json
    return Repo(Path(made["workspace"]["path"]), repo.env), made["id"]


def refused(repo: Repo, task_id: str, code: str = "unsaved_work") -> str:
    """The message; branch, files and events are as before."""
    before = (repo.git("for-each-ref").out, (repo.common / "config").read_bytes(), repo.events(task_id))
    done = repo.tasks("cleanup-task", task_id, "--json", check=False)
    assert done.code == 1
    error: dict[str, str] = done.json["error"]
    assert error["code"] == code
    assert error["hint"]
    assert (repo.git("for-each-ref").out, (repo.common / "config").read_bytes(), repo.events(task_id)) == before
    return error["message"]


def cleaned(repo: Repo, task_id: str) -> dict[str, Any]:
    document: dict[str, Any] = repo.tasks("cleanup-task", task_id, "--json").json
    assert document["branch"] not in repo.git("for-each-ref", "--format=%(refname:lstrip=2)").out.split()
    assert document["branch"] not in (repo.common / "config").read_text()
    assert repo.events(task_id)[-1]["type"] == "task.cleaned"
    assert (repo.store / task_id / "plan.md").exists()
    return document


def test_nothing_to_lose(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    tip = repo.git("rev-parse", "task/aside").out.strip()
    document = cleaned(repo, task_id)
    assert document["status"] == "cancelled"
    assert not work.top.exists()
    assert repo.events(task_id)[-1]["data"] == {"branch": "task/aside", "tip": tip}
    assert repo.tasks("task-history", task_id, "--json").code == 0
    assert repo.git("worktree", "list").out.count("\n") == 1


def test_uncommitted_files_are_named(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.write("README.md", "changed\n")
    work.write("new file\n\x1b[31m", "x")
    said = refused(repo, task_id)
    assert "2 uncommitted files" in said
    assert "README.md" in said
    assert (work.top / "README.md").read_text() == "changed\n"


def test_unmerged_commits_are_named(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    sha = work.commit("precious work", file="x\n")
    assert f"1 commit not merged into main: {sha[:9]} precious work" in refused(repo, task_id)
    repo.git("merge", "-q", "--no-edit", "task/aside")
    cleaned(repo, task_id)


def test_unpushed_commits_are_named_until_merged_or_pushed(repo: Repo, aside: tuple[Repo, str], tmp_path: Path) -> None:
    work, task_id = aside
    run(["git", "init", "-q", "--bare", "origin.git"], cwd=tmp_path)
    repo.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    repo.git("push", "-q", "origin", "main")
    work.commit("only here", file="x\n")
    assert "1 commit on no remote" in refused(repo, task_id)
    work.git("push", "-q", "origin", "HEAD")
    said = refused(repo, task_id)
    assert "1 commit not merged" in said
    assert "no remote" not in said
    repo.git("merge", "-q", "task/aside")
    cleaned(repo, task_id)


def test_many_files_are_counted(repo: Repo, aside: tuple[Repo, str]) -> None:
    for n in range(8):
        aside[0].write(f"f{n}", "x")
    assert "8 uncommitted files: f0, f1, f2, f3, f4, and 3 more" in refused(repo, aside[1])


def test_a_branch_in_use_in_place(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/here")
    task_id = repo.only_id()
    assert str(repo.top) in refused(repo, task_id, "in_use")
    repo.git("checkout", "-q", "main")
    cleaned(repo, task_id)


def test_ignored_files_go_with_the_worktree_only_when_told(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    repo.commit("ignore", **{".gitignore": "*.log\n"})
    work.git("merge", "-q", "main")
    work.write("built.log", "x")
    done = repo.tasks("cleanup-task", task_id, "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "unsaved_work")
    assert "1 ignored path: built.log" in done.json["error"]["message"]
    assert (work.top / "built.log").exists()
    repo.tasks("cleanup-task", task_id, "--discard-ignored")
    assert not work.top.exists()


def test_a_locked_worktree_is_kept_with_its_link(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    repo.git("worktree", "lock", str(work.top))
    done = repo.tasks("cleanup-task", task_id, "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "worktree")
    assert (work.top / ".tasks" / task_id).is_dir()
    assert repo.git("rev-parse", "-q", "--verify", "task/aside").code == 0
    repo.git("worktree", "unlock", str(work.top))
    cleaned(repo, task_id)


def test_a_worktree_that_was_deleted_by_hand(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    run(["rm", "-rf", str(work.top)], cwd=repo.top)
    cleaned(repo, task_id)


def test_a_branch_that_is_gone_already(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/gone")
    task_id = repo.only_id()
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "task/gone")
    assert cleaned(repo, task_id)["status"] == "cancelled"


def test_a_renamed_branch_is_the_one_that_is_examined(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.commit("precious", file="x\n")
    repo.git("branch", "-m", "task/aside", "task/renamed")
    assert "precious" in refused_after_rename(repo, task_id)
    repo.git("merge", "-q", "task/renamed")
    cleaned(repo, task_id)
    assert not work.top.exists()


def refused_after_rename(repo: Repo, task_id: str) -> str:
    done = repo.tasks("cleanup-task", task_id, "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "unsaved_work")
    message: str = done.json["error"]["message"]
    return message


def test_a_rebase_in_the_worktree_is_work(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.commit("mine", **{"README.md": "mine\n"})
    repo.commit("theirs", **{"README.md": "theirs\n"})
    assert work.git("rebase", "main", check=False).code == 1
    assert "mine" in refused(repo, task_id)


def test_from_inside_the_worktree_and_from_a_hooks_environment(repo: Repo, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.write("unsaved", "x")
    env = {"GIT_DIR": str(repo.common), "GIT_INDEX_FILE": str(repo.common / "index")}
    done = run(["opencode-tasks", "cleanup-task", task_id], cwd=repo.top, env={**repo.env, **env}, check=False)
    assert (done.code, "unsaved" in done.err) == (1, True)
    (work.top / "unsaved").unlink()
    assert work.tasks("cleanup-task", "--json").json["id"] == task_id
    assert not work.top.exists()


def test_a_branch_section_of_the_users_goes_with_the_branch(repo: Repo, aside: tuple[Repo, str]) -> None:
    repo.git("config", "branch.task/aside.description", "notes")
    cleaned(repo, aside[1])
