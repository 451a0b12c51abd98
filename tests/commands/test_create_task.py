"""`create-task`: a whole task or nothing, wherever it is called and whatever interrupts it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repo, run

MakeRepo = Callable[..., Repo]


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def create(repo: Repo, *words: str) -> dict[str, Any]:
    made: dict[str, Any] = repo.tasks("create-task", "--json", *words).json
    return made


def refused(repo: Repo, *words: str, code: int = 1, cwd: Path | None = None) -> dict[str, str]:
    """The error; nothing may have been made."""
    before = (repo.ids() if repo.store.exists() else [], branches(repo), repo.git("status", "--porcelain").out)
    done = repo.tasks("create-task", "--json", *words, check=False, cwd=cwd)
    assert done.code == code, done
    error: dict[str, str] = done.json["error"]
    assert error["hint"]
    assert (repo.ids() if repo.store.exists() else [], branches(repo), repo.git("status", "--porcelain").out) == before
    return error


def branches(repo: Repo) -> list[str]:
    return repo.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").out.splitlines()


def whole(repo: Repo) -> None:
    """Every task branch has its task, every open task its branch, and nothing is half-made."""
    assert [p.name for p in repo.store.iterdir() if p.name.startswith(".new-")] == []
    listed = repo.tasks("list-tasks", "--json").json["tasks"]
    assert sorted(t["branch"] for t in listed) == sorted(b for b in branches(repo) if b.startswith("task/"))
    for task in listed:
        assert repo.git("config", f"branch.{task['branch']}.opencodetask").out.strip() == task["id"]
        assert task["status"] in ("running", "paused")
    assert not (repo.common / "index.lock").exists()


TITLES = [
    ("Fix the parser", "task/fix-the-parser"),
    ("  Ünïcödé — Titel ", "task/unicode-titel"),
    ("日本語", "task/task"),
    ("a/../b\n$(touch x)`;", "task/a-b-touch-x"),
    ("--help me", "task/help-me"),
]


def test_a_title_becomes_a_task(repo: Repo) -> None:
    for title, branch in TITLES:
        made: dict[str, Any] = repo.tasks("create-task", "--json", "--", title).json
        assert (made["title"], made["branch"], made["status"]) == (title.strip(), branch, "running")
        assert repo.branch == branch
        repo.git("checkout", "-q", "main")
    whole(repo)


def test_names_that_are_taken_get_a_number(repo: Repo) -> None:
    repo.git("branch", "Task/Same")
    assert [create(repo, "same")["branch"] for _ in range(2)] == ["task/same-2", "task/same-3"]
    whole(repo)


REFUSED: list[tuple[list[str], int, str]] = [
    (["x", "--branch", "main"], 1, "branch_exists"),
    (["x", "--branch", "MAIN"], 1, "branch_exists"),
    (["x", "--branch", "a..b"], 2, "usage"),
    (["x", "--branch", "with space"], 2, "usage"),
    (["x", "--branch", ""], 2, "usage"),
    (["x", "--branch=-x"], 2, "usage"),
    (["x", "--branch", "HEAD"], 2, "usage"),
    (["x", "--branch", "@{-1}"], 2, "usage"),
    (["x", "--branch", "main/below"], 1, "git"),
    (["x", "--from", "nowhere"], 1, "no_revision"),
    (["x", "--from", ""], 1, "no_revision"),
    (["x", "--from=--output=planted"], 1, "no_revision"),
    (["x", "--from", "HEAD:README.md"], 1, "no_revision"),
    ([" \n"], 2, "usage"),
    ([], 2, "usage"),
    (["x", "y"], 2, "usage"),
    (["x", "--worktree", "--branch", "main/below"], 1, "git"),
]


def test_refusals(repo: Repo) -> None:
    for words, exit_code, code in REFUSED:
        assert refused(repo, *words, code=exit_code)["code"] == code, words
    assert repo.branch == "main"
    assert not (repo.top.parent / f"{repo.top.name}.worktrees").exists()


def test_from_another_revision(repo: Repo) -> None:
    repo.git("tag", "start", "HEAD~1")
    old = repo.git("rev-parse", "start").out.strip()
    assert create(repo, "x", "--from", "start")["base"] == {"branch": None, "commit": old}
    assert repo.git("rev-parse", "HEAD").out.strip() == old
    assert create(repo, "y", "--from", "main")["base"]["branch"] == "main"


def test_changes_that_git_would_overwrite_stop_it(repo: Repo) -> None:
    repo.git("branch", "older")
    repo.commit("newer", **{"README.md": "newer\n"})
    repo.write("README.md", "not committed\n")
    assert refused(repo, "x", "--from", "older")["code"] == "git"
    assert (repo.top / "README.md").read_text() == "not committed\n"
    made = create(repo, "y")
    assert made["base"]["branch"] == "main"
    assert (repo.top / "README.md").read_text() == "not committed\n"


def test_a_worktree(repo: Repo) -> None:
    made = create(repo, "side by side", "--worktree", "--branch", "feature/side")
    path = repo.top.parent / "repo.worktrees" / made["id"]
    assert made["workspace"] == {"kind": "worktree", "path": str(path)}
    assert repo.branch == "main"
    assert (path / ".tasks" / made["id"]).is_dir()
    assert repo.tasks("task-status", "--json", cwd=path).json["id"] == made["id"]
    inner = repo.tasks("create-task", "--json", "--worktree", "nested", cwd=path).json
    assert inner["workspace"]["path"] == str(path.parent / inner["id"])
    assert inner["base"]["branch"] == "feature/side"


def test_no_commits_yet(make_repo: MakeRepo) -> None:
    repo = make_repo(commits=False)
    repo.tasks("init")
    assert refused(repo, "x")["code"] == "no_commits"
    assert repo.git("symbolic-ref", "HEAD").out == "refs/heads/main\n"


def test_a_detached_head(repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach")
    assert create(repo, "x")["base"]["branch"] is None


def test_not_initialised(make_repo: MakeRepo) -> None:
    error = refused(make_repo(), "x")
    assert (error["code"], error["hint"]) == ("not_initialised", "opencode-tasks init")


def test_wrong_places(repo: Repo, tmp_path: Path) -> None:
    run(["git", "init", "-q", "--bare", "bare.git"], cwd=tmp_path)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / ".git").write_text("gitdir: /gone\n")
    (tmp_path / "none").mkdir()
    for cwd, code in (
        (tmp_path / "bare.git", "bare_repository"),
        (repo.top / ".git", "bare_repository"),
        (tmp_path / "nowhere", "not_a_repository"),
        (tmp_path / "none", "not_a_repository"),
    ):
        assert refused(repo, "x", cwd=cwd)["code"] == code, cwd


def test_a_current_directory_that_is_gone(repo: Repo) -> None:
    done = run(
        ["sh", "-c", "mkdir gone && cd gone && rmdir ../gone && opencode-tasks create-task x"],
        cwd=repo.top,
        check=False,
    )
    assert done.code == 1
    assert "current directory is gone" in done.err
    assert "cd to" in done.err


@pytest.mark.parametrize("name", ["with space", "new\nline", "grüße", "co:lon"])
def test_any_path(make_repo: MakeRepo, name: str) -> None:
    repo = make_repo(name)
    repo.tasks("init")
    assert create(repo, "in place")["workspace"]["path"] == str(repo.top)
    made = create(repo, "aside", "--worktree")
    assert Path(made["workspace"]["path"]).parent == repo.top.parent / f"{name}.worktrees"
    whole(repo)


def test_from_a_subfolder_an_alias_and_a_hooks_environment(repo: Repo) -> None:
    repo.write("sub/file", "x")
    repo.commit("sub")
    repo.git("config", "alias.task", "!opencode-tasks create-task --json")
    run(["git", "task", "aliased"], cwd=repo.top / "sub", env=repo.env)
    env = {"GIT_DIR": str(repo.common), "GIT_INDEX_FILE": str(repo.common / "index"), "GIT_PREFIX": "sub/"}
    run(["opencode-tasks", "create-task", "hooked"], cwd=repo.top, env={**repo.env, **env})
    assert sorted(b for b in branches(repo) if b.startswith("task/")) == ["task/aliased", "task/hooked"]
    whole(repo)


def test_a_worktree_of_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    run(["git", "worktree", "add", "-q", str(tmp_path / "main"), "main"], cwd=tmp_path / "bare.git")
    work = Repo(tmp_path / "main", repo.env)
    work.tasks("init")
    made = create(work, "aside", "--worktree")
    assert work.tasks("cleanup-task", made["id"]).code == 0
    assert "task/aside" not in branches(work)


def test_the_users_own_failing_hook_does_not_undo_what_git_did(repo: Repo) -> None:
    hook = repo.common / "hooks" / "post-checkout.before-opencode-tasks"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    assert create(repo, "x")["branch"] == "task/x"
    assert create(repo, "y", "--worktree")["branch"] == "task/y"
    whole(repo)


def together(repo: Repo, commands: list[list[str]]) -> list[int]:
    started = [
        subprocess.Popen(
            ["opencode-tasks", "create-task", *words],
            cwd=repo.top,
            env={**os.environ, **repo.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words in commands
    ]
    return [p.wait(timeout=60) for p in started]


def test_two_at_once_in_one_checkout(repo: Repo) -> None:
    for n in range(3):
        codes = together(repo, [[f"left {n}"], [f"right {n}"], ["same"], ["same"]])
        assert codes == [0, 0, 0, 0]
        for side in ("left", "right"):
            made = repo.tasks("task-status", f"task/{side}-{n}", "--json").json
            assert made["title"] == f"{side} {n}"
    whole(repo)
    assert len(repo.ids()) == 12
    running = repo.tasks("list-tasks", "--status", "running", "--json").json["tasks"]
    assert [t["branch"] for t in running] == [repo.branch]


def test_six_at_once_with_worktrees(repo: Repo) -> None:
    assert together(repo, [["--worktree", f"n{n % 3}"] for n in range(6)]) == [0] * 6
    whole(repo)
    listed = repo.tasks("list-tasks", "--json").json["tasks"]
    assert sorted(t["branch"] for t in listed) == [f"task/n{n}{s}" for n in range(3) for s in ("", "-2")]
    assert len({t["workspace"]["path"] for t in listed}) == 6
    assert all(t["status"] == "running" for t in listed)


@pytest.mark.parametrize("number", ["INT", "TERM"])
@pytest.mark.parametrize("whom", ["0", "$PPID"])
def test_interrupted_while_git_writes_the_files(repo: Repo, number: str, whom: str) -> None:
    """By a filter that git runs on its way: all (as Ctrl-C does) or git alone is ended there."""
    for name in ("folder/both", "folder/only-older", "link/was-a-folder", "same", "zfiltered"):
        repo.write(name, "old\n")
    repo.commit("older")
    repo.git("branch", "older")
    repo.git("rm", "-rq", "link", "folder/only-older")
    (repo.top / "link").symlink_to("folder")
    for name in ("folder/both", "new/only-newer", "zfiltered"):
        repo.write(name, "new\n")
    repo.commit("newer")
    repo.write("same", "by hand\n")
    repo.write("untracked", "by hand\n")
    (repo.common / "info" / "attributes").write_text("zfiltered filter=ending\n")
    repo.git("config", "filter.ending.smudge", f"kill -{number} {whom}; sleep 1; cat")
    done = subprocess.run(
        ["opencode-tasks", "create-task", "attempt", "--from", "older"],
        cwd=repo.top,
        env={**os.environ, **repo.env},
        capture_output=True,
        start_new_session=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    repo.git("config", "--unset", "filter.ending.smudge")
    assert repo.git("status", "--porcelain").out == " M same\n?? untracked\n"
    assert (repo.top / "same").read_text() == "by hand\n"
    assert (repo.top / "link").is_symlink()
    assert not (repo.top / "folder" / "only-older").exists()
    assert "task/attempt" not in branches(repo)
    assert repo.tasks("list-tasks", "--json").json["tasks"] == []
    whole(repo)


@pytest.mark.parametrize("state", ["prepared", "committed"])
def test_interrupted_between_index_and_head(repo: Repo, state: str) -> None:
    """Git has written all files and the index by then, and is ended before or after it makes the branch."""
    repo.write("same", "old\n")
    repo.write("only-older", "old\n")
    repo.commit("older")
    repo.git("branch", "older")
    repo.git("rm", "-q", "only-older")
    repo.write("same", "new\n")
    repo.write("only-newer", "new\n")
    repo.commit("newer")
    hook = repo.common / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\n[ $1 = {state} ] && grep -q task/attempt && kill -TERM $PPID && sleep 1\nexit 0\n")
    hook.chmod(0o755)
    assert repo.tasks("create-task", "attempt", "--from", "older", check=False).code == 1
    hook.unlink()
    assert repo.git("status", "--porcelain").out == ""
    assert not (repo.top / "only-older").exists()
    assert (repo.top / "same").read_text() == (repo.top / "only-newer").read_text() == "new\n"
    assert repo.branch == "main"
    assert "task/attempt" not in branches(repo)
    whole(repo)


@pytest.mark.parametrize("words", [[], ["--worktree"], ["--from", "older"]])
def test_interrupted_at_any_moment(repo: Repo, words: list[str]) -> None:
    repo.git("branch", "older")
    for n in range(30):
        repo.write(f"many/{n}", "x\n" * 1000)
    repo.commit("newer")
    worktrees = repo.top.parent / "repo.worktrees"
    outcomes = set()
    for step in range(6):
        number = (signal.SIGINT, signal.SIGTERM)[step % 2]
        process = subprocess.Popen(
            ["opencode-tasks", "create-task", f"attempt {step}", *words],
            cwd=repo.top,
            env={**os.environ, **repo.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Spread over the work after the imports; the last ones may come too late.
        time.sleep(0.08 + 0.05 * step)
        os.killpg(process.pid, number)
        outcomes.add(process.wait(timeout=30))
        made = [t["title"] for t in repo.tasks("list-tasks", "--json").json["tasks"]]
        assert (f"task/attempt-{step}" in branches(repo)) == (f"attempt {step}" in made)
        whole(repo)
        assert repo.git("status", "--porcelain").out == ""
        if worktrees.exists():
            assert {p.name for p in worktrees.iterdir()} <= set(repo.ids())
        repo.git("checkout", "-q", "main")
    # 1: git, which gets the signal too, ended before we heard of it.
    assert outcomes <= {0, 1, 130, -signal.SIGINT, -signal.SIGTERM}


def test_the_name_of_a_deleted_branch_whose_task_is_open_goes_to_the_new_one(repo: Repo) -> None:
    first = create(repo, "again", "--worktree")
    repo.git("worktree", "remove", first["workspace"]["path"])
    repo.git("branch", "-D", first["branch"])
    second = create(repo, "again", "--worktree")
    assert (second["branch"], second["status"]) == ("task/again", "running")
    assert second["id"] != first["id"]
    assert repo.tasks("task-status", "task/again", "--json").json["id"] == second["id"]
    assert repo.tasks("task-status", first["id"], "--json").json["workspace"] == first["workspace"]
