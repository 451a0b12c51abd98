"""`reconcile` brings containers to where their tasks want them, whatever happened to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import docker
import pytest

from opencode_tasks.containers.spec import container_name
from tests.conftest import Repo


@dataclass(frozen=True)
class Two:
    """One task whose branch is checked out, and one that was left; autostart is off, so only we act."""

    repo: Repo
    api: docker.APIClient
    here: str
    left: str

    def state(self, task_id: str) -> str:
        try:
            return str(self.api.inspect_container(container_name(task_id))["State"]["Status"])
        except docker.errors.NotFound:
            return "none"

    def states(self) -> tuple[str, str]:
        return self.state(self.here), self.state(self.left)


@pytest.fixture
def two(live_repo: Repo, engine_host: str) -> Iterator[Two]:
    repo = Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    ids = []
    for branch in ("task/left", "task/here"):
        repo.git("checkout", "--quiet", "-b", branch)
        repo.tasks("exec", "--", "true")
        ids.append(repo.tasks("task-status", "--json").json["id"])
    api = docker.APIClient(engine_host)
    yield Two(repo, api, here=ids[1], left=ids[0])
    api.close()


def container_of_left(two: Two) -> str:
    return container_name(two.left)


def container_of_here(two: Two) -> str:
    return container_name(two.here)


DAMAGE: dict[str, Callable[[Two], None]] = {
    "nothing happened": lambda _: None,
    "the one left was resumed": lambda two: two.api.unpause(container_of_left(two)),
    "the one here was paused": lambda two: two.api.pause(container_of_here(two)),
    "the one here was stopped": lambda two: two.api.stop(container_of_here(two), timeout=0),
    "the one here was removed": lambda two: two.api.remove_container(container_of_here(two), force=True),
}


def test_containers_follow_their_tasks(two: Two) -> None:
    for name, damage in DAMAGE.items():
        assert two.states() == ("running", "paused")
        damage(two)
        done = two.repo.tasks("reconcile", "--json").json
        assert two.states() == ("running", "paused"), name
        assert done["failed"] == []
        assert {t["id"]: (t["status"], t["container"]["state"]) for t in done["tasks"]} == {
            two.here: ("running", "running"),
            two.left: ("paused", "paused"),
        }


def test_again_nothing_is_left_to_do(two: Two) -> None:
    two.repo.tasks("reconcile")
    events = len(two.repo.events(two.here)), len(two.repo.events(two.left))
    two.repo.tasks("reconcile")
    assert (len(two.repo.events(two.here)), len(two.repo.events(two.left))) == events


def test_a_container_of_a_task_that_was_left_is_not_made_anew(two: Two) -> None:
    two.api.remove_container(container_of_left(two), force=True)
    assert two.repo.tasks("task-status", two.left, "--json").json["container"]["state"] == "lost"
    two.repo.tasks("reconcile")
    assert two.states() == ("running", "none")
    assert two.repo.tasks("task-status", two.left, "--json").json["container"]["state"] == "none"


def test_only_the_one_that_is_named(two: Two) -> None:
    two.api.stop(container_of_here(two), timeout=0)
    two.api.unpause(container_of_left(two))
    two.repo.tasks("reconcile", two.left)
    assert two.states() == ("exited", "paused")


def test_a_task_that_cannot_be_brought_up_does_not_hold_up_the_others(two: Two) -> None:
    two.repo.git("checkout", "--quiet", "main")
    two.repo.tasks("create-task", "Broken", "--image", "localhost/no-such-image:1")
    two.api.unpause(container_of_left(two))
    ran = two.repo.tasks("reconcile", "--json", check=False)
    assert ran.code == 1
    ((failure),) = ran.json["failed"]
    assert (failure["code"], failure["hint"]) == ("image_missing", "docker pull localhost/no-such-image:1")
    assert two.states() == ("paused", "paused")


def test_without_an_engine_it_says_so_and_the_tasks_stay_as_they_are(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/none")
    ran = repo.tasks("reconcile", repo.only_id(), "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_engine")
    assert ran.json["error"]["hint"]
    assert repo.tasks("task-status", "--json").json["status"] == "running"


def test_an_unknown_task_is_refused(repo: Repo) -> None:
    ran = repo.tasks("reconcile", "no-such-task", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_task")
    assert ran.json["error"]["hint"] == "opencode-tasks list-tasks"
