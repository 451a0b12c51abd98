"""A task's proxy socket, from inside containers: another task's, and one's own put out of the way."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import docker
import pytest

from opencode_tasks.containers import sockets
from tests.conftest import Repo

Attack = Callable[[str], int]


@pytest.fixture
def task_repo(live_repo: Repo) -> Repo:
    """Something is allowed; nothing is asked for. The proxy's network leads nowhere."""
    live_repo.git("checkout", "--quiet", "-b", "task/out")
    return live_repo


@pytest.fixture
def through(task_repo: Repo, client: docker.DockerClient) -> Iterator[str]:
    network = client.networks.create(f"out-{uuid.uuid4().hex[:8]}", internal=True)
    task_repo.env["OPENCODE_TASKS_NETWORK_THROUGH"] = str(network.name)
    try:
        yield str(network.name)
    finally:
        task_repo.tasks("uninstall")
        network.remove()


@contextmanager
def naive(client: docker.DockerClient, image: str, folder: str) -> Iterator[Attack]:
    """What is simpler: all the sockets mounted, as they are."""
    made = client.containers.run(
        image, ["sleep", "300"], detach=True, init=True, network_mode="none", volumes=[f"{folder}:/run/opencode-egress"]
    )
    try:
        yield lambda script: int(made.exec_run(["sh", "-c", script]).exit_code or 0)
    finally:
        made.remove(force=True)


OTHERS = "test $(find /run/opencode-egress -name 'proxy.sock*' | wc -l) -gt 1"
ANYWHERE = """
found=$(find / -path /proc -prune -o -path /sys -prune -o -name proxy.sock -print 2>/dev/null)
test $(echo "$found" | grep -vx /run/opencode-egress/proxy.sock | wc -l) -gt 0
"""
SPOIL = {
    "delete it": """
        find /run/opencode-egress -name proxy.sock -exec rm {} +
        test -z "$(find /run/opencode-egress -name proxy.sock)"
    """,
    "put another in its place": """
        for at in $(dirname $(find /run/opencode-egress -name proxy.sock)); do
            touch $at/new && mv $at/new $at/proxy.sock || exit 1
        done
    """,
    "make a link beside it": "ln -s /etc /run/opencode-egress/link",
}


def test_sockets_of_others_and_ones_own(task_repo: Repo, through: str, client: docker.DockerClient) -> None:
    task_repo.tasks("allow", "example.com")
    task_repo.tasks("exec", "--", "true")
    made = task_repo.tasks("create-task", "Beside", "--worktree", "--json").json
    task_repo.tasks("reconcile", made["id"])
    ids, current = task_repo.ids(), task_repo.tasks("task-status", "--json").json["id"]
    clone = (task_repo.common / "opencode-tasks" / "clone").read_text().strip()
    assert len(ids) == 2
    assert all(sockets.is_served(clone, task_id) for task_id in ids)
    image = task_repo.tasks("task-status", "--json").json["container"]["image"]

    def ours(script: str) -> int:
        return task_repo.tasks("exec", "--", "sh", "-c", script, check=False).code

    all_sockets = str(sockets.egress_root(clone) / "sockets")
    for attack in (OTHERS, ANYWHERE):
        assert ours(attack) == 1
    for name, attack in SPOIL.items():
        assert ours(attack) != 0, name
    assert all(sockets.is_served(clone, task_id) for task_id in ids)
    with naive(client, image, all_sockets) as simple:
        assert simple(OTHERS) == 0
        assert simple(ANYWHERE) == 0
        for name, attack in SPOIL.items():
            assert simple(attack) == 0, name
            # Whoever spoiled it: the proxy is back for the next command.
            task_repo.tasks("exec", "--", "true")
            assert sockets.is_served(clone, current)
