"""What takes more than a naive container to succeed: neighbours on a network, and a privileged one's mounts."""

import uuid
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import Repo


@pytest.fixture
def task_repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/sandbox")
    live_repo.tasks("exec", "--", "true")
    return live_repo


@pytest.fixture
def client(engine_host: str) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(engine_host)
    yield made
    made.close()


@pytest.fixture
def image(task_repo: Repo) -> str:
    return str(task_repo.tasks("task-status", "--json").json["container"]["image"])


_LISTEN = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)"
_REACH = """
import socket, time
for _ in range(50):
    try:
        socket.create_connection(("ADDRESS", 8000), 1)
        raise SystemExit(0)
    except ConnectionRefusedError:
        time.sleep(0.1)  # it is not listening yet
"""


def test_a_neighbour_is_reached_from_a_naive_container_and_not_from_ours(
    task_repo: Repo, client: docker.DockerClient, image: str
) -> None:
    name = f"attack-{uuid.uuid4().hex[:8]}"
    network = client.networks.create(name, internal=True)
    containers: list[Container] = []
    try:
        for command in (["python3", "-c", _LISTEN], ["sleep", "300"]):
            containers.append(client.containers.run(image, command, network=name, init=True, detach=True))
        server, naive = containers
        server.reload()
        address = server.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
        attack = ["python3", "-c", _REACH.replace("ADDRESS", address)]
        assert naive.exec_run(attack).exit_code == 0
        ran = task_repo.tasks("exec", "--", *attack, check=False)
        assert ran.code == 1
        assert "unreachable" in ran.err
    finally:
        for container in containers:
            container.remove(force=True)
        network.remove()


PRIVILEGED = {
    "mount over .git": "mount -t tmpfs none .git",
    "move a mount away": "mount --bind . /mnt && mount --move /mnt /opt",
    "make .git writable": "mount -o remount,bind,rw .git && touch .git/planted",
    "set a kernel parameter": "echo 63 > /proc/sys/net/ipv4/ip_default_ttl",
    "make a device": "mknod planted b 7 99",
    "another root directory": "unshare --mount true",
    "a setuid program that is root": "cp /usr/bin/id planted && chown 12345 planted && chmod u+s planted && ./planted -u | grep 12345",
}


@pytest.mark.parametrize("name", PRIVILEGED)
def test_what_a_privileged_container_may_do_fails_in_ours(
    name: str, task_repo: Repo, client: docker.DockerClient, image: str
) -> None:
    top, git = str(task_repo.top), f"{task_repo.top}/.git"
    ran = task_repo.tasks("exec", "--", "sh", "-c", PRIVILEGED[name], check=False)
    assert ran.code != 0
    assert not (task_repo.top / ".git" / "planted").exists()
    (task_repo.top / "planted").unlink(missing_ok=True)
    naive = client.containers.run(
        image,
        ["sleep", "300"],
        detach=True,
        privileged=True,
        init=True,
        network_mode="none",
        working_dir=top,
        volumes=[f"{top}:{top}", f"{git}:{git}:ro"],
    )
    try:
        done = naive.exec_run(["sh", "-c", PRIVILEGED[name]])
        assert done.exit_code == 0, done.output
    finally:
        naive.remove(force=True)
