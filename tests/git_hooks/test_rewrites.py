"""Amend, reset, rebase, squash, cherry-pick, merge, deletion: what the task knows of its commits afterwards."""

from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace, new_id
from tests.conftest import Repo


def of_type(repo: Repo, type_: str) -> list[dict[str, Any]]:
    return [e["data"] for e in repo.events(repo.only_id()) if e["type"] == type_]


def head(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD").out.strip()


def now(repo: Repo) -> dict[str, Any]:
    """What the commits of every `from` have become in the end."""
    became: dict[str, str] = {}
    for data in of_type(repo, "commit.rewritten"):
        became |= dict(data["rewritten"])
    return became


def test_an_amended_commit(task_repo: Repo) -> None:
    old = task_repo.commit("one", a="1\n")
    task_repo.git("commit", "-q", "--amend", "-m", "better")
    (rewritten,) = of_type(task_repo, "commit.rewritten")
    new = head(task_repo)
    assert rewritten == {"by": "amend", "branch": "task/one", "head": new, "rewritten": [[old, new]]}


def test_commits_that_a_reset_made_one(task_repo: Repo) -> None:
    base = head(task_repo)
    olds = [task_repo.commit(f"{n}", **{f"f{n}": "x\n"}) for n in range(3)]
    task_repo.git("reset", "-q", "--soft", base)
    made = task_repo.commit("all")
    assert now(task_repo) == dict.fromkeys(olds, made)


def test_a_rebase_and_a_squash_in_it(task_repo: Repo) -> None:
    one, two, three = (task_repo.commit(f"{n}", **{f"f{n}": "x\n"}) for n in range(3))
    task_repo.git("checkout", "-q", "main")
    task_repo.commit("main's", other="x\n")
    task_repo.git("checkout", "-q", "task/one")
    task_repo.git("rebase", "-q", "main")
    became = now(task_repo)
    assert list(became) == [one, two, three]
    assert became[three] == head(task_repo)
    assert of_type(task_repo, "commit.rewritten")[-1]["by"] == "rebase"
    second = "sed -i 2s/pick/squash/"
    task_repo.git("-c", f"sequence.editor={second}", "-c", "core.editor=true", "rebase", "-q", "-i", "main")
    after = now(task_repo)
    assert after[became[one]] == after[became[two]]
    assert after[became[three]] == head(task_repo)
    # The next commit follows on what the branch has now.
    made = task_repo.commit("more", more="x\n")
    assert of_type(task_repo, "commit.recorded")[-1]["sha"] == made
    assert of_type(task_repo, "commit.rewritten")[-1]["by"] == "rebase"


def test_a_cherry_pick_a_revert_and_a_merge_are_commits(task_repo: Repo) -> None:
    task_repo.git("checkout", "-q", "-b", "aside", "main")
    picked = task_repo.commit("aside", aside="x\n")
    task_repo.git("checkout", "-q", "task/one")
    task_repo.git("cherry-pick", picked)
    pick = head(task_repo)
    task_repo.git("revert", "--no-edit", "HEAD")
    revert = head(task_repo)
    task_repo.git("checkout", "-q", "main")
    task_repo.commit("main's", other="x\n")
    task_repo.git("checkout", "-q", "task/one")
    task_repo.git("merge", "-q", "--no-edit", "main")
    shas = [c["sha"] for c in of_type(task_repo, "commit.recorded")]
    assert shas == [pick, revert, head(task_repo)]
    assert len(of_type(task_repo, "commit.recorded")[-1]["parents"]) == 2
    assert of_type(task_repo, "commit.rewritten") == []


@pytest.mark.parametrize("how", [["--no-ff", "--no-edit"], ["--ff-only"]])
def test_a_task_that_came_home(task_repo: Repo, how: list[str]) -> None:
    tip = task_repo.commit("work", a="x\n")
    task_repo.git("checkout", "-q", "main")
    ran = task_repo.git("merge", "-q", *how, "task/one")
    assert of_type(task_repo, "branch.merged") == [
        {"branch": "task/one", "tip": tip, "into": "main", "head": head(task_repo)}
    ]
    assert f"opencode-tasks complete-task {task_repo.only_id()}" in ran.err
    task_repo.commit("later", b="x\n")
    task_repo.git("checkout", "-q", "-b", "third")
    task_repo.commit("third", c="x\n")
    task_repo.git("checkout", "-q", "main")
    assert "complete-task" not in task_repo.git("merge", "-q", "--no-ff", "--no-edit", "third").err
    assert len(of_type(task_repo, "branch.merged")) == 1


def test_a_squash_merge_is_none_yet(task_repo: Repo) -> None:
    task_repo.commit("work", a="x\n")
    task_repo.git("checkout", "-q", "main")
    task_repo.git("merge", "-q", "--squash", "task/one")
    assert of_type(task_repo, "branch.merged") == []


def test_a_deleted_branch_is_noticed_and_can_be_had_back(task_repo: Repo) -> None:
    tip = task_repo.commit("work", a="x\n")
    task_repo.git("checkout", "-q", "main")
    ran = task_repo.git("branch", "-D", "task/one")
    assert f"git branch task/one {tip[:12]} brings its branch back" in ran.err
    assert of_type(task_repo, "branch.deleted") == [{"branch": "task/one", "tip": tip}]
    task_repo.git("branch", "task/one", tip)
    task_repo.git("checkout", "-q", "task/one")
    assert len(task_repo.ids()) == 1
    assert task_repo.tasks("task-status", "--json").json["status"] == "running"


def test_packed_branches_are_noticed_too_and_others_and_renames_are_not(task_repo: Repo) -> None:
    task_repo.commit("work", a="x\n")
    task_repo.git("branch", "other")
    task_repo.git("pack-refs", "--all")
    task_repo.git("branch", "-m", "task/two")
    task_repo.git("branch", "-D", "other")
    assert of_type(task_repo, "branch.deleted") == []
    task_repo.git("checkout", "-q", "main")
    task_repo.git("branch", "-D", "task/two")
    assert [d["branch"] for d in of_type(task_repo, "branch.deleted")] == ["task/two"]
    # Of the rename git told nobody; whoever sees the deletion sees it, too.
    assert of_type(task_repo, "branch.renamed") == [{"from": "task/one", "to": "task/two"}]


def test_a_hook_that_stood_there_reads_the_same(task_repo: Repo, tmp_path: Path) -> None:
    for name in ("post-rewrite", "pre-push", "reference-transaction"):
        hook = task_repo.common / "hooks" / f"{name}.before-opencode-tasks"
        hook.write_text(f'#!/bin/sh\n[ "$1" = prepared ] || cat >>{tmp_path}/{name}\n')
        hook.chmod(0o755)
    old = task_repo.commit("one", a="1\n")
    task_repo.git("commit", "-q", "--amend", "-m", "better")
    assert (tmp_path / "post-rewrite").read_text() == f"{old} {head(task_repo)}\n"
    task_repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    task_repo.git("push", "-q", str(tmp_path / "remote.git"), "HEAD")
    zero = "0" * 40
    said = f"HEAD {head(task_repo)} refs/heads/task/one {zero}\n"
    assert (tmp_path / "pre-push").read_text() in (said, said.replace("HEAD ", "refs/heads/task/one ", 1))
    (tmp_path / "reference-transaction").unlink()
    task_repo.git("branch", "aside")
    assert (tmp_path / "reference-transaction").read_text() == f"{zero} {head(task_repo)} refs/heads/aside\n"
    before = task_repo.common / "hooks" / "reference-transaction.before-opencode-tasks"
    before.write_text('#!/bin/sh\n[ "$1" != prepared ] || exit 1\n')
    assert task_repo.git("branch", "refused", check=False).code != 0


def test_children_that_are_not_done_are_told_at_push(task_repo: Repo, tmp_path: Path) -> None:
    parent = task_repo.only_id()
    task_repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    push = ("push", "-q", str(tmp_path / "remote.git"), "task/one")
    assert task_repo.git(*push).err == ""
    store = Store(task_repo.common)
    child = new_id("child")
    at = task_repo.tasks("task-status", "--json").json
    store.create(
        NewTask(child, "child", "task/child", Base(None, head(task_repo)), Workspace(**at["workspace"]), parent=parent),
        actor="test",
    )
    task_repo.commit("more", a="x\n")
    assert f"1 children of task {parent} are not done: {child}" in task_repo.git(*push).err
