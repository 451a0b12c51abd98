"""Beside the real husky and lefthook, and from programs that start git without an environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_tasks.git import hooks
from tests import node
from tests.conftest import Ran, Repo, run

PACKAGES = ("husky@9.1.7", "lefthook@2.2.2")


@pytest.fixture(scope="session")
def node_modules(pytestconfig: pytest.Config) -> Path:
    return node.installed(pytestconfig, *PACKAGES)


@pytest.fixture
def project(repo: Repo, node_modules: Path) -> Repo:
    """Before `init`: a project in which either tool can be installed."""
    repo.tasks("uninstall")
    (repo.top / "node_modules").symlink_to(node_modules)
    repo.commit("a project", **{"package.json": "{}\n", ".gitignore": "node_modules\nran-*\n"})
    return repo


def husky(repo: Repo) -> None:
    """As `npm install` does it each time, by the `prepare` script."""
    run(["node_modules/.bin/husky"], cwd=repo.top, env=repo.env)


def lefthook(repo: Repo) -> None:
    """The same, by its `postinstall`."""
    run(["node_modules/.bin/lefthook", "install"], cwd=repo.top, env=repo.env)


def with_husky(repo: Repo) -> Path:
    husky(repo)
    for name in ("pre-commit", "post-checkout"):
        repo.write(f".husky/{name}", f"echo $# >>ran-{name}\n")
    # It reads what git tells, and what it says is the answer.
    repo.write(".husky/pre-push", "cat >ran-pre-push\nexit $(cat answer 2>/dev/null || echo 0)\n")
    repo.commit("with husky")
    return repo.top / ".husky" / "_"


def with_lefthook(repo: Repo) -> Path:
    jobs = {name: f"{name}:\n  jobs:\n    - run: echo x >>ran-{name}\n" for name in ("pre-commit", "post-checkout")}
    repo.write("lefthook.yml", "".join(jobs.values()))
    lefthook(repo)
    repo.commit("with lefthook", staged="x\n")
    return repo.common / "hooks"


def ran(repo: Repo) -> set[str]:
    """Which of the tool's hooks, since the last time; and of ours."""
    found = {p.name for p in repo.top.glob("ran-*")}
    for name in found:
        (repo.top / name).unlink()
    return found


def a_task(repo: Repo, name: str) -> tuple[set[str], set[str]]:
    """What a checkout and a commit started of theirs, and left behind of ours."""
    before = set(repo.ids())
    repo.git("checkout", "-q", "-b", f"task/{name}")
    repo.commit("work", **{name: "x\n"})
    ours = {"task"} if set(repo.ids()) != before else set()
    if "Task-Id:" in repo.git("log", "-1", "--format=%B").out:
        ours.add("trailer")
    return ran(repo), ours


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mode) for p in directory.iterdir()}


BOTH = ({"ran-pre-commit", "ran-post-checkout"}, {"task", "trailer"})


def is_ours(directory: Path) -> bool:
    """As `doctor` sees it."""
    return set(hooks.states(directory, sys.executable).values()) == {"current"}


def test_husky(project: Repo, tmp_path: Path) -> None:
    directory = with_husky(project)
    before = contents(directory)
    ran(project)
    project.tasks("init")
    assert a_task(project, "one") == BOTH
    project.git("init", "-q", "--bare", str(tmp_path / "remote"))
    project.git("push", "-q", str(tmp_path / "remote"), "task/one")
    assert "refs/heads/task/one" in (project.top / "ran-pre-push").read_text()
    project.write("answer", "3")
    assert project.git("push", "-q", str(tmp_path / "remote"), "HEAD:refs/heads/x", check=False).code != 0
    ran(project)
    husky(project)
    assert not is_ours(directory), "it has written its hooks over ours"
    project.tasks("init")
    assert is_ours(directory)
    assert a_task(project, "two") == BOTH
    project.tasks("uninstall")
    assert contents(directory) == before
    project.commit("theirs", again="x\n")
    assert ran(project) == {"ran-pre-commit"}


def test_husky_written_anew_and_then_uninstalled(project: Repo) -> None:
    directory = with_husky(project)
    before = contents(directory)
    project.tasks("init")
    husky(project)
    project.tasks("uninstall")
    assert contents(directory) == before


def test_lefthook(project: Repo) -> None:
    directory = with_lefthook(project)
    before = contents(directory)
    ran(project)
    project.tasks("init")
    assert a_task(project, "one") == BOTH
    lefthook(project)
    assert (directory / "pre-commit.old").exists()
    assert not is_ours(directory), "it has put ours aside, and does not call it"
    project.tasks("init")
    assert is_ours(directory)
    assert a_task(project, "two") == BOTH
    lefthook(project)
    project.tasks("uninstall")
    assert contents(directory) == before


def test_lefthook_that_comes_after_us(project: Repo) -> None:
    project.tasks("init")
    directory = with_lefthook(project)
    theirs = contents(directory)["pre-commit"]
    project.tasks("init")
    ran(project)
    assert a_task(project, "one") == BOTH
    project.tasks("uninstall")
    assert contents(directory)["pre-commit"] == theirs
    assert not [p for p in directory.iterdir() if "opencode" in p.name or p.suffix == ".old"]


@pytest.mark.parametrize("variables", [{}, {"PATH": ""}, {"PATH": "/nowhere"}, {"PATH": "/usr/bin:/bin"}])
def test_a_program_that_starts_git_without_an_environment(
    repo: Repo, variables: dict[str, str], isolated: Path
) -> None:
    """As one from a desktop's menu: no shell has ever set anything up."""
    git = shutil.which("git")
    env = {"HOME": str(isolated), "OPENCODE_TASKS_CONTAINER_AUTOSTART": "off", **variables}

    def bare(*words: str) -> Ran:
        done = subprocess.run([str(git), *words], cwd=repo.top, env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return Ran(0, done.stdout.decode(), done.stderr.decode())

    said = bare("checkout", "-q", "-b", "task/one").err
    task_id = repo.only_id()
    assert said == f"opencode-tasks: task {task_id} created\n"
    assert bare("commit", "-q", "--allow-empty", "-m", "work").err == ""
    assert task_id in repo.git("log", "-1", "--format=%B").out
    assert bare("checkout", "-q", "main").err == ""
    assert "is merged into main" in bare("merge", "-q", "--no-ff", "-m", "merge", "task/one").err
    bare("branch", "-D", "task/one")
    types = [e["type"] for e in repo.events(task_id)]
    assert types[-3:] == ["status.changed", "branch.merged", "branch.deleted"]
    assert not (repo.common / "opencode-tasks" / "errors.log").exists()


def test_without_a_home_either(repo: Repo) -> None:
    env = {name: os.environ[name] for name in ("GIT_CONFIG_NOSYSTEM",)}
    git = shutil.which("git")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    for words in (("checkout", "-q", "-b", "task/one"), ("commit", "-q", "--allow-empty", "-m", "work")):
        subprocess.run([str(git), *who, *words], cwd=repo.top, env=env, check=True, capture_output=True, timeout=60)
    assert repo.only_id() in repo.git("log", "-1", "--format=%B").out
