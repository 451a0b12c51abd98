"""The same hooks carried by the real pre-commit, from this repository, and ours beside other tools' hooks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from opencode_tasks.git_hooks import MODULES, carried
from tests.conftest import Repo, run

SOURCE = Path(__file__).parents[2]
HOOKS = yaml.safe_load((SOURCE / ".pre-commit-hooks.yaml").read_text())
# pre-commit does not know it.
NOT_CARRIED = {"reference-transaction"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository as it is now, as a commit: pre-commit takes nothing else."""
    top = tmp_path_factory.mktemp("source") / "opencode-tasks"
    listed = subprocess.run(
        ["git", "-C", SOURCE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / name).is_file():
            shutil.copy(SOURCE / name, path)
    who = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    for words in (("init", "-q"), ("add", "--all"), (*who, "commit", "-q", "-m", "now")):
        subprocess.run(["git", *who, *words], cwd=top, check=True)
    return top


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pre-commit keeps the environments that it makes."""
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def project(repo: Repo, cache: Path) -> Repo:
    repo.env.update({"PRE_COMMIT_HOME": str(cache), "OPENCODE_TASKS_CONTAINER_AUTOSTART": "off"})
    return repo


def use(repo: Repo, source: Path, *names: str) -> None:
    rev = run(["git", "-C", source, "rev-parse", "HEAD"], cwd=source).out.strip()
    ids = [{"id": f"opencode-tasks-{name}"} for name in names]
    repo.write(".pre-commit-config.yaml", yaml.safe_dump({"repos": [{"repo": str(source), "rev": rev, "hooks": ids}]}))
    repo.git("add", ".pre-commit-config.yaml")
    stages = [word for name in names for word in ("--hook-type", name)]
    run(["pre-commit", "install", "--install-hooks", *stages], cwd=repo.top, env=repo.env, timeout_s=170)


def test_every_hook_that_can_be_is_carried() -> None:
    stages = [stage for hook in HOOKS for stage in hook["stages"]]
    assert sorted(stages) == sorted(set(MODULES) - NOT_CARRIED)
    for hook in HOOKS:
        assert hook["id"] == f"opencode-tasks-{hook['stages'][0]}"
        assert hook["entry"] == f"opencode-tasks-hook {hook['stages'][0]}"
        takes_message = hook["stages"][0] in ("commit-msg", "prepare-commit-msg")
        assert hook.get("pass_filenames", True) == takes_message


@pytest.mark.timeout(300)
def test_a_day_with_pre_commit_alone(project: Repo, source: Path, tmp_path: Path) -> None:
    project.tasks("uninstall")
    shutil.copytree(project.top / ".git", tmp_path / "before")
    project.tasks("init")
    # The store is there; the shims are not: pre-commit carries all that there is.
    for name in (*MODULES, "opencode-tasks.sh"):
        (project.common / "hooks" / name).unlink()
    use(project, source, *(set(MODULES) - NOT_CARRIED))
    project.git("commit", "-q", "-m", "with pre-commit")
    project.git("checkout", "-q", "-b", "task/one")
    task_id = project.only_id()
    first = project.commit("work", a="x\n")
    assert project.git("log", "-1", "--format=%(trailers:key=Task-Id,valueonly)").out.strip() == task_id
    project.git("checkout", "-q", "main")
    assert project.tasks("task-status", task_id, "--json").json["status"] == "paused"
    project.commit("main's", b="x\n")
    project.git("checkout", "-q", "task/one")
    project.git("rebase", "-q", "main")
    rebased = project.git("rev-parse", "HEAD").out.strip()
    by_type = {e["type"]: e["data"] for e in project.events(task_id)}
    assert by_type["commit.recorded"]["sha"] == first
    assert by_type["commit.rewritten"]["rewritten"] == [[first, rebased]]
    project.write(".envrc", "x\n")
    project.git("add", ".envrc")
    refused = project.git("commit", "-m", "x", check=False, env={"OPENCODE_PID": "1"})
    assert refused.code == 1
    assert "refused: .envrc" in refused.out + refused.err
    project.git("reset", "-q", "--hard")
    project.git("checkout", "-q", "main")
    project.git("merge", "-q", "task/one")
    assert [e["data"]["into"] for e in project.events(task_id) if e["type"] == "branch.merged"] == ["main"]


@pytest.mark.timeout(300)
def test_both_together_do_nothing_twice(project: Repo, source: Path) -> None:
    use(project, source, "post-checkout", "post-commit", "pre-commit")
    project.git("commit", "-q", "-m", "with pre-commit")
    project.git("checkout", "-q", "-b", "task/one")
    project.commit("work", a="x\n")
    types = [e["type"] for e in project.events(project.only_id())]
    assert types.count("commit.recorded") == 1
    assert types.count("status.changed") == 1
    project.tasks("uninstall")
    assert "pre-commit" in (project.common / "hooks" / "post-commit").read_text()
    project.commit("goes on", b="x\n")


@pytest.mark.timeout(300)
def test_try_repo_and_run(project: Repo, source: Path) -> None:
    project.git("checkout", "-q", "-b", "task/one")
    tried = run(
        ["pre-commit", "try-repo", source, "opencode-tasks-pre-commit", "--all-files", "--verbose"],
        cwd=project.top,
        env=project.env,
        timeout_s=170,
    )
    assert "Passed" in tried.out
    use(project, source, "pre-commit")
    ran = run(["pre-commit", "run", "--all-files"], cwd=project.top, env=project.env)
    assert "opencode-tasks pre-commit" in ran.out


def test_what_variables_say_becomes_what_git_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRE_COMMIT_COMMIT_MSG_SOURCE", "message")
    monkeypatch.setenv("PRE_COMMIT_COMMIT_OBJECT_NAME", "")
    assert carried.arguments("prepare-commit-msg", [".git/COMMIT_EDITMSG"]) == [".git/COMMIT_EDITMSG", "message"]
    assert carried.arguments("post-commit", []) == []


def test_a_hook_that_there_is_not(project: Repo) -> None:
    ran = run(["opencode-tasks-hook", "no-such"], cwd=project.top, check=False)
    assert ran.code == 2
    assert "post-checkout" in ran.err
