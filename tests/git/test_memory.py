"""The store's own history: readable, in time, and without anybody's hooks."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git import memory
from opencode_tasks.store import Store
from tests.conftest import Repo, run
from tests.git.conftest import commits, git, kept
from tests.store.conftest import ID

COMMAND = ("command.started", {"run": "1", "argv": ["true"], "cwd": "/"})


def test_what_a_person_reads_in_the_link(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    task_id = repo.only_id()
    repo.tasks("task-decisions", "--add", "One")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "work")
    repo.git("checkout", "--quiet", "main")
    subjects = run(["git", "log", "--reverse", "--format=%s"], cwd=repo.top / ".tasks").out.splitlines()
    assert subjects == [
        f"{task_id}: created, running",
        f"{task_id}: decision.added",
        f"{task_id}: commit.recorded, paused",
    ]
    shown = run(["git", "log", "-1", "--format=%an %b", "--stat"], cwd=repo.top / ".tasks").out
    assert shown.startswith(f"opencode-tasks {task_id} r4 commit.recorded\n{task_id} r5 status.changed:paused\n")
    assert f"{task_id[-2:]}/{task_id}/log/" in shown
    # Nobody's own branches, work tree or remotes have anything to do with it.
    assert "opencode-tasks" not in repo.git("for-each-ref").out
    assert repo.git("status", "--porcelain").out == ""
    assert run(["git", "checkout", "main"], cwd=repo.top / ".tasks", check=False).code != 0


def test_it_holds_what_cannot_be_made_anew(store: Store, task: Path) -> None:
    store.decide(ID, "One", actor="test")
    checkpoint = store.layout.checkpoint(ID, "1")
    checkpoint.parent.mkdir()
    checkpoint.write_text("{}")
    (checkpoint.parent / 'odd\udcff"\n.json').write_text("{}")
    memory.commit(store)
    files = git(store, "ls-tree", "-r", "-z", "--name-only", "main").rstrip("\0").split("\0")
    folder = f"{ID[-2:]}/{ID}"
    names = ["checkpoints/1.json", 'checkpoints/odd\udcff"\n.json', "decisions.md", f"log/{task.name}", "plan.md"]
    assert files == [f"{folder}/{name}" for name in names]
    assert kept(store).encode() == task.read_bytes()
    assert memory.last_commit(store.layout) == git(store, "log", "-1", "--format=%cI %s").strip()


def test_no_hook_of_anybody_runs(store: Store, task: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = store.layout.root / "ran"
    planted = [store.layout.memory_git / "hooks", isolated / "hooks"]
    for folder in planted:
        folder.mkdir()
        for name in ("reference-transaction", "post-commit", "pre-auto-gc", "post-rewrite", "post-index-change"):
            (folder / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\n")
            (folder / name).chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(planted[1]))
    subprocess.run(["git", "config", "--global", "core.hooksPath", planted[1]], check=True)
    for n in range(3):
        store.record(ID, ("task.updated", {"changes": {"title": ["", str(n)]}}), actor="test")
        memory.commit_if_due(store)
    git(store, "config", "core.hooksPath", str(planted[1]))
    store.decide(ID, "One", actor="test")
    memory.commit_if_due(store)
    assert commits(store) == 5
    assert not ran.exists()
    git(store, "update-ref", "refs/heads/other", "main")
    assert "reference-transaction" in ran.read_text()  # they would have


def test_a_repository_of_a_running_hook_is_left_alone(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    before = repo.git("rev-parse", "HEAD", "HEAD^{tree}").out
    env = {"GIT_DIR": str(repo.common), "GIT_INDEX_FILE": str(repo.top / "index"), "GIT_WORK_TREE": str(repo.top)}
    Repo(repo.top, {**repo.env, **env}).tasks("task-decisions", "--add", "One")
    assert repo.git("rev-parse", "HEAD", "HEAD^{tree}").out == before
    assert "decision.added" in run(["git", "log", "-1", "--format=%s"], cwd=repo.top / ".tasks").out
    assert not (repo.top / "index").exists()


def test_mere_records_wait_for_the_minute(store: Store, task: Path) -> None:
    place = store.layout.memory_git / "opencode-tasks-place"

    def recorded_when_the_last_was(ago_s: float) -> bool:
        before = commits(store)
        at = time.time() - ago_s
        os.utime(place, (at, at))
        store.record(ID, COMMAND, actor="test")
        memory.commit_if_due(store)
        return commits(store) > before

    assert not recorded_when_the_last_was(1)
    assert not recorded_when_the_last_was(50)
    assert recorded_when_the_last_was(61)
    assert not recorded_when_the_last_was(0)
    assert recorded_when_the_last_was(-3600)  # a clock was set back
    place.unlink()
    store.record(ID, COMMAND, actor="test")
    memory.commit_if_due(store)
    assert kept(store).count("command.started") == 6


def test_a_transition_waits_for_nothing_and_takes_the_rest_along(store: Store, task: Path) -> None:
    store.record(ID, COMMAND, actor="test")
    memory.commit_if_due(store)
    assert commits(store) == 1
    memory.commit_if_due(store)  # nothing was written since
    changes: list[Callable[[], object]] = [
        lambda: store.ensure_status(ID, "running", reason="test", actor="test"),
        lambda: store.decide(ID, "One", actor="test"),
        lambda: store.attach(ID, "one", actor="test"),
        lambda: store.detach(ID, "one", actor="test"),
        lambda: store.delete(ID, reason="test", actor="test"),
    ]
    for n, change in enumerate(changes, 2):
        change()
        memory.commit_if_due(store)
        assert commits(store) == n
    assert kept(store).encode() == task.read_bytes()
    assert not memory.commit(store)


def test_nothing_odd_in_a_task_is_followed_or_waited_for(store: Store, task: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    store.layout.plan(ID).unlink()
    store.layout.plan(ID).symlink_to(secret)
    store.layout.decisions(ID).unlink()
    os.mkfifo(store.layout.decisions(ID))
    (store.layout.task(ID) / "checkpoints" / "folder.json").mkdir(parents=True)
    memory.commit(store, everything=True)
    assert "secret" not in git(store, "log", "-p")
