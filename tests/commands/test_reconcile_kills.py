"""A command is killed before each thing it asks of the engine or writes into the store: `reconcile` puts it right."""

from pathlib import Path

import docker
import pytest

from opencode_tasks.containers.spec import container_name
from tests.commands.conftest import dies_before
from tests.conftest import Repo

_STEPS = ("docker.APIClient.send", "Store.record", "Store.ensure_status")


def die_before(repo: Repo, step: int, *words: str) -> bool:
    return dies_before(repo, step, _STEPS, *words)


@pytest.fixture
def lazy(live_repo: Repo) -> Repo:
    return Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})


def state_of(client: docker.DockerClient, task_id: str) -> str:
    try:
        return str(client.containers.get(container_name(task_id)).status)
    except docker.errors.NotFound:
        return "none"


def agreed(repo: Repo, client: docker.DockerClient, task_id: str) -> str:
    """What the engine has, once `reconcile` has run and finds nothing more to do."""
    repo.tasks("reconcile", "--apply")
    assert repo.tasks("reconcile", "--apply", "--json").json["plan"] == []
    told = repo.tasks("task-status", task_id, "--json").json["container"]
    found = state_of(client, task_id)
    assert {"exited": "stopped"}.get(found, found) == told["state"]
    return found


@pytest.mark.parametrize("first", [0, 1])
def test_exec(lazy: Repo, client: docker.DockerClient, first: int) -> None:
    killed, step = True, first
    while killed:
        lazy.git("checkout", "--quiet", "-b", f"task/{step}", "main")
        task_id = lazy.tasks("task-status", "--json").json["id"]
        lazy.write("precious", f"{step}\n")
        killed = die_before(lazy, step, "exec", "--", "true")
        assert agreed(lazy, client, task_id) == "running"
        assert lazy.tasks("exec", "--", "cat", "precious").out == f"{step}\n"
        client.api.remove_container(container_name(task_id), force=True)
        step += 2
    assert step > 4


@pytest.mark.parametrize("first", [0, 1])
def test_complete_task(lazy: Repo, client: docker.DockerClient, first: int) -> None:
    killed, step = True, first
    while killed:
        lazy.git("checkout", "--quiet", "-b", f"task/{step}", "main")
        task_id = lazy.tasks("task-status", "--json").json["id"]
        lazy.tasks("exec", "--", "true")
        killed = die_before(lazy, step, "complete-task", task_id)
        status = lazy.tasks("task-status", task_id, "--json").json["status"]
        assert agreed(lazy, client, task_id) == {"completed": "exited", "running": "running"}[status]
        if status == "running":
            lazy.tasks("complete-task", task_id)
        client.api.remove_container(container_name(task_id), force=True)
        step += 2
    assert step > 3


@pytest.mark.parametrize("first", [0, 1])
def test_cleanup_task(lazy: Repo, client: docker.DockerClient, first: int) -> None:
    killed, step = True, first
    while killed:
        made = lazy.tasks("create-task", f"Number {step}", "--worktree", "--json").json
        beside = Repo(Path(made["workspace"]["path"]), lazy.env)
        beside.tasks("exec", "--", "true")
        killed = die_before(lazy, step, "cleanup-task", made["id"])
        agreed(lazy, client, made["id"])
        if killed:  # and it can be finished
            lazy.tasks("cleanup-task", made["id"])
        assert state_of(client, made["id"]) == "none"
        assert agreed(lazy, client, made["id"]) == "none"
        assert not beside.top.exists()
        step += 2
    assert step > 3
