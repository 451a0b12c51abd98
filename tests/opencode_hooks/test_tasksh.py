"""`tasksh`: in the task's container or nowhere; by itself, and through the plugin's child."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from opencode_tasks.policy import ours
from tests.conftest import Ran, Repo
from tests.opencode_hooks.conftest import Children

ARGV = (sys.executable, "-I", "-c", "import sys; from opencode_tasks.tasksh import main; sys.exit(main())")
Run = Callable[..., Ran]


def tasksh(repo: Repo, *words: str, cwd: Path | None = None, **env: str) -> Ran:
    done = subprocess.run(
        [*ARGV, *words],
        cwd=cwd or repo.top,
        env={**os.environ, **repo.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_without_a_task_it_is_the_users_shell(repo: Repo, tmp_path: Path) -> None:
    for cwd in (repo.top, tmp_path):
        done = tasksh(repo, "-c", 'echo "$0 $PWD"; exit 7', "name", cwd=cwd)
        assert (done.code, done.out) == (7, f"name {cwd}\n")


SHAPES = [
    "touch {mark}",
    "touch {mark} &",
    "nohup touch {mark} >/dev/null 2>&1 &",
    "exec touch {mark}",
    "cat <<'X' > {mark}\n$(id)\nX",
    "$(echo touch) {mark}",
    "eval 'touch {mark}'",
    "env -i /bin/sh -c 'touch {mark}'",
    "(cd / && touch {mark})",
    'python3 -c \'open("{mark}","w")\'',
    "opencode-tasks task-status; touch {mark}",
    "opencode-tasks task-status\ntouch {mark}",
    "opencode-tasks task-status $(touch {mark})",
    'opencode-tasks task-decisions --add "`touch {mark}`"',
    "opencode-tasks task-status > {mark}",
    "opencode-tasks task-status | tee {mark}",
    "opencode-tasks 'task-status' && touch {mark}",
    "opencode-tasks exec -- touch {mark}",
    "opencode-tasks shell",
    "opencode-tasks allow example.com",
    "opencode-tasks uninstall",
    "OPENCODE_TASKS_TASK= touch {mark}",
    "'' ; touch {mark}",
]


@pytest.mark.parametrize("through_child", [False, True])
def test_where_no_container_can_run_nothing_runs_on_the_host(
    repo: Repo, tmp_path: Path, children: Children, through_child: bool
) -> None:
    """`repo` has no engine."""
    repo.git("checkout", "--quiet", "-b", "task/closed")
    task, mark, env = repo.only_id(), tmp_path / "ran", {}
    if through_child:
        env = children(repo).ask("chat.message")["env"]
    before = (repo.common / "opencode-tasks" / "installed.json").read_bytes()
    for shape in SHAPES if through_child else SHAPES[::4]:
        done = tasksh(repo, "-c", shape.format(mark=mark), **env)
        assert done.code != 0, shape
        assert not mark.exists(), shape
        assert "opencode-tasks" in done.err, shape
    assert (repo.common / "opencode-tasks" / "installed.json").read_bytes() == before
    # A directory outside of the workspace, as the shell tool's `workdir` may name it.
    for cwd in (tmp_path, repo.common, repo.top.parent):
        done = tasksh(repo, "-c", f"touch {mark}", cwd=cwd, OPENCODE_TASKS_TASK=task)
        assert (done.code, mark.exists()) == (126, False), cwd
    assert tasksh(repo, "-c", f"touch {mark}", cwd=repo.common).code == 126
    sleeping = subprocess.Popen(["sleep", "60"], cwd=repo.top)
    try:
        done = tasksh(repo, "-c", f"touch {mark}", cwd=tmp_path, OPENCODE_PID=str(sleeping.pid))
        assert (done.code, mark.exists()) == (126, False)
        elsewhere = {"OPENCODE_PID": str(sleeping.pid), "OPENCODE_TASKS_TASK": ""}
        assert tasksh(repo, "-c", "echo free", cwd=tmp_path, **elsewhere).out == "free\n"
    finally:
        sleeping.kill()
        sleeping.wait()
    done = tasksh(repo, "-c", f"touch {mark}", OPENCODE_TASKS_REFUSED="somebody has it")
    assert (done.code, done.err) == (126, "opencode-tasks: somebody has it\n")
    assert tasksh(repo, "-c", "opencode-tasks task-status --json").json["id"] == task
    other = repo.tasks("create-task", "other", "--worktree", "--json").json["id"]
    refused = tasksh(repo, "-c", f"opencode-tasks complete-task {other}")
    assert (refused.code, "is another" in refused.err) == (126, True)
    repo.git("checkout", "--quiet", "--detach")
    assert tasksh(repo, "-c", f"touch {mark}", OPENCODE_TASKS_TASK=task).code == 126
    assert not mark.exists()


def test_commands_run_inside_alone_and_through_the_child(
    live_repo: Repo, children: Children, client: docker.DockerClient
) -> None:
    repo = live_repo
    repo.git("checkout", "--quiet", "-b", "task/inside")
    task = repo.only_id()
    child = children(repo)
    child.ask("started")
    through = {**child.ask("chat.message")["env"]}
    container = f"opencode-task-{task}"
    for env in ({}, through):
        script = 'hostname; pwd; echo "é $((1+1))"; echo err >&2; test -e /var/run/docker.sock; exit 3'
        done = tasksh(repo, "-c", script, **env)
        assert (done.code, done.err) == (3, "err\n")
        assert done.out == f"{task[:63]}\n{repo.top}\né 2\n"
        assert tasksh(repo, "-c", "cat /proc/self/cgroup /etc/hostname", **env).out.strip() != ""
        assert tasksh(repo, "-c", "echo $BASH_VERSION", **env).out.strip() != ""
    last = [e for e in repo.events(task) if e["type"] == "command.started"][-1]
    assert last["data"]["argv"] == ["bash", "-c", "echo $BASH_VERSION"]
    assert last["actor"].startswith("agent:opencode-")
    assert "tasksh" not in client.containers.get(container).top()["Processes"].__str__()

    def processes() -> str:
        return str(client.containers.get(container).top(ps_args="-eo pid,args")["Processes"])

    for number in (signal.SIGTERM, signal.SIGKILL):
        for env in ({}, through):
            argv = [*ARGV, "-c", "(trap '' TERM; sleep 4242) & sleep 4243"]
            with subprocess.Popen(
                argv, cwd=repo.top, env={**os.environ, **repo.env, **env}, start_new_session=True
            ) as running:
                until = time.monotonic() + 20
                while processes().count("sleep 424") < 2:
                    assert time.monotonic() < until
                os.killpg(running.pid, number)
                running.wait(20)
            until = time.monotonic() + 10
            while "sleep 424" in processes():
                assert time.monotonic() < until, (number, env)
    # Nobody is left who watches: neither the child nor, then, the one who called.
    argv = [*ARGV, "-c", "sleep 4244"]
    with subprocess.Popen(argv, cwd=repo.top, env={**os.environ, **repo.env, **through}) as running:
        until = time.monotonic() + 20
        while "sleep 4244" not in processes():
            assert time.monotonic() < until
        child.process.kill()
        child.process.wait()
        time.sleep(0.2)
        assert "sleep 4244" in processes()
        running.kill()
    until = time.monotonic() + 10
    while "sleep 4244" in processes():
        assert time.monotonic() < until
    assert tasksh(repo, "-c", "echo alone", **through).out == "alone\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("opencode-tasks", []),
        ("  opencode-tasks checkpoint -m 'before it'  ", ["checkpoint", "-m", "before it"]),
        ("opencode-tasks task-decisions --add 'a $b `c`; d' --because \"it's\"", None),
        ("opencode-tasks task-decisions --add 'a $b `c`; d'", ["task-decisions", "--add", "a $b `c`; d"]),
        ('opencode-tasks task-decisions --add "a; b | c"', ["task-decisions", "--add", "a; b | c"]),
        ("opencode-tasks2 x", None),
        ("opencode-tasks diff \\c1", None),
        ("opencode-tasks 'unclosed", None),
        ("x opencode-tasks", None),
    ],
)
def test_one_call_of_ours_is_told_from_what_needs_a_shell(command: str, words: list[str] | None) -> None:
    if words is None and command.endswith('"it\'s"'):
        words = ["task-decisions", "--add", "a $b `c`; d", "--because", "it's"]
    assert ours.words_of(command) == words


def test_which_of_ours_an_agent_may_have() -> None:
    for allowed in ("task-status", "checkpoint -m x", "restore-checkpoint c1", "complete-task --merge", "diff", ""):
        assert ours.why_not(allowed.split()) == ""
    for refused in (
        "exec -- x",
        "shell",
        "init",
        "uninstall --purge",
        "allow x",
        "secrets approve",
        "attach",
        "create-task x",
    ):
        assert "is for the person" in ours.why_not(refused.split())
    for refused in ("detach --agent x", "checkpoint --gc", "detach --agent=x"):
        assert "for the person" in ours.why_not(refused.split())
