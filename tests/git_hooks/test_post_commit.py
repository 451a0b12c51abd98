"""What post-commit writes down, and when it must not."""

import shutil
from pathlib import Path
from typing import Any

from tests.conftest import Repo, run


def recorded(repo: Repo, task_id: str) -> list[dict[str, Any]]:
    return [e["data"] for e in repo.events(task_id) if e["type"] == "commit.recorded"]


def test_commits_are_recorded(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    for subject in ("plain", "grüße 日本", "tab\there", "-dash", '"quotes" \\ back'):
        parent = repo.git("rev-parse", "HEAD").out.strip()
        sha = repo.commit(f"{subject}\n\nbody")
        found = recorded(repo, repo.only_id())[-1]
        assert found == {"sha": sha, "parents": [parent], "subject": subject, "branch": "task/one"}


def test_a_subject_that_is_not_utf8(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    message = repo.top.parent / "message"
    message.write_bytes(b"caf\xe9\n")
    repo.git("-c", "i18n.commitEncoding=latin1", "commit", "-q", "--allow-empty", "-F", str(message))
    (found,) = recorded(repo, repo.only_id())
    assert found["subject"] == "café"
    assert repo.tasks("task-history", "--json").code == 0


def test_an_amended_commit_is_recorded_as_another(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    first = repo.commit("one")
    repo.git("commit", "-q", "--amend", "--allow-empty", "-m", "two")
    shas = [c["sha"] for c in recorded(repo, repo.only_id())]
    assert shas == [first, repo.git("rev-parse", "HEAD").out.strip()]


def test_the_first_commit_of_an_orphan_branch_has_no_parents(repo: Repo) -> None:
    repo.git("checkout", "-q", "--orphan", "task/one")
    repo.git("commit", "-q", "-m", "root")
    (found,) = recorded(repo, repo.only_id())
    assert found["parents"] == []


def test_commits_of_a_rebase_are_not_recorded_before_they_are_the_branchs(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("mine", mine="x\n")
    repo.git("checkout", "-q", "main")
    repo.commit("main's", other="x\n")
    repo.git("checkout", "-q", "task/one")
    before = recorded(repo, repo.only_id())
    repo.git("rebase", "-q", "main")
    assert recorded(repo, repo.only_id()) == before


def test_a_commit_elsewhere_is_not_this_tasks(repo: Repo, tmp_path: Path) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("worktree", "add", "-q", "-b", "aside", str(tmp_path / "aside"))
    run(["git", "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path / "aside", env=repo.env)
    assert recorded(repo, repo.only_id()) == []


def test_a_commit_in_a_worktree_is_its_own_tasks(repo: Repo, tmp_path: Path) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    one = repo.only_id()
    repo.git("worktree", "add", "-q", "-b", "task/two", str(tmp_path / "two"))
    (two,) = set(repo.ids()) - {one}
    run(["git", "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path / "two", env=repo.env)
    assert recorded(repo, one) == []
    assert len(recorded(repo, two)) == 1


def test_a_damaged_log_is_mended_from_its_history_and_the_commit_recorded(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    task_id = repo.only_id()
    (log,) = (repo.store / task_id / "log").iterdir()
    (repo.store / task_id / "state.json").unlink()
    before = repo.events(task_id)
    log.write_bytes(b"damaged\n")
    repo.git("commit", "--allow-empty", "-m", "x")
    after = repo.events(task_id)
    assert after[: len(before)] == before
    assert [e["type"] for e in after[len(before) :]] == ["log.repaired", "commit.recorded"]
    assert after[-2]["data"]["lost"] == ""


def test_a_log_that_cannot_be_written_is_said_and_the_commit_stands(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    (log,) = (repo.store / repo.only_id() / "log").iterdir()
    (repo.store / repo.only_id() / "state.json").unlink()
    log.write_bytes(b"damaged\n")
    shutil.rmtree(repo.store.parent / "memory.git")
    done = repo.git("commit", "--allow-empty", "-m", "x")
    assert "opencode-tasks: " in done.err
    assert "opencode-tasks doctor" in done.err
    assert repo.git("log", "-1", "--format=%s").out == "x\n"
