import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks import __version__, cli
from opencode_tasks.commands import MODULES
from opencode_tasks.store import Store
from tests.conftest import Repo, run


def _error(repo: Repo, *args: str) -> tuple[int, dict[str, Any]]:
    ran = repo.tasks(*args, check=False)
    assert "Traceback" not in ran.err
    assert list(ran.json) == ["error"]
    assert list(ran.json["error"]) == ["code", "message", "hint"]
    return ran.code, ran.json["error"]


def _shell(repo: Repo, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=repo.top,
        env={**os.environ, **repo.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("argv", [["--version"], ["-V"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"opencode-tasks {__version__}\n"


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code in ((["--help"], 0), (["-h"], 0), (["help"], 0), ([], 2)):
        assert cli.main(argv) == code
        said = capsys.readouterr().out
        assert re.findall(r"^  ([a-z-]+) {2,}\S", said, re.MULTILINE) == list(MODULES)


@pytest.mark.parametrize("name", list(MODULES))
def test_every_command_has_help(name: str, tmp_path: Path) -> None:
    """In a new interpreter, where nothing but what it needs is imported."""
    said = run([sys.executable, "-I", "-m", "opencode_tasks", name, "--help"], cwd=tmp_path)
    assert f"usage: opencode-tasks {name}" in said.out
    assert "--json" in said.out
    assert said.err == ""


_USAGE = [
    (["bogus"], "no command 'bogus'", "--help"),
    (["list-task"], "no command 'list-task'", "did you mean list-tasks?"),
    (["chekpoint"], "no command", "did you mean checkpoint?"),
    (["LIST-TASKS"], "no command", "--help"),
    (["../init"], "no command", ""),
    (["list-tasks", "--bogus"], "--bogus", "list-tasks --help"),
    (["list-tasks", "--stat", "running"], "--stat", "list-tasks --help"),
    (["list-tasks", "--status", "asleep"], "asleep", "list-tasks --help"),
    (["list-tasks", "--limit", "0"], "--limit", "list-tasks --help"),
    (["list-tasks", "--limit", "many"], "many", "list-tasks --help"),
    (["list-tasks", "--cursor", "nowhere"], "nowhere", "`next` of the page before"),
    (["create-task"], "title", "create-task --help"),
    (["create-task", "  "], "title is empty", "create-task"),
    (["create-task", "x", "--branch", "a..b"], "not a branch name", "check-ref-format"),
    (["exec"], "no command", "exec -- COMMAND"),
    (["exec", "--"], "no command", "exec -- COMMAND"),
]


@pytest.mark.parametrize(("args", "said", "next_step"), _USAGE)
def test_usage_errors(repo: Repo, args: list[str], said: str, next_step: str) -> None:
    name, *rest = args
    code, error = _error(repo, name, "--json", *rest)
    assert (code, error["code"]) == (2, "usage")
    assert said in error["message"]
    assert error["hint"]
    assert next_step in error["hint"]
    assert repo.ids() == []
    assert repo.git("branch", "--format=%(refname:short)").out.split() == ["main"]


def test_failures(repo: Repo, make_repo: Callable[..., Repo], tmp_path: Path) -> None:
    outside = Repo(tmp_path / "nothing")
    outside.top.mkdir()
    fresh = make_repo("fresh")
    for where, args, code in (
        (outside, ["list-tasks"], "not_a_repository"),
        (outside, ["init"], "not_a_repository"),
        (fresh, ["list-tasks"], "not_initialised"),
        (repo, ["task-status"], "no_task"),
        (repo, ["task-status", "absent"], "no_task"),
        (repo, ["create-task", "x", "--from", "absent"], "no_revision"),
    ):
        exit_code, error = _error(where, args[0], "--json", *args[1:])
        assert (exit_code, error["code"]) == (1, code)
        assert error["message"]
        assert error["hint"]
    assert list(outside.top.iterdir()) == []
    assert not (fresh.common / "opencode-tasks").exists()


def test_a_failure_without_json_goes_to_stderr_alone(repo: Repo) -> None:
    ran = repo.tasks("task-status", "absent", check=False)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "opencode-tasks: There is no task 'absent'\n  opencode-tasks list-tasks\n"


def test_json_behind_two_dashes_is_not_ours(repo: Repo) -> None:
    ran = repo.tasks("exec", "--", "ls", "--json", check=False)
    assert (ran.code, ran.out) == (1, "")
    assert "main has no task" in ran.err


_BUG = """
import sys
from opencode_tasks import cli
from opencode_tasks.commands import list_tasks
def broken(args):
    raise ZeroDivisionError("the bug itself")
list_tasks.run = broken
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_bug_of_ours_is_3_and_logged_beside_the_store(repo: Repo) -> None:
    ran = run([sys.executable, "-c", _BUG, "list-tasks", "--json"], cwd=repo.top, check=False)
    log = repo.common / "opencode-tasks" / "errors.log"
    assert (ran.code, ran.json["error"]["code"]) == (3, "bug")
    assert str(log) in ran.json["error"]["hint"]
    assert "ZeroDivisionError: the bug itself" in log.read_text()
    assert ran.err == ""


def test_a_bug_outside_a_repository_is_logged_at_home_or_shown(tmp_path: Path) -> None:
    ran = run([sys.executable, "-c", _BUG, "list-tasks"], cwd=tmp_path, check=False)
    assert (ran.code, ran.out) == (3, "")
    assert "bug of opencode-tasks" in ran.err
    elsewhere = {"HOME": str(tmp_path / "no" / "home")}
    ran = run([sys.executable, "-c", _BUG, "list-tasks"], cwd=tmp_path, check=False, env=elsewhere)
    assert ran.code == 3
    assert "ZeroDivisionError: the bug itself" in ran.err


def test_ctrl_c_is_130(repo: Repo) -> None:
    # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
    restore = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-X", "importtime", "-m", "opencode_tasks", "init"]
    with (repo.common / "opencode-tasks" / "locks" / "registry.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", restore, *command],
            cwd=repo.top,
            env={**os.environ, **repo.env},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        # It imports this to wait for the lock that we hold.
        for line in process.stderr:
            if re.search(r"\| +filelock$", line):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "opencode-tasks: interrupted" in err
    assert "Traceback" not in err
    assert "Nothing to do" in repo.tasks("init").out


@pytest.fixture
def long_history(repo: Repo) -> str:
    repo.git("checkout", "--quiet", "-b", "task/long")
    task_id = repo.only_id()
    notes = [("note.added", {"text": "x" * 1000}) for _ in range(300)]
    Store(repo.common).record(task_id, *notes, actor="test")
    return task_id


@pytest.mark.parametrize("how", ["", "--json", "--jsonl"])
def test_a_reader_that_has_seen_enough(repo: Repo, long_history: str, how: str) -> None:
    done = _shell(repo, f"opencode-tasks task-history {how} | head -c 100; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141
    assert len(done.stdout) == 100
    assert done.stderr == ""


@pytest.mark.parametrize("args", ["list-tasks", "bogus --json", "list-tasks --json", "--help"])
def test_a_reader_that_is_gone_already(repo: Repo, args: str) -> None:
    done = _shell(repo, f"{{ sleep 0.3; opencode-tasks {args}; }} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("args", ["list-tasks", "list-tasks --json", "task-history --jsonl", "bogus --json", "--help"])
def test_an_output_that_cannot_be_written(repo: Repo, long_history: str, args: str) -> None:
    done = _shell(repo, f"opencode-tasks {args} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "opencode-tasks: the output could not be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(repo: Repo, closed: str) -> None:
    done = _shell(repo, f"opencode-tasks list-tasks --json {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    if ">&-" not in closed.replace("2>&-", ""):
        assert json.loads(done.stdout)["tasks"] == []
    done = _shell(repo, f"opencode-tasks bogus {closed}")
    assert (done.returncode, done.stdout) == (2, "")
    done = _shell(repo, f"opencode-tasks create-task 'Closed streams' {closed}")
    assert done.returncode == 0
    task_id = repo.only_id()
    assert repo.events(task_id)[0]["data"]["branch"] == repo.branch == "task/closed-streams"
    assert repo.git("status", "--porcelain").out == ""
    assert repo.git("fsck").code == 0


def test_json_is_utf8_whatever_the_locale(repo: Repo) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    spoken = Repo(repo.top, {**repo.env, **ascii_only})
    made = spoken.tasks("create-task", "Größe 日本", "--branch", "task/größe", "--json")
    assert made.json["title"] == "Größe 日本"
    assert "日本" in made.out
    for args in (["--help"], ["list-tasks"], ["task-status"], ["task-history"]):
        assert spoken.tasks(*args).out.isascii()


def test_a_path_that_is_not_utf8(make_repo: Callable[..., Repo]) -> None:
    odd = make_repo(os.fsdecode(b"caf\xe9 \xff\nnew line"))
    odd.tasks("init")
    made = odd.tasks("create-task", os.fsdecode(b"Odd caf\xe9"), "--json")
    assert made.json["title"] == "Odd caf\udce9"
    assert made.json["workspace"]["path"] == str(odd.top)
    for args in (
        ["task-status"],
        ["list-tasks"],
        ["list-tasks", "--json"],
        ["task-history"],
        ["task-history", "--json"],
    ):
        assert odd.tasks(*args).code == 0
    assert odd.tasks("task-status", "--json").json["workspace"]["path"] == str(odd.top)


def test_a_pipe_gets_plain_lines(repo: Repo) -> None:
    repo.tasks("create-task", "One")
    (line,) = repo.tasks("list-tasks").out.splitlines()
    assert line.split("\t")[1:] == ["running", "none", "task/one", "One"]
