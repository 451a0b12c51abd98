"""What a change of branch does to containers when things are not as usual: real checkouts, the real engine."""

import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from tests.conftest import Repo


@pytest.fixture
def states(client: docker.DockerClient) -> Callable[[Repo], dict[str, str]]:
    def look(repo: Repo) -> dict[str, str]:
        clone = (repo.common / "opencode-tasks" / "clone").read_text().strip()
        listed = client.api.containers(all=True, filters={"label": f"opencode-tasks.clone={clone}"})
        return {c["Labels"]["opencode-tasks.task"]: c["State"] for c in listed}

    return look


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


def background(repo: Repo) -> list[int]:
    """The processes that we left behind in this repository."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            argv = (path / "cmdline").read_bytes().split(b"\0")
            if b"reconcile" in argv and (path / "cwd").readlink() == repo.top:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_storm_of_checkouts_leaves_exactly_one_running(
    live_repo: Repo, states: Callable[[Repo], dict[str, str]]
) -> None:
    for number in range(20):
        live_repo.git("checkout", "--quiet", "-b", f"task/{number}")
    last = live_repo.tasks("task-status", "--json").json["id"]
    wait(lambda: states(live_repo).get(last) == "running" and not background(live_repo))
    assert {i for i, state in states(live_repo).items() if state == "running"} == {last}


def test_without_autostart_nothing_is_started_until_a_command_wants_it(
    live_repo: Repo, states: Callable[[Repo], dict[str, str]]
) -> None:
    lazy = Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    lazy.git("checkout", "--quiet", "-b", "task/one")
    lazy.git("checkout", "--quiet", "-b", "task/two")
    assert background(lazy) == []
    assert states(lazy) == {}
    lazy.tasks("exec", "--", "true")
    two = lazy.tasks("task-status", "--json").json["id"]
    assert states(lazy) == {two: "running"}
    lazy.git("checkout", "--quiet", "task/one")
    assert states(lazy) == {two: "paused"}
    lazy.git("checkout", "--quiet", "task/two")
    assert background(lazy) == []
    assert states(lazy) == {two: "paused"}
    assert lazy.tasks("exec", "--", "echo", "thawed").out == "thawed\n"


def test_an_engine_that_is_down_at_checkout_and_up_later(
    live_repo: Repo, tmp_path: Path, engine_host: str, states: Callable[[Repo], dict[str, str]]
) -> None:
    socket = tmp_path / "later.sock"
    repo = Repo(live_repo.top, {"DOCKER_HOST": f"unix://{socket}"})
    repo.git("checkout", "--quiet", "-b", "task/one")
    wait(lambda: not background(repo))
    told = repo.tasks("task-status", "--json").json
    assert told["status"] == "running"
    assert str(socket) in told["container"]["error"]
    socket.symlink_to(engine_host.removeprefix("unix://"))
    assert repo.tasks("exec", "--", "echo", "up").out == "up\n"
    told = repo.tasks("task-status", "--json").json
    assert (told["container"]["state"], told["container"]["error"]) == ("running", None)


def test_an_engine_that_is_gone_when_a_task_is_left_is_not_waited_for_and_made_good_later(
    live_repo: Repo, tmp_path: Path, engine_host: str, states: Callable[[Repo], dict[str, str]]
) -> None:
    socket = tmp_path / "now.sock"
    socket.symlink_to(engine_host.removeprefix("unix://"))
    env = {"DOCKER_HOST": f"unix://{socket}", "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"}
    repo = Repo(live_repo.top, env)
    repo.git("checkout", "--quiet", "-b", "task/one")
    repo.tasks("exec", "--", "true")
    one = repo.only_id()
    socket.unlink()
    left = repo.git("checkout", "--quiet", "main")
    assert "could not be paused" in left.err
    assert states(repo) == {one: "running"}
    wait(lambda: not background(repo))
    socket.symlink_to(engine_host.removeprefix("unix://"))
    repo.tasks("reconcile", "--quick")
    assert states(repo) == {one: "paused"}
