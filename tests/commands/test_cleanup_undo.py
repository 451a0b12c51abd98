"""`cleanup-task --discard` and `--undo`: what goes can come back, until its time is over."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.git import backup, discovery, plumbing, private, repository
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store, trash
from opencode_tasks.store.layout import Layout
from opencode_tasks.values import replace
from tests.commands.conftest import Ask, made_aside
from tests.conftest import Repo, is_ours


@pytest.fixture
def full(repo: Repo) -> tuple[Repo, str]:
    """A worktree with one of every kind of work that is saved nowhere else."""
    work, task_id = made_aside(repo, "Aside")
    work.commit("Ignore", **{".gitignore": "*.env\ncache/\n"})
    work.write("README.md", "changed\n")
    work.write("new/deep", "new\n")
    work.write("secret.env", "secret\n")
    work.write("cache/large", "x" * 1000)
    (work.top / "aside.py").unlink()
    (work.top / "link").symlink_to("/nowhere")
    repo.git("config", "branch.task/aside.description", "two\nlines")
    return work, task_id


def files(top: Path) -> dict[str, str]:
    paths = [p for p in top.rglob("*") if p.is_file() or p.is_symlink()]
    held = {str(p.relative_to(top)): str(p.readlink()) if p.is_symlink() else p.read_text() for p in paths}
    return {name: text for name, text in held.items() if name not in (".git", ".tasks") and not is_ours(top / name)}


def refusal(ask: Ask, task_id: str, *words: str) -> dict[str, str]:
    done = ask("cleanup-task", task_id, *words, "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "unsaved_work")
    error: dict[str, str] = done.json["error"]
    return error


def kept(repo: Repo, task_id: str) -> trash.Entry | None:
    return trash.read(Layout(repo.common), task_id)


ALL = "uncommitted,ignored,unmerged"


def test_only_what_is_named_may_go(repo: Repo, ask: Ask, full: tuple[Repo, str]) -> None:
    work, task_id = full
    before = (files(work.top), repo.git("for-each-ref").out, repo.events(task_id))
    assert refusal(ask, task_id)["hint"].endswith("--discard uncommitted,unmerged,ignored")
    assert (
        "2 ignored paths: cache/, secret.env" in refusal(ask, task_id, "--discard", "unmerged,uncommitted")["message"]
    )
    assert "4 uncommitted" in refusal(ask, task_id, "--discard", "unmerged", "--discard-ignored")["message"]
    assert "not merged" in refusal(ask, task_id, "--discard", "uncommitted", "--discard", "ignored")["message"]
    assert ask("cleanup-task", task_id, "--discard", "everything", check=False).code == 2
    (work.top / "nested").mkdir()
    Repo(work.top / "nested", work.env).git("init", "-q")
    work.write("nested/file", "x\n")
    assert "no checkpoint keeps: nested/" in refusal(ask, task_id, "--discard", ALL)["message"]
    assert (repo.git("for-each-ref").out, repo.events(task_id)) == before[1:]
    assert kept(repo, task_id) is None
    Path(work.top / "nested/file").unlink()
    assert ask("cleanup-task", task_id, "--discard", f"{ALL},unkeepable").code == 0


def test_all_of_it_comes_back(repo: Repo, ask: Ask, full: tuple[Repo, str]) -> None:
    work, task_id = full
    before, tip = files(work.top), work.git("rev-parse", "HEAD").out.strip()
    config = repo.git("config", "--get-regexp", "^branch").out
    done = ask("cleanup-task", task_id, "--discard", ALL, "--json").json
    assert done["status"] == "cancelled"
    assert done["kept"]["ref"] == f"refs/opencode-tasks/backup/{task_id}"
    assert done["kept"]["until"] > done["updated_at"]
    assert not work.top.exists()
    assert "task/aside" not in repo.git("branch", "--list").out + repo.git("config", "--list").out
    assert repo.git("rev-parse", done["kept"]["ref"]).out.strip() == tip
    ask("cleanup-task", task_id)  # again: nothing is lost by it
    bundle = repo.common / "opencode-tasks" / "trash" / task_id / f"{tip}.bundle"
    assert tip in repo.git("bundle", "list-heads", str(bundle)).out
    repo.git("update-ref", "-d", done["kept"]["ref"])
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("-c", "gc.pruneExpire=now", "gc", "-q", "--prune=now")
    assert repo.git("cat-file", "-e", tip, check=False).code != 0

    done = ask("cleanup-task", "--undo", "--json").json
    assert (done["id"], done["status"]) == (task_id, "running")
    assert files(work.top) == before
    assert work.git("rev-parse", "HEAD").out.strip() == tip
    assert repo.git("config", "--get-regexp", "^branch").out == config
    assert (work.top / ".tasks" / task_id).is_dir()
    assert kept(repo, task_id) is None
    assert repo.git("for-each-ref", "refs/opencode-tasks").out == ""
    restored = {"branch": "task/aside", "tip": tip, "status": "paused"}
    assert [e["data"] for e in repo.events(task_id) if e["type"] == "task.restored"] == [restored]
    error = ask("cleanup-task", "--undo", "--json", check=False).json["error"]
    assert error["code"] == "no_backup"


def test_a_deleted_task_is_listed_no_more_until_that_is_undone(repo: Repo, ask: Ask, full: tuple[Repo, str]) -> None:
    work, task_id = full
    before = files(work.top)
    error = ask("cleanup-task", task_id, "--delete", "--json", check=False).json["error"]
    assert error["code"] == "unsaved_work"
    _, child = made_aside(repo, "child")
    store = Store(repo.common)
    store.record(task_id, ("child.added", {"id": child}), actor="test")
    error = ask("cleanup-task", task_id, "--delete", "--discard", ALL, "--json", check=False).json["error"]
    assert (error["code"], child in error["message"]) == ("in_use", True)
    ask("cleanup-task", child, "--discard", ALL)
    ask("cleanup-task", task_id, "--delete", "--discard", ALL)
    assert [one["id"] for one in ask("list-tasks", "--json").json["tasks"]] == [child]
    assert task_id in [one["id"] for one in ask("list-tasks", "--deleted", "--json").json["tasks"]]
    assert (repo.store / task_id / "plan.md").exists()
    # As after a kill before the last write.
    entry = trash.read(store.layout, task_id)
    assert entry is not None
    trash.write(store.layout, replace(entry, done=False))
    assert "was deleted" in ask("cleanup-task", task_id).out
    assert all(one.done for one in trash.listed(store.layout))
    assert ask("cleanup-task", "--undo", task_id, "--json").json["status"] == "running"
    assert files(work.top) == before
    assert task_id in [one["id"] for one in ask("list-tasks", "--json").json["tasks"]]


def test_one_in_place_that_was_completed_stays_so(repo: Repo, ask: Ask) -> None:
    repo.git("checkout", "-q", "-b", "task/here")
    sha = repo.commit("Work", file="x\n")
    ask("complete-task", "--squash")
    repo.git("checkout", "-q", "main")
    ask("cleanup-task", "task/here")
    done = ask("cleanup-task", "--undo", "task/here")
    assert "the task stays completed" in done.out
    assert repo.git("rev-parse", "task/here").out.strip() == sha
    assert repo.branch == "main"


def test_something_else_has_the_name_or_the_place_by_now(repo: Repo, ask: Ask, full: tuple[Repo, str]) -> None:
    work, task_id = full
    ask("cleanup-task", task_id, "--discard", ALL)
    repo.git("branch", "task/aside")
    done = ask("cleanup-task", "--undo", "--json", check=False)
    assert done.json["error"]["code"] == "branch_exists"
    repo.git("branch", "-q", "-D", "task/aside")
    work.write("other", "x\n")
    done = ask("cleanup-task", "--undo", "--json", check=False)
    assert done.json["error"]["code"] == "worktree"
    (work.top / "other").unlink()
    assert ask("cleanup-task", "--undo", "--json").json["status"] == "running"


def test_its_time_is_over(repo: Repo, ask: Ask, full: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, task_id = full
    ask("cleanup-task", task_id, "--discard", ALL)
    entry: Any = kept(repo, task_id)
    old = {**vars(entry), "at": "2001-01-01T00:00:00.000Z"}
    trash.write(Layout(repo.common), trash.Entry(**{**old, "done": False}))
    repo.tasks("reconcile", check=False)
    assert kept(repo, task_id) is not None  # it was never finished
    trash.write(Layout(repo.common), trash.Entry(**old))
    monkeypatch.setenv("OPENCODE_TASKS_CLEANUP_GRACE", "never")
    repo.tasks("reconcile", check=False)
    assert kept(repo, task_id) is not None
    monkeypatch.delenv("OPENCODE_TASKS_CLEANUP_GRACE")
    repo.tasks("reconcile", check=False)
    assert kept(repo, task_id) is None
    assert repo.git("for-each-ref", "refs/opencode-tasks").out == ""


def test_commits_that_only_the_container_has(
    repo: Repo, full: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine can be asked for them. In processes of their own: docker-py leaves its sockets open."""
    (work, task_id), ask = full, repo.tasks
    layout, checkout = Layout(repo.common), discovery.find(work.top, {})
    own = private.ensure(layout, checkout, task_id, "task/aside")
    work.git("stash", "-q", "-u")
    before = private.seen(layout, task_id)
    private.remember(layout, task_id, replace(before, inside=private.inside_stamp(layout, task_id, "task/aside")))
    assert "in its container" not in refusal(ask, task_id)["message"]
    (own / "refs/heads/task").mkdir(parents=True, exist_ok=True)
    (own / "refs/heads/task/aside").write_text(f"{'0' * 39}1\n")
    assert "in its container" in refusal(ask, task_id, "--discard", ALL)["message"]
    done = ask("complete-task", task_id, "--merge", "--json", check=False).json["error"]
    assert (done["code"], done["hint"]) == ("unsaved_work", f"opencode-tasks import-commits {task_id}")
    ask("cleanup-task", task_id, "--discard", f"{ALL},untaken")
    ask("cleanup-task", "--undo")
    assert (own / "refs/heads/task/aside").exists()
    ask("cleanup-task", task_id, "--discard", f"{ALL},untaken")
    monkeypatch.setenv("OPENCODE_TASKS_CLEANUP_GRACE", "1s")
    entry: Any = kept(repo, task_id)
    trash.write(layout, replace(entry, at="2001-01-01T00:00:00.000Z"))
    repo.tasks("reconcile", check=False)
    assert not own.exists()
    assert repo.git("for-each-ref", "refs/opencode-tasks").out == ""


