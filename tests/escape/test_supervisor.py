"""The supervisor, killed, replaced and impersonated: it is in the sandbox, and its socket is the agent's own."""

import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_tasks.containers import links, sockets
from tests.commands.test_exec import eventually, inside, python, shell, socket_of, start
from tests.conftest import Repo

_FAKE = """
import os, socket, struct, sys, time
path = "/run/opencode-tasks/supervisor.sock"
if os.fork():
    time.sleep(0.5)
    os._exit(0)
os.setsid()
os.unlink(path)
s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(9)
def j(b): return struct.pack(">cI", b"J", len(b)) + b
hello = j(b'{"hello": 1}')
while True:
    c, _ = s.accept()
    try:
        ANSWER
    except OSError:
        pass
"""


@pytest.fixture
def repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/hostile")
    live_repo.tasks("exec", "--", "true")
    return live_repo


@pytest.fixture
def of_the_host(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A socket of another program of the user's, which does what it is told."""
    heard: list[bytes] = []
    path = tmp_path / "agent.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(b"connected")
                connection.sendall(struct.pack(">cI", b"J", 12) + b'{"hello": 1}')
                heard.append(connection.recv(65536))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield path, heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=5)


def test_a_link_in_its_place_does_not_lead_the_host_to_another_socket(
    repo: Repo, of_the_host: tuple[Path, list[bytes]]
) -> None:
    path, heard = of_the_host
    shell(repo, f"rm /run/opencode-tasks/supervisor.sock; ln -s {path} /run/opencode-tasks/supervisor.sock")
    naive = socket.socket(socket.AF_UNIX)
    naive.connect(str(socket_of(repo)))
    naive.sendall(b"naive")
    eventually(lambda: heard == [b"connected", b"naive"], "the naive host was led there")
    naive.close()
    assert inside(repo, "echo", "through the engine").out == "through the engine\n"
    assert heard == [b"connected", b"naive"]


def test_a_directory_in_place_of_the_sockets_directory_is_not_entered_through_a_link(
    tmp_path: Path, of_the_host: tuple[Path, list[bytes]]
) -> None:
    path, heard = of_the_host
    path.rename(path.with_name("supervisor.sock"))
    (tmp_path / "link").symlink_to(tmp_path)
    assert links.connect(tmp_path / "link") is None
    assert heard == []
    link = links.connect(tmp_path)
    assert link is not None
    link.socket.close()


@pytest.mark.parametrize(
    "answer",
    [
        "c.close()",
        "pass",
        "c.sendall(b'x' * 100)",
        "c.sendall(struct.pack('>cI', b'J', 1 << 31))",
        "c.sendall(j(b'[]'))",
        "c.sendall(j(b'[' * 100000))",
        "c.sendall(struct.pack('>cI', b'D', 3) + b'abc')",
        "for byte in hello: c.sendall(bytes([byte])); time.sleep(0.4)",
    ],
    ids=["closes", "silent", "noise", "huge", "no object", "deep", "data", "drips"],
)
def test_one_that_does_not_say_hello_is_passed_by(repo: Repo, answer: str) -> None:
    python(repo, _FAKE.replace("ANSWER", answer))
    assert inside(repo, "echo", "works").out == "works\n"


@pytest.mark.parametrize(
    "answer",
    [
        "c.sendall(hello); c.close()",
        "c.sendall(hello + j(b'nonsense')); c.close()",
        'c.sendall(hello + j(b\'{"exit": "x"}\')); c.close()',
        "c.sendall(hello + j(b'{\"exit\": null}')); c.close()",
        "c.sendall(hello + struct.pack('>cI', b'J', 1 << 31)); c.close()",
    ],
    ids=["ends", "nonsense", "text", "null", "huge"],
)
def test_one_that_breaks_off_leaves_an_unknown_outcome(repo: Repo, answer: str) -> None:
    python(repo, _FAKE.replace("ANSWER", answer))
    ran = repo.tasks("exec", "--json", "--", "true", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "outcome_unknown")


def test_what_it_claims_is_an_exit_code_and_nothing_else(repo: Repo) -> None:
    lie = '{"exit": 260, "signalled": {}, "started": [], "refused": 1}'
    claims = f"c.sendall(hello); c.recv(65536); c.sendall(j(b'{lie}')); c.close()"
    python(repo, _FAKE.replace("ANSWER", claims))
    assert inside(repo, "true", check=False).code == 4


def test_one_that_never_ends_is_ended_by_the_person(repo: Repo) -> None:
    python(repo, _FAKE.replace("ANSWER", "c.sendall(hello); keep = c; time.sleep(1000)"))
    process = start(repo, "true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    assert process.poll() is None
    for _ in range(4):
        process.terminate()
        time.sleep(0.4)
    assert process.wait(timeout=20) != 0


def test_descriptors_that_it_sends_are_not_taken(repo: Repo) -> None:
    send = "socket.send_fds(c, [hello], [0] * 200)"
    python(repo, _FAKE.replace("ANSWER", f"{send}; c.close()"))
    assert inside(repo, "true", check=False).code == 1


def test_the_command_is_given_pipes_and_nothing_of_the_hosts(repo: Repo, tmp_path: Path) -> None:
    """Who holds the descriptor of a host's file can open that file again, and write where it was only to be read."""
    secret, out = tmp_path / "secret", tmp_path / "out"
    secret.write_text("host's\n")
    with secret.open() as stdin, out.open("w") as stdout:
        assert start(repo, "ls", "-l", "/proc/self/fd", stdin=stdin, stdout=stdout, stderr=stdout).wait(timeout=20) == 0
    shown = dict(re.findall(r"(\d+) -> (.*)", out.read_text()))
    assert {name for name, target in shown.items() if target.startswith("pipe:")} == {"0", "1", "2"}
    assert not any(str(tmp_path) in target for target in shown.values())


_SOCKETS = """
import os, stat
for folder, _, names in os.walk("/"):
    for name in names:
        path = os.path.join(folder, name)
        if not folder.startswith("/proc") and stat.S_ISSOCK(os.lstat(path).st_mode):
            print(path)
"""


def test_a_neighbours_supervisor_is_not_to_be_seen(repo: Repo) -> None:
    """Two tasks of one clone, in worktrees, run at the same time."""
    other = repo.tasks("create-task", "Neighbour", "--worktree", "--json").json
    ran = repo.tasks("exec", "--task", other["id"], "--", "python3", "-c", _SOCKETS)
    assert ran.out == python(repo, _SOCKETS).out == "/run/opencode-tasks/supervisor.sock\n"


def test_somebody_elses_directory_in_its_place_is_not_used(repo: Repo, tmp_path: Path) -> None:
    made = sockets.folder("c0ffee-test", "some-task-000000")
    assert made is not None
    try:
        made.chmod(0o777)
        assert sockets.folder("c0ffee-test", "some-task-000000") is None
        made.rmdir()
        made.symlink_to(tmp_path)
        assert sockets.folder("c0ffee-test", "some-task-000000") is None
        made.unlink()
        made.mkdir()
        os.chown(made, 12345, 12345)
        assert sockets.folder("c0ffee-test", "some-task-000000") is None
    finally:
        made.rmdir()
        sockets.remove("c0ffee-test", "some-task-000000")
