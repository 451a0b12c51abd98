"""The short way to a command asks nobody: it must not overlook what the long way would have seen."""

import time
from collections.abc import Callable

import docker
import pytest

from opencode_tasks import config
from opencode_tasks.containers import ready
from opencode_tasks.store import Store
from tests.commands.test_exec import inside, shell
from tests.conftest import Repo


@pytest.fixture
def repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/ready")
    inside(live_repo, "true")
    return live_repo


@pytest.fixture
def is_ready(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    for name, value in repo.env.items():
        monkeypatch.setenv(name, value)
    store = Store(repo.top / ".git")
    return lambda: ready.is_ready(store, config.load(repo.top, {}), store.get(repo.only_id()))


def _settings(repo: Repo) -> None:
    (repo.top / ".opencode" / "tasks.toml").write_text('[container]\nlimits = "small"\n')


def _hooks_in_the_tree(repo: Repo) -> None:
    (repo.top / "hooks").mkdir()
    repo.git("config", "core.hooksPath", "hooks")


def _hooks_for_all(repo: Repo) -> None:
    (repo.top / "hooks").mkdir()
    repo.git("config", "--global", "core.hooksPath", str(repo.top / "hooks"))


def _submodule(repo: Repo) -> None:
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{repo.top}", "sub")


def _another_image(repo: Repo) -> None:
    store = Store(repo.top / ".git")
    store.update(repo.only_id(), {"image": "developer"}, actor="test")


def _stopped(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "main")
    repo.git("checkout", "--quiet", "task/ready", env={"OPENCODE_TASKS_HOOKS": "off"})


def _renamed(repo: Repo) -> None:
    repo.git("branch", "--move", "task/renamed")
    repo.tasks("task-status")


@pytest.mark.parametrize(
    "change", [_settings, _hooks_in_the_tree, _hooks_for_all, _submodule, _another_image, _stopped, _renamed]
)
def test_after_a_change_the_engine_is_asked(
    repo: Repo, is_ready: Callable[[], bool], change: Callable[[Repo], None]
) -> None:
    assert is_ready()
    change(repo)
    assert not is_ready()


def test_it_is_believed_for_minutes_only(
    repo: Repo, is_ready: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for passed_s, believed in ((299, True), (301, False), (-5, False)):
        monkeypatch.setattr(time, "time", lambda at=now + passed_s: at)
        assert is_ready() is believed


def test_a_mark_that_is_no_mark(repo: Repo, is_ready: Callable[[], bool]) -> None:
    mark = repo.top / ".git" / "opencode-tasks" / "ready" / f"{repo.only_id()}.json"
    for text in ("", "[]", "{", '{"at": "x"}', "null"):
        mark.write_text(text)
        assert not is_ready()
    assert inside(repo, "true").code == 0
    assert is_ready()


def test_what_is_protected_and_was_not_there_is_so_from_its_first_command_on(repo: Repo) -> None:
    _hooks_in_the_tree(repo)
    assert shell(repo, "echo planted > hooks/pre-commit", check=False).code != 0
    assert shell(repo, "touch works").code == 0


def test_a_container_that_was_removed_is_made_again(repo: Repo, client: docker.DockerClient) -> None:
    client.containers.get(f"opencode-task-{repo.only_id()}").remove(force=True)
    assert inside(repo, "echo", "again").out == "again\n"


def test_a_frozen_container_is_thawed(repo: Repo, client: docker.DockerClient) -> None:
    client.containers.get(f"opencode-task-{repo.only_id()}").pause()
    assert inside(repo, "echo", "thawed").out == "thawed\n"
