"""Git inside a container is its own: what is committed there comes to the host, what happens here is told there."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Ran, Repo

BRANCH = "task/private"
KEPT = "refs/opencode-tasks/private"


@pytest.fixture
def task(live_repo: Repo) -> Iterator[Repo]:
    live_repo.git("checkout", "--quiet", "-b", BRANCH)
    yield live_repo
    live_repo.git("fsck", "--strict")


def inside(repo: Repo, script: str, *, cwd: Path | None = None, check: bool = True) -> Ran:
    return repo.tasks("exec", "--", "sh", "-ec", script, cwd=cwd, check=check)


def log(repo: Repo) -> list[str]:
    return repo.git("log", "--format=%s", BRANCH).out.splitlines()


def recorded(repo: Repo) -> list[str]:
    return [e["data"]["subject"] for e in repo.events(repo.only_id()) if e["type"] == "commit.recorded"]


def test_both_sides_agree_before_and_after_each_command(task: Repo) -> None:
    plan = task.store / task.only_id() / "plan.md"
    plan.write_text(plan.read_text() + "\n- [ ] Write the parser\n")
    said = inside(
        task,
        "git status --porcelain; echo one >one; git add one; git commit -qm 'Write the parser';"
        "git log -1 --format=%an:%B",
    )
    assert said.out == f"Test:Write the parser\n\nTask-Id: {task.only_id()}\n\n"
    assert (log(task)[0], recorded(task)) == ("Write the parser", ["Write the parser"])
    assert "- [x] Write the parser" in plan.read_text()
    # The host's index followed, and what is there uncommitted stays what it is.
    task.write("README.md", "changed here\n")
    task.commit("two", two="2\n")
    task.git("branch", "other")
    assert task.git("status", "--porcelain").out == ""
    task.write("three", "3\n")
    said = inside(
        task,
        "git log --format=%s -2; git rev-parse -q --verify other >/dev/null; git status --porcelain;"
        "git add three; git stash -q; git stash pop -q; git commit -qm three; echo 4 >>three; git commit -qam four;"
        "git rebase -q --force-rebase HEAD~2; git bisect start HEAD HEAD~2 >/dev/null;"
        "git bisect reset >/dev/null 2>&1",
    )
    assert said.out == "two\nWrite the parser\n?? three\n"
    assert log(task)[:3] == ["four", "three", "two"]
    assert recorded(task) == ["Write the parser", "two", "three", "four"]
    assert task.git("status", "--porcelain").out == ""
    # Commits of the host that replace what came from inside are followed where nothing new was made there.
    task.git("branch", "-D", "other", "-q")
    task.git("rebase", "--quiet", "--force-rebase", "main")
    task.git("commit", "--quiet", "--amend", "-m", "four, better")
    script = "git log -1 --format=%s; git status --porcelain; git rev-parse -q --verify other || echo gone"
    assert inside(task, script).out == "four, better\ngone\n"


def test_when_both_moved_nothing_is_lost_and_both_are_told(task: Repo) -> None:
    script = "while ! [ -e go ]; do sleep 0.05; done; cat b >>README.md; git commit -qam inside"
    argv = ["opencode-tasks", "exec", "--", "sh", "-ec", script]
    with subprocess.Popen(argv, cwd=task.top, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not any(e["type"] == "command.started" for e in task.events(task.only_id())):
            assert time.monotonic() < until
            time.sleep(0.05)
        task.write("b", "b\n")
        task.git("add", "b")
        task.git("commit", "--quiet", "-m", "outside", "b")
        task.write("go", "")
        told = running.stderr.read() if running.stderr else ""
        assert running.wait() == 0
    task_id = task.only_id()
    assert f"neither follows the other: they are kept as {KEPT}/{task_id}" in " ".join(told.split())
    assert log(task)[0] == "outside"
    assert task.git("log", "-1", "--format=%s", f"{KEPT}/{task_id}").out == "inside\n"
    assert "neither follows" in task.tasks("task-status").out
    script = f"git log -1 --format=%s host/{BRANCH}; git reset -q host/{BRANCH}; git commit -qam inside"
    assert inside(task, script).out == "outside\n"
    assert log(task)[:2] == ["inside", "outside"]
    assert "neither follows" not in task.tasks("task-status").out
    # What is staged here and differs is not overwritten, nor is a branch moved under another git's hands.
    task.write("README.md", "staged\n")
    task.git("add", "README.md")
    task.write("README.md", "not staged\n")
    assert "what is staged here differs" in inside(task, "git commit -qam third").err
    assert (log(task)[0], task.git("show", ":README.md").out) == ("inside", "staged\n")
    task.git("restore", "--staged", ".")
    lock = task.common / "index.lock"
    lock.touch()
    assert "another git is at work" in inside(task, "true").err
    lock.unlink()
    assert inside(task, "true").err == ""
    assert (log(task)[0], task.git("status", "--porcelain").out) == ("third", "?? go\n")


def test_what_does_not_follow_is_for_a_person_to_let_in(task: Repo) -> None:
    inside(task, "echo 1 >one; git add one; git commit -qm one")
    was = task.git("rev-parse", BRANCH).out
    assert "neither follows the other" in inside(task, "echo 2 >one; git commit -qa --amend -m better").err
    assert inside(task, "true").err == ""  # it is told once
    agent = Repo(task.top, {**task.env, "OPENCODE_PID": "1"})
    assert "Only a person" in agent.tasks("import-commits", "--rewrite", check=False).err
    assert log(task)[0] == "one"
    task.tasks("import-commits", "--rewrite")
    assert (log(task)[0], task.git("status", "--porcelain").out) == ("better", "")
    assert task.git("rev-parse", f"refs/opencode-tasks/rewritten/{task.only_id()}").out == was
    # Neither what the host's programs obey: in any of the commits.
    plant = (
        "echo x >/run/x; git update-index --add --cacheinfo 100644,$(git hash-object -w /run/x),.opencode/x.js;"
        "git commit -qm planted; git rm -q --cached .opencode/x.js; git commit -qm harmless"
    )
    refused = inside(task, plant).err
    assert ".opencode/x.js: programs on your machine do what it says" in refused
    assert "--accept protected" in refused
    assert log(task)[0] == "better"
    assert task.tasks("import-commits", "--json", check=False).json["error"]["code"] == "import_refused"
    assert agent.tasks("import-commits", "--accept", "protected", check=False).code == 1
    # While they are only there, the task is neither merged nor cleaned up.
    for words in (("complete-task", "--merge"), ("cleanup-task",)):
        ended = task.tasks(*words, check=False).err
        assert (" container" in ended, ".opencode/x.js" in ended) == (True, True), ended
    task.tasks("import-commits", "--accept", "protected")
    assert log(task)[:2] == ["harmless", "planted"]
    event = next(e for e in task.events(task.only_id()) if e["type"] == "commit.refused")
    assert event["data"]["reasons"] == [".opencode/x.js: programs on your machine do what it says"]


def test_a_branch_that_is_renamed_and_one_that_is_the_containers_own(task: Repo) -> None:
    inside(task, "echo 1 >one; git add one; git commit -qm one")
    task.git("branch", "--move", "task/renamed")
    assert inside(task, "git branch --show-current; git commit -q --allow-empty -m two").out == "task/renamed\n"
    assert task.git("log", "--format=%s", "-2", "task/renamed").out == "two\none\n"
    told = inside(task, "git checkout -q -b aside; git commit -q --allow-empty -m three").err
    assert "aside is checked out there: what is committed on it stays there" in told
    inside(task, "git checkout -q task/renamed; git merge -q aside")
    assert task.git("log", "--format=%s", "-1").out == "three\n"
    # Killed while it moved the branch: git finds its index locked, until somebody looks.
    own = task.common / "opencode-tasks" / "private" / task.only_id()
    lock = task.common / "index.lock"
    lock.write_bytes((task.common / "index").read_bytes())
    found = lock.stat()
    tip = task.git("rev-parse", "HEAD").out.strip()
    stamp = [found.st_ino, found.st_mtime_ns, found.st_size]
    note = {"branch": "task/renamed", "was": f"{tip}~", "tip": tip, "lock": stamp}
    (own / "moving.json").write_text(json.dumps(note))
    task.tasks("reconcile")
    assert not lock.exists()
    assert task.git("status", "--porcelain").out == ""


def test_in_a_worktree(live_repo: Repo) -> None:
    made = live_repo.tasks("create-task", "Private", "--worktree", "--json").json
    tree = Repo(Path(made["workspace"]["path"]), live_repo.env)
    said = inside(tree, "git rev-parse --git-dir --show-toplevel; echo 1 >one; git add one; git commit -qm one")
    assert said.out.splitlines()[1] == str(tree.top)
    assert (log(tree)[0], tree.git("status", "--porcelain").out) == ("one", "")
    assert live_repo.git("status", "--porcelain").out == ""
    # The main checkout's git directory is not there to be written, but for what is the container's own.
    common = live_repo.common
    inside(tree, f"touch {common}/x {common}/worktrees/x", check=False)
    assert not (common / "x").exists()
    assert not (common / "worktrees" / "x").exists()
    live_repo.commit("on main")
    assert inside(tree, "git log -1 --format=%s main; cat .tasks/*/state.json >/dev/null").out == "on main\n"
