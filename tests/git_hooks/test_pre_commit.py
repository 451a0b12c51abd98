"""What pre-commit refuses, what it only tells, and that it costs nothing where neither is the case."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Ran, Repo
from tests.git_hooks.test_shims import Tracer


def commit(repo: Repo, *more: str, env: dict[str, str] | None = None) -> Ran:
    return repo.git("commit", "-q", "--allow-empty", "-m", "x", *more, check=False, env=env or {})


def with_settings(repo: Repo, text: str) -> None:
    repo.write(".opencode/tasks.toml", text)
    repo.commit("settings")
    repo.tasks("init")


def test_an_ordinary_commit_starts_no_python(task_repo: Repo, tmp_path: Path) -> None:
    tracer = Tracer(task_repo, tmp_path)
    for name in ("a", "with space", "grüße", ".vscodes", "x/.envrc", "opencode.json5"):
        task_repo.write(name, "x\n")
        task_repo.git("add", "--all")
        assert commit(task_repo).code == 0
        assert tracer.take() == ["prepare-commit-msg", "post-commit"], name


@pytest.mark.parametrize("name", [".envrc", ".vscode/tasks.json", "opencode.jsonc", ".opencode/plugin/x.js"])
def test_a_person_is_told_of_what_programs_obey_and_an_agent_is_refused(task_repo: Repo, name: str) -> None:
    task_repo.write(name, "x\n")
    task_repo.git("add", "--force", name)
    refused = commit(task_repo, env={"OPENCODE_PID": "1"})
    assert refused.code == 1
    assert f"refused: {name}: programs on your machine" in refused.err
    told = commit(task_repo)
    assert told.code == 0
    assert f"opencode-tasks: {name}: programs on your machine" in told.err
    # To take it out is no danger.
    task_repo.git("rm", "-q", name)
    gone = commit(task_repo, env={"OPENCODE_PID": "1"})
    assert (gone.code, gone.err) == (0, "")


@pytest.mark.parametrize("how", [["--all"], ["--", ".envrc"], ["--include", ".envrc"]])
def test_what_git_puts_into_an_index_of_its_own_is_seen_too(task_repo: Repo, how: list[str]) -> None:
    task_repo.commit("with", **{".envrc": "ours\n", "other": "x\n"})
    task_repo.write(".envrc", "evil\n")
    task_repo.write("other", "y\n")
    assert task_repo.git("commit", "-q", "-m", "x", "--", "other", check=False, env={"OPENCODE_PID": "1"}).code == 0
    ran = task_repo.git("commit", "-q", "-m", "x", *how, check=False, env={"OPENCODE_PID": "1"})
    assert ran.code == 1
    assert "refused: .envrc" in ran.err


@pytest.mark.parametrize("program", ["exit 1", "exit 2", "kill -KILL $$", "echo no module >&2; exit 1", None])
def test_that_we_fail_refuses_nothing(task_repo: Repo, program: str | None) -> None:
    shared = task_repo.common / "hooks" / "opencode-tasks.sh"
    broken = task_repo.top.parent / "python"
    if program is not None:
        broken.write_text(f"#!/bin/sh\n{program}\n")
        broken.chmod(0o755)
    lines = shared.read_text().splitlines(keepends=True)
    shared.write_text("".join(f"python='{broken}'\n" if line.startswith("python=") else line for line in lines))
    task_repo.write(".envrc", "x\n")
    task_repo.git("add", "--all")
    assert commit(task_repo, env={"OPENCODE_PID": "1"}).code == 0


def test_no_commit_has_the_memory(task_repo: Repo) -> None:
    task_repo.git("add", "--force", ".tasks")
    ran = commit(task_repo)
    assert ran.code == 1
    assert "git rm -r --cached .tasks" in ran.err
    assert commit(task_repo, "--no-verify").code == 0


@pytest.mark.parametrize(
    ("leads", "is_told"),
    [("../x", True), ("/etc/passwd", True), ("../../x", True), ("a/../../../x", True), ("a", False), ("a/b", False)],
)
def test_links_that_lead_out(task_repo: Repo, leads: str, is_told: bool) -> None:
    (task_repo.top / "link").symlink_to(leads)
    task_repo.git("add", "link")
    ran = commit(task_repo)
    assert ran.code == 0
    assert ("a link that leads out" in ran.err) == is_told


def test_a_nested_repository_and_a_name_that_steers_a_terminal(task_repo: Repo) -> None:
    nested = task_repo.top / "nested\x1b[2J"
    subprocess.run(["git", "init", "-q", nested], check=True)
    subprocess.run(["git", "-C", nested, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    task_repo.git("-c", "advice.addEmbeddedRepo=false", "add", "--all")
    ran = commit(task_repo)
    assert "nested\\x1b[2J is a repository of its own" in ran.err
    assert "\x1b" not in ran.err


def test_many_are_told_briefly(task_repo: Repo) -> None:
    for n in range(9):
        task_repo.write(f".vscode/{n}", "")
    task_repo.git("add", "--all")
    lines = commit(task_repo).err.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "opencode-tasks: and 4 more like these"


def test_branches_on_which_nothing_is_committed(repo: Repo) -> None:
    with_settings(repo, "[branch]\nprotected = [\"main\"]\npattern = 'task/[a-z-]+|main|release'\n")
    ran = commit(repo)
    assert ran.code == 1
    assert "main is protected" in ran.err
    assert "git switch -c task/<name>" in ran.err
    repo.git("checkout", "-q", "-b", "task/good-name")
    assert commit(repo).code == 0
    repo.git("branch", "-q", "-m", "task/Bad")
    ran = commit(repo)
    assert ran.code == 1
    assert "task/Bad does not match" in ran.err
    repo.git("checkout", "-q", "-b", "elsewhere")
    assert commit(repo).code == 1
    assert commit(repo, env={"OPENCODE_TASKS_HOOKS": "off"}).code == 0


def test_a_pattern_that_is_none_is_told_and_stops_nobody(repo: Repo) -> None:
    with_settings(repo, "[branch]\npattern = 'main'\n")
    repo.write(".opencode/tasks.toml", "[branch]\npattern = '('\n")
    ran = commit(repo)
    assert ran.code == 0
    assert "is no regular expression" in ran.err


def test_an_agent_that_lost_its_lease_commits_no_more(task_repo: Repo) -> None:
    def attach(agent: str, *more: str) -> str:
        token: str = task_repo.tasks("attach", "--agent", agent, "--json", *more).json["lease"]["token"]
        return token

    first = attach("one")
    assert commit(task_repo, env={"OPENCODE_TASKS_LEASE": first}).code == 0
    second = attach("two", "--take-over")
    ran = commit(task_repo, env={"OPENCODE_TASKS_LEASE": first})
    assert ran.code == 1
    assert "two" in ran.err
    assert commit(task_repo, env={"OPENCODE_TASKS_LEASE": second}).code == 0
    assert commit(task_repo).code == 0
