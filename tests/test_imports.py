"""Imports point one way, and a hook imports only what it uses."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from opencode_tasks.git_hooks import MODULES
from tests.conftest import Repo, run

_TOP = Path(__file__).parents[1]
# Each costs a hook process 14 to 100 ms.
_HEAVY = {
    *("docker", "git", "yaml", "asyncio", "requests", "rich", "filelock", "jsonlines", "tomli_w", "urllib3"),
    *("blake3", "pyfastcdc", "zstandard", "concurrent.futures"),
    *("http.client", "email", "ssl", "argparse", "markdown_it"),
}
_HOT = ["opencode_tasks.git_hooks.entry", *(f"opencode_tasks.git_hooks.{m}" for m in MODULES.values())]


def test_the_contracts_hold() -> None:
    done = run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=_TOP, check=False)
    assert done.code == 0, done.out
    assert "0 broken" in done.out
    assert not re.search(r"Contracts: 0 kept", done.out)


def test_what_must_be_absent_exists() -> None:
    names = ("docker", "git", "yaml", "requests", "rich", "filelock", "jsonlines", "tomli_w", "markdown_it")
    for name in (*names, "blake3", "pyfastcdc", "zstandard"):
        assert find_spec(name) is not None, f"{name} is not installed: its absence would prove nothing"


@pytest.mark.parametrize("module", _HOT)
def test_a_hook_module_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(run([sys.executable, "-I", "-c", script], cwd=tmp_path).out))
    assert module in loaded
    assert not _HEAVY & loaded


def _imported(repo: Repo, *hook: str) -> set[str]:
    command = [sys.executable, "-I", "-X", "importtime", "-m", "opencode_tasks.git_hooks", *hook]
    said = run(command, cwd=repo.top, env=repo.env).err
    return set(re.findall(r"^import time:.*\| +(\S+)$", said, re.MULTILINE))


def _statuses(repo: Repo, task_id: str) -> list[str]:
    return [e["data"]["to"] for e in repo.events(task_id) if e["type"] == "status.changed"]


def test_a_hook_at_work_imports_nothing_heavy(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/hot")
    repo.git("checkout", "--quiet", "main", env={"OPENCODE_TASKS_HOOKS": "off"})
    pausing = _imported(repo, "post-checkout", "0" * 40, "1" * 40, "1")
    (task_id,) = repo.ids()
    assert _statuses(repo, task_id)[-1] == "paused"
    repo.git("checkout", "--quiet", "task/hot", env={"OPENCODE_TASKS_HOOKS": "off"})
    resuming = _imported(repo, "post-checkout", "0" * 40, "1" * 40, "1")
    assert _statuses(repo, task_id)[-1] == "running"
    message = repo.write("message", "Subject\n")
    trailing = _imported(repo, "prepare-commit-msg", str(message), "message")
    assert f"Task-Id: {task_id}" in message.read_text()
    (repo.store / task_id / "plan.md").write_text("- [ ] Nothing like the subject\n")
    recording = _imported(repo, "post-commit")
    assert "commit.recorded" in [e["type"] for e in repo.events(task_id)]
    for imported in (pausing, resuming, trailing, recording):
        assert "opencode_tasks.store.registry" in imported
        assert not _HEAVY & imported


def test_create_task_loads_nothing_heavy(repo: Repo) -> None:
    """And git writes the files before what only follows them is loaded."""
    command = [sys.executable, "-I", "-X", "importtime", "-m", "opencode_tasks", "create-task", "aside", "--worktree"]
    env = {**repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "off"}
    imported = re.findall(r"^import time:.*\| +(\S+)$", run(command, cwd=repo.top, env=env).err, re.MULTILINE)
    assert not (_HEAVY - {"argparse"}) & set(imported)
    assert "sqlite3" not in imported
    started = imported.index("subprocess")
    assert {"opencode_tasks.commands.created", "opencode_tasks.decisions"} <= set(imported[started:])
