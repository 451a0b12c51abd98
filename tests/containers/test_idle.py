"""Containers stop when nothing has happened in them for so long: real commands, the real engine."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from opencode_tasks import config, durations
from opencode_tasks.containers import agreement
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import container_name
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from tests.conftest import Repo


@pytest.fixture
def idle(live_repo: Repo) -> Repo:
    """After one second of quiet it is idle; and nothing is started in the background."""
    env = {"OPENCODE_TASKS_CONTAINER_AUTOSTART": "no", "OPENCODE_TASKS_CONTAINER_IDLE_STOP": "1s"}
    return Repo(live_repo.top, {**live_repo.env, **env})


@pytest.fixture
def state(client: docker.DockerClient) -> Callable[[str], str]:
    def look(task_id: str) -> str:
        return str(client.containers.get(container_name(task_id)).status)

    return look


def begin(repo: Repo, branch: str = "task/one") -> str:
    before = set(repo.ids())
    repo.git("checkout", "--quiet", "-b", branch)
    repo.tasks("exec", "--", "true")
    (task_id,) = set(repo.ids()) - before
    return task_id


def test_idle_it_stops_and_the_next_command_starts_it(idle: Repo, state: Callable[[str], str]) -> None:
    task_id = begin(idle)
    time.sleep(1.1)
    (action,) = idle.tasks("reconcile", "--quick", "--json").json["plan"]
    assert (action["action"], action["done"], action["task"]) == ("stop", True, task_id)
    assert state(task_id) == "exited"
    assert idle.tasks("task-status", "--json").json["container"]["state"] == "stopped"
    assert idle.tasks("exec", "--", "echo", "again").out == "again\n"
    assert state(task_id) == "running"


def test_paused_it_stops_without_being_thawed(idle: Repo, state: Callable[[str], str]) -> None:
    task_id = begin(idle)
    idle.git("checkout", "--quiet", "main")
    assert state(task_id) == "paused"
    time.sleep(1.1)
    idle.tasks("reconcile", "--quick")
    assert state(task_id) == "exited"
    idle.git("checkout", "--quiet", "task/one")
    assert idle.tasks("exec", "--", "echo", "again").out == "again\n"


def test_a_server_that_was_left_running_keeps_it_up(idle: Repo, state: Callable[[str], str]) -> None:
    task_id = begin(idle)
    idle.tasks("exec", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    time.sleep(1.1)
    (action,) = idle.tasks("reconcile", "--json").json["plan"]
    assert (action["action"], action["done"]) == ("leave", False)
    assert "run" in action["why"]
    assert state(task_id) == "running"
    idle.tasks("exec", "--", "pkill", "sleep")
    time.sleep(1.1)
    idle.tasks("reconcile", "--quick")
    assert state(task_id) == "exited"


def test_a_command_that_runs_keeps_it_up_however_quiet_it_is(idle: Repo, state: Callable[[str], str]) -> None:
    task_id = begin(idle)
    argv = ["opencode-tasks", "exec", "--", "cat"]
    with subprocess.Popen(argv, cwd=idle.top, env={**os.environ, **idle.env}, stdin=subprocess.PIPE) as running:
        time.sleep(2.5)
        idle.tasks("reconcile", "--quick")
        assert state(task_id) == "running"
        running.communicate(timeout=30)
    assert running.returncode == 0


def test_any_command_that_asks_the_engine_stops_the_idle_ones_of_others(
    idle: Repo, state: Callable[[str], str]
) -> None:
    one = begin(idle)
    two = begin(idle, "task/two")
    time.sleep(1.1)
    mark = idle.common / "opencode-tasks" / "reconciled"
    ready = idle.common / "opencode-tasks" / "ready"
    for path in (mark, *ready.iterdir()):
        path.unlink()
    idle.tasks("exec", "--", "true")
    until = time.monotonic() + 30
    while state(one) != "exited":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert mark.exists()
    assert state(two) in ("running", "exited")  # its own second of quiet may be over by now


def test_once_a_minute_at_most(live_repo: Repo) -> None:
    store = Store(live_repo.common)
    assert agreement.is_due(store)
    agreement._touch(store)
    assert not agreement.is_due(store)
    os.utime(store.layout.reconciled, (time.time() - 61,) * 2)
    assert agreement.is_due(store)
    os.utime(store.layout.reconciled, (time.time() + 3600,) * 2)  # the clock was set back
    assert agreement.is_due(store)


def test_the_look_is_one_request_however_many_containers(idle: Repo, engine_host: str) -> None:
    for name in ("task/one", "task/two", "task/three"):
        begin(idle, name)
    store, engine = Store(idle.common), Engine()
    asked: list[str] = []
    send = engine.api.send

    def count(request: object, *args: object, **named: object) -> object:
        asked.append(str(getattr(request, "url", "")))
        return send(request, *args, **named)  # type: ignore[arg-type]

    engine.api.send = count  # type: ignore[method-assign,assignment]
    quiet = config.load(idle.top, {"OPENCODE_TASKS_CONTAINER_IDLE_STOP": "never"})
    agreement.in_passing(store, engine, quiet, idle.top)
    assert len(asked) == 0, "the commands have just looked"
    store.layout.reconciled.unlink()
    agreement.in_passing(store, engine, quiet, idle.top)
    assert len(asked) == 1
    engine.api.close()


@pytest.mark.parametrize("text", ["2 h", "", "-1h", "h", "1.5h", "2H", "12345678s", "none"])
def test_what_is_no_length_of_time_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TaskError) as e:
        config.load(tmp_path, {"OPENCODE_TASKS_CONTAINER_IDLE_STOP": text})
    assert e.value.code == "config"
    assert "idle_stop" in e.value.message
    assert "never" in e.value.hint


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("2w", 1209600),
        ("5s", 5),
        ("never", None),
        ("0", None),
        ("0h", None),
    ],
)
def test_lengths_of_time(text: str, wanted_s: int | None) -> None:
    assert durations.seconds_or_never(text) == wanted_s
