"""A task's worktree is taken away by hand, of which no hook tells: the next command does, and how to have it again."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from opencode_tasks.commands import workspace_checks
from opencode_tasks.commands.here import Here
from opencode_tasks.config_sections import Config
from opencode_tasks.containers.spec import container_name
from opencode_tasks.git import agreement, discovery, repository
from opencode_tasks.store import Store
from tests.commands.conftest import Ask, dies_before
from tests.conftest import Repo, run


def aside(repo: Repo) -> tuple[str, Path]:
    made = repo.tasks("create-task", "aside", "--worktree", "--json").json
    return made["id"], Path(made["workspace"]["path"])


def checked(repo: Repo) -> tuple[bool, str, str]:
    """As `doctor` does it."""
    return workspace_checks.worktrees(Here(discovery.find(repo.top, {}), Store(repo.common)))


def removed(repo: Repo, top: Path) -> None:
    repo.git("worktree", "remove", str(top))


def deleted(repo: Repo, top: Path) -> None:
    shutil.rmtree(top)


def pruned(repo: Repo, top: Path) -> None:
    shutil.rmtree(top)
    repo.git("worktree", "prune")


def locked(repo: Repo, top: Path) -> None:
    repo.git("worktree", "lock", str(top))
    shutil.rmtree(top)


def something_else_there(repo: Repo, top: Path) -> None:
    pruned(repo, top)
    top.mkdir()


def with_its_branch(repo: Repo, top: Path) -> None:
    pruned(repo, top)
    repo.git("update-ref", "-d", "refs/heads/task/aside")


@pytest.mark.parametrize("take", [removed, deleted, pruned, locked, something_else_there, with_its_branch])
def test_it_is_paused_and_can_be_had_again(repo: Repo, ask: Ask, take: Callable[[Repo, Path], None]) -> None:
    task_id, top = aside(repo)
    take(repo, top)
    listed = ask("list-tasks", "--json")
    assert [t["status"] for t in listed.json["tasks"]] == ["paused"]
    again = f"git worktree add {top} task/aside"
    assert (again if take in (removed, pruned, something_else_there) else "git worktree add ") in listed.err
    assert "is gone" not in ask("list-tasks").err, "it is told once"
    status = ask("task-status", task_id, "--json").json
    assert status["workspace_gone"] in listed.err
    for words in (["checkpoint", task_id], ["exec", "--task", task_id, "--", "true"]):
        refused = ask(words[0], "--json", *words[1:], check=False).json["error"]
        assert (refused["code"], refused["hint"]) == ("conflict", status["workspace_gone"]), words
    ok, _, fix = checked(repo)
    assert (ok, fix) == (False, f"{task_id}: {status['workspace_gone']}")
    run(["sh", "-c", status["workspace_gone"]], cwd=repo.top, env=repo.env)
    status = ask("task-status", task_id, "--json").json
    assert (status["status"], status["workspace"]["path"], status["workspace_gone"]) == ("running", str(top), None)
    reasons = [e["data"].get("reason") for e in repo.events(task_id) if e["type"] == "status.changed"]
    assert checked(repo)[0]
    assert reasons[-2:] == ["its worktree is gone", "checked out"]


def test_moved_is_not_gone(repo: Repo, ask: Ask, tmp_path: Path) -> None:
    task_id, top = aside(repo)
    repo.git("worktree", "move", str(top), str(tmp_path / "elsewhere"))
    assert [t["status"] for t in ask("list-tasks", "--json").json["tasks"]] == ["running"]
    assert ask("task-status", task_id, "--json").json["workspace"]["path"] == str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["gitdir", "HEAD", "commondir"])
@pytest.mark.parametrize("content_b", [None, b"\xff\0\n"])
def test_what_git_knows_of_it_is_damaged(repo: Repo, ask: Ask, name: str, content_b: bytes | None) -> None:
    task_id, _ = aside(repo)
    (admin,) = (repo.common / "worktrees").iterdir()
    (admin / name).unlink()
    if content_b is not None:
        (admin / name).write_bytes(content_b)
    for words in (["list-tasks"], ["task-status", task_id], ["task-stats"], ["complete-task", task_id]):
        ask(*words, check=False)  # which asserts that none of them is a bug of ours
    assert checked(repo)[0] is (name != "gitdir")
    at = discovery.find(repo.top, {})
    agreement.agree(Store(repo.common), at, Config(), actor="test")
    agreement.leftovers(Store(repo.common), at, Config())


def test_its_container_is_held_still_by_the_command_that_notices(live_repo: Repo, client: docker.DockerClient) -> None:
    lazy = Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    task_id, top = aside(lazy)
    lazy.tasks("exec", "--task", task_id, "--", "true")
    shutil.rmtree(top)
    assert "is gone: it is paused" in lazy.tasks("list-tasks").err
    assert client.containers.get(container_name(task_id)).status == "paused"


_STEPS = ("subprocess.Popen.__init__", "Store.create", "Store.record")


def old(tree: Path, git_dir: Path) -> None:
    """As if it had been made an hour ago."""
    for place in (tree, *(git_dir / name for name in ("HEAD", "gitdir"))):
        os.utime(place, (time.time() - 3600,) * 2)


def test_create_task_killed_anywhere_leaves_a_whole_task_or_what_reconcile_takes(full: Repo) -> None:
    """With submodules, whose repositories git would have stand in the way of a removal."""
    store, at = Store(full.common), discovery.find(full.top, {})
    step, killed, seen = 6, True, set[str]()
    while killed:
        killed = dies_before(full, step, _STEPS, "create-task", f"number {step}", "--worktree")
        agreement.agree(store, at, Config(), actor="test")
        trees: list[dict[str, Any]] = full.tasks("list-tasks", "--json").json["tasks"]
        wholes = {t["workspace"]["path"] for t in trees}
        assert all(Path(path, ".git").exists() for path in wholes)
        for git_dir in (full.common / "worktrees").iterdir() if (full.common / "worktrees").exists() else ():
            tree = full.top.parent / "full.worktrees" / git_dir.name
            if str(tree) in wholes:
                seen.add("whole")
                continue
            old(tree, git_dir)
            (left,) = agreement.leftovers(store, at, Config())
            assert (left.path, left.holds) == (tree, "")
            repository.remove_worktree(at, tree)
            assert not tree.exists()
            seen.add("half")
        assert full.git("status", "--porcelain").out == ""
        full.git("fsck", "--strict", "--no-dangling")
        step += 5
    assert seen == {"whole", "half"}
