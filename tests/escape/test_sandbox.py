"""Neighbours on a network, setuid programs, and what an engine's defaults refuse."""

import uuid

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
        server = client.containers.run(
            image, ["python3", "-c", _LISTEN], name=f"{name}-server", network=name, init=True, detach=True
        )
        containers.append(server)
        naive = client.containers.run(image, ["sleep", "300"], network=name, init=True, detach=True)
        containers.append(naive)
        server.reload()
        address = server.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
        attack = ["python3", "-c", _REACH.replace("ADDRESS", address)]
        assert naive.exec_run(attack).exit_code == 0
        ran = task_repo.tasks("exec", "--", *attack, check=False)
        assert ran.code == 1
        assert "unreachable" in ran.err
        resolve = ["python3", "-c", f"import socket; socket.getaddrinfo('{name}-server', 8000)"]
        assert naive.exec_run(resolve).exit_code == 0
        assert task_repo.tasks("exec", "--", *resolve, check=False).code == 1
    finally:
        for container in containers:
            container.remove(force=True)
        network.remove()


_SETUID = """
cp /usr/bin/python3 planted && chown 12345 planted && chmod u+s planted
./planted -c 'import os; raise SystemExit(os.geteuid() != 12345)'
"""


def test_a_setuid_program_works_in_a_naive_container_and_not_in_ours(
    task_repo: Repo, client: docker.DockerClient, image: str
) -> None:
    top = str(task_repo.top)
    assert task_repo.tasks("exec", "--", "sh", "-c", _SETUID, check=False).code != 0
    (task_repo.top / "planted").unlink(missing_ok=True)
    naive = client.containers.run(
        image, ["sleep", "300"], detach=True, init=True, network_mode="none", volumes=[f"{top}:{top}"], working_dir=top
    )
    try:
        done = naive.exec_run(["sh", "-c", _SETUID])
        assert done.exit_code == 0, done.output
        # Planted by a container that could, it still gives nothing to ours.
        use = "./planted -c 'import os; raise SystemExit(os.geteuid() != 12345)'"
        assert task_repo.tasks("exec", "--", "sh", "-c", use, check=False).code != 0
    finally:
        naive.remove(force=True)


REFUSED_BY_DEFAULT = (
    "mount -t tmpfs none .git",
    "mount -o remount,bind,rw .git",
    "umount .git",
    "echo 63 > /proc/sys/net/ipv4/ip_default_ttl",
    "echo x > /proc/sys/kernel/core_pattern",
    "unshare --mount true",
    "unshare --user --map-root-user true",
    "nsenter --target 1 --mount true",
    "echo max > /sys/fs/cgroup/pids/pids.max || echo max > /sys/fs/cgroup/pids.max",
    "test -S /var/run/docker.sock -o -S /run/docker.sock",
)


def test_what_the_engines_defaults_refuse_stays_refused(task_repo: Repo) -> None:
    for attack in REFUSED_BY_DEFAULT:
        assert task_repo.tasks("exec", "--", "sh", "-c", attack, check=False).code != 0, attack
