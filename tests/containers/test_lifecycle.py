"""A task's container follows the task: real checkouts, the real engine."""

import time
from collections.abc import Callable

import docker
import pytest

from opencode_tasks.containers import direct
from opencode_tasks.containers.spec import container_name
from tests.conftest import Repo


@pytest.fixture
def state(client: docker.DockerClient) -> Callable[[str], str]:
    """The engine's own word on a task's container."""

    def look(task_id: str) -> str:
        try:
            return str(client.containers.get(container_name(task_id)).status)
        except docker.errors.NotFound:
            return "none"

    return look


def wait(look: Callable[[str], str], task_id: str, wanted: str) -> None:
    until = time.monotonic() + 30
    while (found := look(task_id)) != wanted:
        assert time.monotonic() < until, f"{task_id} is {found}, not {wanted}"
        time.sleep(0.05)


def start(repo: Repo, branch: str, state: Callable[[str], str]) -> str:
    before = set(repo.ids())
    repo.git("checkout", "--quiet", "-b", branch)
    (task_id,) = set(repo.ids()) - before
    wait(state, task_id, "running")
    # And the process that started it has done: it would thaw what a test freezes.
    wait(lambda i: "recorded" if _started_is_recorded(repo, i) else "unrecorded", task_id, "recorded")
    return task_id


def _started_is_recorded(repo: Repo, task_id: str) -> bool:
    return any(e["type"] == "container.changed" and e["data"]["state"] == "running" for e in repo.events(task_id))


def test_started_in_the_background_paused_before_git_returns_and_resumed(
    live_repo: Repo, state: Callable[[str], str]
) -> None:
    task_id = start(live_repo, "task/one", state)
    live_repo.git("checkout", "--quiet", "main")
    assert state(task_id) == "paused"
    live_repo.git("checkout", "--quiet", "task/one")
    wait(state, task_id, "running")
    told = live_repo.tasks("task-status", "--json").json
    assert (told["status"], told["container"]["state"]) == ("running", "running")


def test_rapid_changes_between_two_tasks_end_with_the_right_one_running(
    live_repo: Repo, state: Callable[[str], str]
) -> None:
    one = start(live_repo, "task/one", state)
    two = start(live_repo, "task/two", state)
    for _ in range(4):
        live_repo.git("checkout", "--quiet", "task/one")
        live_repo.git("checkout", "--quiet", "task/two")
    wait(state, two, "running")
    time.sleep(2)
    assert (state(one), state(two)) == ("paused", "running")


def test_left_before_its_container_was_there_it_never_stays_running(
    live_repo: Repo, state: Callable[[str], str]
) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/hasty")
    live_repo.git("checkout", "--quiet", "main")
    task_id = live_repo.only_id()
    log = live_repo.common / "opencode-tasks" / "background.log"
    until = time.monotonic() + 30
    while not log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert state(task_id) in ("none", "paused")


def test_removed_behind_our_back_it_is_lost_and_then_made_anew(
    live_repo: Repo, client: docker.DockerClient, state: Callable[[str], str]
) -> None:
    task_id = start(live_repo, "task/one", state)
    live_repo.tasks("reconcile", task_id)
    client.containers.get(container_name(task_id)).remove(force=True)
    assert live_repo.tasks("task-status", "--json").json["container"]["state"] == "lost"
    assert live_repo.tasks("doctor", "--json", check=False).json["ok"] is False
    assert live_repo.tasks("exec", "--", "echo", "again").out == "again\n"
    assert live_repo.tasks("task-status", "--json").json["container"]["state"] == "running"


def test_stopped_by_somebody_else_it_is_started_again(
    live_repo: Repo, client: docker.DockerClient, state: Callable[[str], str]
) -> None:
    task_id = start(live_repo, "task/one", state)
    client.containers.get(container_name(task_id)).stop(timeout=1)
    assert live_repo.tasks("reconcile", task_id, "--json").json["tasks"][0]["container"]["state"] == "running"


def test_a_container_that_grew_a_protected_path_is_made_anew(
    live_repo: Repo, client: docker.DockerClient, state: Callable[[str], str]
) -> None:
    start(live_repo, "task/one", state)
    assert live_repo.tasks("exec", "--", "sh", "-c", "mkdir .vscode").code == 0
    assert live_repo.tasks("exec", "--", "sh", "-c", "echo x > .vscode/tasks.json", check=False).code != 0
    assert list((live_repo.top / ".vscode").iterdir()) == []


def test_settings_cannot_be_made_where_there_are_none(live_repo: Repo, state: Callable[[str], str]) -> None:
    """They would say what the task may reach."""
    live_repo.git("rm", "-r", "--quiet", ".opencode")
    live_repo.commit("without settings")
    start(live_repo, "task/one", state)
    assert live_repo.tasks("exec", "--", "sh", "-c", "echo x > .opencode/tasks.toml", check=False).code != 0
    assert not (live_repo.top / ".opencode" / "tasks.toml").exists()


def test_a_name_that_is_taken_is_refused_and_left_alone(
    live_repo: Repo, client: docker.DockerClient, state: Callable[[str], str]
) -> None:
    task_id = start(live_repo, "task/one", state)
    ours = client.containers.get(container_name(task_id))
    image = ours.image
    assert image is not None
    ours.remove(force=True)
    foreign = client.containers.create(image, ["sleep", "1"], name=container_name(task_id))
    try:
        done = live_repo.tasks("exec", "--json", "--", "true", check=False)
        assert (done.code, done.json["error"]["code"]) == (1, "name_taken")
        assert client.containers.get(container_name(task_id)).id == foreign.id
    finally:
        foreign.remove(force=True)


def test_the_outcome_of_a_start_that_failed_in_the_background_is_told(live_repo: Repo) -> None:
    live_repo.tasks("create-task", "No image", "--image", "localhost/no-such-image:1")
    task_id = live_repo.only_id()
    until = time.monotonic() + 30
    while not (error := live_repo.tasks("task-status", task_id, "--json").json["container"]["error"]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "localhost/no-such-image:1" in error
    done = live_repo.tasks("exec", "--json", "--", "true", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "image_missing")


def test_completed_it_stops_and_cleaned_up_it_goes(live_repo: Repo, state: Callable[[str], str]) -> None:
    task_id = start(live_repo, "task/one", state)
    live_repo.tasks("complete-task")
    wait(state, task_id, "exited")
    live_repo.git("checkout", "--quiet", "main")
    live_repo.tasks("cleanup-task", task_id)
    assert state(task_id) == "none"


def test_direct_calls_answer_what_happened(live_repo: Repo, engine_host: str, state: Callable[[str], str]) -> None:
    name = container_name(start(live_repo, "task/one", state))
    assert direct.pause(engine_host, name) == "done"
    assert direct.pause(engine_host, name) == "already"
    assert direct.unpause(engine_host, name) == "done"
    assert direct.unpause(engine_host, name) == "already"
    assert direct.pause(engine_host, "opencode-task-nobody") == "no-container"
    assert direct.pause("unix:///nonexistent.sock", name) == "unreachable"
    assert direct.pause("tcp://localhost:1", name) == "unreachable"
