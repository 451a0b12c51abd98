"""Commands through the supervisor inside: what the engine's exec cannot do."""

import signal
import subprocess
import time
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers import direct, links
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.containers.images import FOUNDATION
from opencode_tasks.store import Store
from tests.commands.test_exec import eventually, executions, inside, processes, python, shell, socket_of, start
from tests.conftest import Repo

_IN_ITS_OWN_SESSIONS = """
import subprocess, sys, time
deaf = ["sh", "-c", "trap '' TERM HUP; sleep 1003 & wait"]
for argv in (["sleep", "1001"], ["setsid", "--fork", "sleep", "1002"], deaf):
    subprocess.Popen(argv, start_new_session=True)
print("up", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/inside")
    live_repo.tasks("exec", "--", "true")
    return live_repo


def test_it_is_the_way_that_commands_take(repo: Repo, client: docker.DockerClient) -> None:
    ran = inside(repo, "sh", "-c", "tr '\\0' ' ' < /proc/$PPID/cmdline")
    assert ran.out.startswith("python3 -I -S -c")
    assert "supervisor.sock" in ran.out
    container = client.containers.get(f"opencode-task-{repo.only_id()}")
    assert container.attrs["ExecIDs"] is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_host_command_leaves_nothing_running(repo: Repo, number: signal.Signals) -> None:
    process = start(repo, "python3", "-c", _IN_ITS_OWN_SESSIONS, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    eventually(lambda: {"sleep 1001", "sleep 1002", "sleep 1003"} <= set(processes(repo)), "all run")
    process.send_signal(number)
    if number == signal.SIGTERM:  # one of them ignores it, until the person means it
        time.sleep(0.3)
        process.send_signal(number)
        time.sleep(0.3)
        process.send_signal(number)
    process.communicate(timeout=20)
    eventually(lambda: not processes(repo), "the container is quiet")


def test_what_a_command_leaves_in_the_background_goes_on_and_is_not_waited_for(repo: Repo) -> None:
    began = time.monotonic()
    ran = shell(repo, "echo first; (sleep 4; echo done > late) & echo last")
    assert ran.out == "first\nlast\n"
    assert time.monotonic() - began < 4
    eventually((repo.top / "late").exists, "it went on")
    eventually(lambda: not processes(repo), "nobody is left that waits")


def test_output_of_helpers_that_end_a_moment_later_arrives(repo: Repo) -> None:
    ran = inside(repo, "bash", "-c", "echo one > >(sleep 0.1; cat)")
    assert ran.out == "one\n"


def test_large_arguments_and_environment(repo: Repo) -> None:
    ran = inside(repo, "python3", "-c", "import sys; print([len(a) for a in sys.argv[1:]])", *["x" * 100_000] * 8)
    assert ran.out.strip() == str([100_000] * 8)


def test_output_of_many_megabytes_is_whole(repo: Repo) -> None:
    ran = python(repo, "import sys; sys.stdout.write('0123456789abcde\\n' * (1 << 20))")
    assert len(ran.out) == 16 << 20
    assert ran.out == "0123456789abcde\n" * (1 << 20)


def test_a_killed_supervisor_takes_its_container_along_and_the_next_command_has_a_new_one(repo: Repo) -> None:
    ran = shell(
        repo,
        "kill -9 $(grep -lF supervisor.sock /proc/[0-9]*/cmdline | tr -dc '0-9\\n' | sort -n); sleep 5",
        check=False,
    )
    assert ran.code in (1, 137)
    assert executions(repo)[-1]["exit_code"] in (None, 137)
    assert inside(repo, "echo", "again").out == "again\n"
    assert socket_of(repo).exists()


def test_what_was_typed_ahead_arrives(repo: Repo) -> None:
    """In one piece with the command, as it comes from a terminal in which a person was quick."""
    link = links.connect(socket_of(repo).parent)
    assert link is not None
    with link.socket:
        link.outbox += links.framed(
            {"argv": ["sh", "-c", "read line; echo got=$line"], "cwd": "/", "env": {}, "size": [9, 9]}
        )
        link.post(b"hello\n")
        assert not link.outbox
        seen, code = b"", None
        while code is None:
            for kind, content in link.messages():
                seen += content if kind == b"D" else b""
                code = content.get("exit") if kind == b"J" else code
    assert b"got=hello" in seen


def test_without_a_process_left_it_says_so(repo: Repo) -> None:
    script = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        n += 1
except OSError:
    print("full", flush=True)
time.sleep(30)
"""
    process = start(repo, "python3", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"full\n"
    refused = repo.tasks("exec", "--json", "--", "true", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "no_process")
    assert "pids" in refused.json["error"]["hint"]
    process.kill()
    process.communicate(timeout=20)
    eventually(lambda: inside(repo, "true", check=False).code == 0, "it works again")


def test_a_container_of_another_specification_is_not_made_anew_under_a_running_command(
    repo: Repo, client: docker.DockerClient
) -> None:
    name = f"opencode-task-{repo.only_id()}"
    before = client.containers.get(name).id
    process = start(repo, "sh", "-c", "echo up; read line; echo $line", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    (repo.top / ".opencode" / "tasks.toml").write_text('[container]\nlimits = "small"\n')
    assert inside(repo, "true").code == 0
    assert client.containers.get(name).id == before
    assert process.communicate(b"on\n", timeout=20)[0] == b"on\n"
    assert inside(repo, "true").code == 0
    assert client.containers.get(name).id != before


def test_nothing_answers_where_nobody_listens(tmp_path: Path) -> None:
    assert links.connect(tmp_path) is None
    assert links.connect(tmp_path / "absent") is None
    (tmp_path / "supervisor.sock").write_text("a file")
    assert links.connect(tmp_path) is None


def test_its_place_goes_with_what_it_was_for(repo: Repo) -> None:
    place = socket_of(repo).parent
    assert place.is_dir()
    repo.git("checkout", "--quiet", "main")
    repo.tasks("cleanup-task", "task/inside")
    assert not place.exists()
    repo.git("checkout", "--quiet", "-b", "task/other")
    repo.tasks("exec", "--", "true")
    assert place.parent.is_dir()
    repo.tasks("uninstall")
    assert not place.parent.exists()


def test_in_an_image_without_python_commands_run_through_the_engine(live_repo: Repo) -> None:
    (live_repo.top / ".opencode" / "tasks.toml").write_text(f'[container]\nimage = "{FOUNDATION}"\n')
    live_repo.git("checkout", "--quiet", "-b", "task/bare")
    assert inside(live_repo, "sh", "-c", "command -v python3 || echo none").out == "none\n"
    assert not socket_of(live_repo).exists()
    assert links.is_absent(socket_of(live_repo).parent)


def test_a_command_waits_while_the_host_holds_the_container_still(repo: Repo) -> None:
    store = Store(repo.top / ".git")
    with frozen(store, store.get(repo.only_id())):
        process = start(repo, "echo", "thawed", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        time.sleep(4)
        assert process.poll() is None
        assert direct.pause(repo.env["DOCKER_HOST"], f"opencode-task-{repo.only_id()}") == "already"
    assert process.communicate(timeout=20)[0] == b"thawed\n"


def test_what_a_container_is_made_of_is_told(repo: Repo, client: docker.DockerClient) -> None:
    made_of = repo.tasks("task-status", "--container", "--json").json["container"]["spec"]
    labels = client.containers.get(f"opencode-task-{repo.only_id()}").labels
    assert made_of["digest"] == labels["opencode-tasks.spec"]
    assert made_of["isolation"]["cap_drop"] == ["ALL"]
    text = repo.tasks("task-status", "--container").out
    assert f"rw {repo.top}\n" in text
    assert f"rw {repo.top}/.git\n" in text
    assert f"ro {repo.top}/.git/opencode-tasks/store\n" in text
    assert "subprocess" not in text  # nor the supervisor's whole text
    without = Repo(repo.top, {"DOCKER_HOST": "unix:///nowhere.sock"}).tasks(
        "task-status", "--container", "--json", check=False
    )
    assert (without.code, without.json["error"]["code"]) == (1, "no_engine")