def test_what_is_too_much_is_told(
    repo: Repo, ask: Ask, full: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, task_id = full
    monkeypatch.setattr("opencode_tasks.checkpoints.last.MOST_BYTES", 500)
    assert "too much to be kept: cache/" in ask("cleanup-task", task_id, "--discard", ALL).out
    ask("cleanup-task", "--undo")
    assert (work.top / "secret.env").read_text() == "secret\n"
    assert not (work.top / "cache").exists()


STEPS: dict[str, tuple[object, str]] = {
    "entry": (trash, "write"),
    "backup": (backup, "keep"),
    "status": (Store, "ensure_status"),
    "worktree": (repository, "remove_worktree"),
    "cleaned": (Store, "record"),
}


def die_after(owner: object, name: str) -> None:
    real = getattr(owner, name)

    def call(*args: Any, **named: Any) -> Any:
        found = real(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, call)


def only_the_reference(main: Checkout, branch: str, tip: str | None) -> None:
    plumbing.git(main, "update-ref", "-d", f"refs/heads/{branch}", str(tip))


@pytest.mark.parametrize(
    ("step", "then"),
    [
        *((step, "undo") for step in (*STEPS, "section")),
        *((step, "again") for step in ("entry", "worktree", "section")),
    ],
)
def test_killed_after_any_step_it_is_finished_or_undone(
    repo: Repo, ask: Ask, full: tuple[Repo, str], step: str, then: str
) -> None:
    work, task_id = full
    before, config = files(work.top), repo.git("config", "--get-regexp", "^branch").out
    if os.fork() == 0:
        if step == "section":  # between the branch and its section
            repository.delete_branch = only_the_reference
            die_after(repository, "delete_branch")
        else:
            die_after(*STEPS[step])
        ask("cleanup-task", task_id, "--discard", ALL, check=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    if then == "undo":
        ask("cleanup-task", "--undo")
        assert files(work.top) == before
        assert repo.git("config", "--get-regexp", "^branch").out == config
        assert ask("task-status", task_id, "--json").json["status"] == "running"
    # What was said before counts, of commits: they are the same.
    ask("cleanup-task", task_id, "--discard", ALL if then == "undo" else "uncommitted,ignored")
    assert not work.top.exists()
    assert "task/aside" not in repo.git("branch", "--list").out + repo.git("config", "--list").out
    assert repo.events(task_id)[-1]["type"] == "task.cleaned"
    ask("cleanup-task", "--undo")
    assert files(work.top) == before


@pytest.mark.parametrize(
    ("owner", "name"), [(backup, "bring_back"), (repository, "add_worktree"), (Store, "record"), (backup, "drop")]
)
def test_an_undo_that_was_killed_is_finished_by_the_next(
    repo: Repo, ask: Ask, full: tuple[Repo, str], owner: object, name: str
) -> None:
    work, task_id = full
    before, config = files(work.top), repo.git("config", "--get-regexp", "^branch").out
    ask("cleanup-task", task_id, "--discard", ALL)
    if os.fork() == 0:
        die_after(owner, name)
        ask("cleanup-task", "--undo", check=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    assert ask("cleanup-task", "--undo", "--json").json["status"] == "running"
    assert files(work.top) == before
    assert repo.git("config", "--get-regexp", "^branch").out == config
    assert kept(repo, task_id) is None
    assert len([e for e in repo.events(task_id) if e["type"] == "task.restored"]) == 1
