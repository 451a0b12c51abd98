"""`reconcile` brings containers to where their tasks want them, whatever happened to them."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers.spec import container_name
from opencode_tasks.store import Store
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


@pytest.fixture
def lazy(live_repo: Repo) -> Repo:
    return Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})


def begin(repo: Repo, branch: str = "task/one") -> str:
    before = set(repo.ids())
    repo.git("checkout", "--quiet", "-b", branch)
    repo.tasks("exec", "--", "true")
    (task_id,) = set(repo.ids()) - before
    return task_id


def states_of(client: docker.DockerClient, repo: Repo) -> dict[str, str]:
    clone = (repo.common / "opencode-tasks" / "clone").read_text().strip()
    listed = client.api.containers(all=True, filters={"label": f"opencode-tasks.clone={clone}"})
    return {c["Names"][0].lstrip("/"): c["State"] for c in listed}


def plan(repo: Repo, *args: str) -> list[tuple[str, str, bool]]:
    found = repo.tasks("reconcile", "--json", *args).json["plan"]
    return [(a["action"], a["what"], a["done"]) for a in found]


def sockets_of(repo: Repo) -> Path:
    clone = (repo.common / "opencode-tasks" / "clone").read_text().strip()
    return Path("/tmp", f"opencode-tasks-{os.getuid()}", clone)


def test_memory_removed_by_hand_its_container_goes_only_when_asked(lazy: Repo, client: docker.DockerClient) -> None:
    task_id = begin(lazy)
    lazy.git("checkout", "--quiet", "main")
    shutil.rmtree(lazy.store / task_id)
    mark = lazy.common / "opencode-tasks" / "ready" / f"{task_id}.json"
    assert mark.exists()
    assert plan(lazy) == [("remove", "container", False)]
    assert states_of(client, lazy) == {container_name(task_id): "paused"}
    assert plan(lazy, "--apply") == [("remove", "container", True)]
    assert states_of(client, lazy) == {}
    assert not (sockets_of(lazy) / task_id).exists()
    assert not mark.exists()
    assert plan(lazy, "--apply") == []


def test_what_programs_run_in_is_removed_only_with_force(lazy: Repo, client: docker.DockerClient) -> None:
    task_id = begin(lazy)
    lazy.tasks("exec", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    lazy.git("checkout", "--quiet", "main")
    shutil.rmtree(lazy.store / task_id)
    said = lazy.tasks("reconcile", "--apply", "--json").json["plan"]
    assert [(a["action"], a["done"]) for a in said if a["what"] == "container"] == [("leave", False)]
    assert "--force" in said[0]["why"]
    assert states_of(client, lazy) == {container_name(task_id): "paused"}
    lazy.tasks("reconcile", "--apply", "--force")
    assert states_of(client, lazy) == {}


def test_closed_while_nobody_could_stop_it(lazy: Repo, client: docker.DockerClient) -> None:
    task_id = begin(lazy)
    Store(lazy.common).ensure_status(task_id, "completed", reason="killed in the middle", actor="test")
    assert plan(lazy) == [("stop", "container", True)]
    assert states_of(client, lazy) == {container_name(task_id): "exited"}


def test_a_second_container_of_a_task_goes_and_the_first_stays(lazy: Repo, client: docker.DockerClient) -> None:
    task_id = begin(lazy)
    first = client.containers.get(container_name(task_id))
    assert first.image is not None
    client.containers.create(first.image, ["true"], name=f"{container_name(task_id)}-old", labels=first.labels)
    assert plan(lazy) == [("remove", "container", False)]
    assert plan(lazy, "--apply") == [("remove", "container", True)]
    assert states_of(client, lazy) == {container_name(task_id): "running"}
    assert lazy.tasks("exec", "--", "echo", "here").out == "here\n"


def test_after_a_reboot_commands_run_as_before(lazy: Repo, client: docker.DockerClient) -> None:
    """Containers have ended, and /tmp is empty."""
    task_id = begin(lazy)
    lazy.tasks("exec", "--", "sh", "-c", "echo kept >file")
    client.containers.get(container_name(task_id)).kill()
    shutil.rmtree(sockets_of(lazy))
    assert lazy.tasks("exec", "--", "cat", "file").out == "kept\n"
    assert (sockets_of(lazy) / task_id / "supervisor.sock").exists()
    assert plan(lazy) == []


def test_a_cleaner_of_tmp_took_the_socket_away_it_is_made_anew(lazy: Repo, client: docker.DockerClient) -> None:
    task_id = begin(lazy)
    before = client.containers.get(container_name(task_id)).id
    shutil.rmtree(sockets_of(lazy))
    lazy.tasks("exec", "--", "true")
    after = client.containers.get(container_name(task_id)).id
    assert after != before
    assert (sockets_of(lazy) / task_id / "supervisor.sock").exists()


def test_the_same_but_a_server_runs_in_it_it_stays_and_is_reached_through_the_engine(
    lazy: Repo, client: docker.DockerClient
) -> None:
    task_id = begin(lazy)
    lazy.tasks("exec", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    before = client.containers.get(container_name(task_id)).id
    shutil.rmtree(sockets_of(lazy))
    assert lazy.tasks("exec", "--", "pgrep", "-x", "sleep").out
    assert client.containers.get(container_name(task_id)).id == before


def test_a_worktree_that_was_made_again_is_the_one_that_is_seen_inside(lazy: Repo, client: docker.DockerClient) -> None:
    made = lazy.tasks("create-task", "Beside", "--worktree", "--json").json
    beside = Repo(Path(made["workspace"]["path"]), lazy.env)
    beside.tasks("exec", "--", "true")
    shutil.rmtree(beside.top)
    assert ("pause", "container", True) in plan(lazy)
    assert lazy.tasks("task-status", made["id"], "--json").json["status"] == "paused"
    lazy.git("worktree", "prune")
    lazy.git("worktree", "add", "--quiet", str(beside.top), made["branch"])
    beside.write("new", "is seen\n")
    assert beside.tasks("exec", "--", "cat", "new").out == "is seen\n"


def test_hooks_that_never_ran_are_made_good(lazy: Repo, client: docker.DockerClient) -> None:
    one = begin(lazy)
    two = begin(lazy, "task/two")
    lazy.git("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "task/one")
    lazy.tasks("reconcile")
    assert states_of(client, lazy) == {container_name(one): "running", container_name(two): "paused"}
    lazy.git("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "main")
    lazy.tasks("reconcile")
    assert states_of(client, lazy) == {container_name(one): "paused", container_name(two): "paused"}
    assert plan(lazy) == []


def test_a_clone_that_is_gone_is_told_by_its_neighbours_and_removed_when_asked(
    lazy: Repo, make_repo: Callable[..., Repo], client: docker.DockerClient
) -> None:
    other = Repo(make_repo("other").top, lazy.env)
    other.tasks("init")
    other.commit("settings")
    task_id = begin(other)
    lazy.git("checkout", "--quiet", "-b", "task/mine")
    name = container_name(task_id)

    def about(*args: str) -> list[tuple[str, bool]]:
        found = lazy.tasks("reconcile", "--json", *args).json["plan"]
        return [(a["action"], a["done"]) for a in found if a["name"] == name]

    try:
        assert about("--apply", "--elsewhere") == [], "it is there"
        shutil.rmtree(other.top)
        assert about("--apply") == [("leave", False)]
        assert about("--elsewhere") == [("remove", False)]
        assert client.containers.get(name).status == "running"
        assert about("--elsewhere", "--apply") == [("remove", True)]
        with pytest.raises(docker.errors.NotFound):
            client.containers.get(name)
    finally:
        with suppress(docker.errors.NotFound):
            client.api.remove_container(name, force=True)


def test_a_worktree_that_a_killed_create_task_left_goes_when_nothing_is_in_it(lazy: Repo) -> None:
    path = lazy.top.parent / f"{lazy.top.name}.worktrees" / "half-done-7k3q9m"
    lazy.git("worktree", "add", "--quiet", "-b", "task/half", str(path), env={"OPENCODE_TASKS_HOOKS": "off"})
    assert plan(lazy, "--apply") == [], "somebody may be making it right now"
    git_dir = lazy.common / "worktrees" / path.name
    long_ago = (time.time() - 3600,) * 2
    (path / "work").write_text("not committed\n")
    for place in (git_dir / "HEAD", git_dir / "gitdir", path):
        os.utime(place, long_ago)
    assert plan(lazy, "--apply") == [("leave", "worktree", False)]
    (path / "work").unlink()
    for place in (git_dir / "HEAD", git_dir / "gitdir", path):
        os.utime(place, long_ago)
    assert plan(lazy) == [("remove", "worktree", False)]
    assert path.is_dir()
    assert plan(lazy, "--apply") == [("remove", "worktree", True)]
    assert not path.exists()
    assert lazy.git("rev-parse", "task/half").out


def test_what_a_killed_creation_left_in_the_store_goes_with_apply(lazy: Repo) -> None:
    half = lazy.store / ".new-half-7k3q9m"
    half.mkdir()
    assert plan(lazy, "--apply") == [], "somebody may be making it right now"
    os.utime(half, (time.time() - 3600,) * 2)
    assert plan(lazy) == [("remove", "half-made task", False)]
    assert plan(lazy, "--apply") == [("remove", "half-made task", True)]
    assert not half.exists()


def test_several_at_once_beside_commands_and_checkouts(lazy: Repo, client: docker.DockerClient) -> None:
    ids = [begin(lazy, f"task/{n}") for n in range(3)]
    client.api.remove_container(container_name(ids[0]), force=True)
    client.containers.get(container_name(ids[1])).unpause()
    env = {**os.environ, **lazy.env}
    calls = [["reconcile"], ["reconcile", "--apply", "--force"], ["exec", "--", "true"], ["reconcile", "--quick"]] * 3
    running = [
        subprocess.Popen(
            ["opencode-tasks", *c], cwd=lazy.top, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for c in calls
    ]
    outcomes = [(process.communicate(timeout=120)[0].decode(), process.returncode) for process in running]
    assert [said for said, code in outcomes if code != 0] == []
    assert states_of(client, lazy) == {container_name(ids[1]): "paused", container_name(ids[2]): "running"}
    assert plan(lazy) == []


@pytest.mark.parametrize("words", [("x", "--apply"), ("x", "--quick"), ("x", "--elsewhere")])
def test_flags_that_are_for_everything(repo: Repo, words: tuple[str, ...]) -> None:
    ran = repo.tasks("reconcile", *words, "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage")
