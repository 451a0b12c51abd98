"""Named volumes with the real engine: whose they are, who may write them, when they go."""

import multiprocessing
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
import yaml
from docker.types import Mount

from opencode_tasks import assets
from opencode_tasks.containers import images, spec, volumes
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import Additions, ContainerSpec, Limits, Place
from opencode_tasks.errors import TaskError
from opencode_tasks.task import Base, Task, Workspace
from tests.conftest import Repo

LABEL = "opencode-tasks"


@pytest.fixture
def clone(engine: Engine) -> Iterator[str]:
    """An id that nobody has; its volumes are removed."""
    made = uuid.uuid4().hex[:8]
    yield made
    for found in volumes.listed(engine, made):
        volumes.remove(engine, found.name)


_LIMITS = Limits("256m", "256m", 0.8, 1, 64, "16m", "16m", "1m")


def _task(clone: str) -> str:
    return f"some-task-{clone[:6]}"


def _spec(engine: Engine, clone: str, more: Additions, *, uid: int = 0) -> ContainerSpec:
    task = Task(
        id=_task(clone),
        title="",
        branch="task/x",
        base=Base("main", "a" * 40),
        status="running",
        workspace=Workspace("in-place", "/src/repo"),
        created_at="",
        updated_at="",
        rev=1,
    )
    place = Place(clone, "repo-hash", uid, uid, "ann", [], [])
    return spec.build(task, images.newest(engine, "base").tag, _LIMITS, place, more)


def _caches(clone: str, *kinds: str, shared: bool = False) -> Additions:
    return volumes.caches(kinds, clone=clone, task_id=_task(clone), shared=shared)


def test_every_cache_of_the_table_is_directly_below_home_and_its_tool_is_told_so() -> None:
    table = yaml.safe_load((assets.root() / "templates" / "caches.yaml").read_text())
    assert {"pip", "npm", "cargo", "go", "maven"} <= set(table)
    for one in table.values():
        assert re.fullmatch(r"[.a-z0-9-]+", one["path"])
        assert all(f"{said}/".startswith(f"/home/agent/{one['path']}/") for said in one["environment"].values())
    assert len({one["path"] for one in table.values()}) == len(table)


def test_an_unknown_cache_names_those_there_are(clone: str) -> None:
    with pytest.raises(TaskError) as refused:
        _caches(clone, "pip", "piip")
    assert refused.value.code == "config"
    assert "pip, uv" in refused.value.hint


def test_names_are_the_tasks_or_the_clones_and_never_equal_for_two_kinds() -> None:
    def name(kind: str, *, shared: bool) -> str:
        return volumes.name_of(kind, clone="c1", task_id="t1", shared=shared)

    assert name("pip", shared=False) == "opencode-cache-t1-pip"
    assert name("pip", shared=True) == "opencode-cache-c1-pip"
    kinds = ["a/b", "a_b", "a b", "x" * 200, "x" * 201]
    made = {name(kind, shared=True) for kind in kinds}
    assert len(made) == len(kinds)
    assert all(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", one) for one in made)


def test_volumes_are_in_the_specification_and_its_digest(engine: Engine, clone: str) -> None:
    without, with_pip = (_spec(engine, clone, more) for more in (Additions(), _caches(clone, "pip")))
    assert with_pip.environment["PIP_CACHE_DIR"] == "/home/agent/.pip-cache"
    assert without.digest != with_pip.digest
    assert with_pip.digest != _spec(engine, clone, _caches(clone, "pip", shared=True)).digest
    assert spec.document(with_pip)["volumes"][0]["name"] == f"opencode-cache-{_task(clone)}-pip"
    hidden = _spec(engine, clone, Additions({"HOME": "/x", "USER": "x", "A": "b"}))
    assert [hidden.environment[n] for n in ("HOME", "USER", "A")] == ["/home/agent", "ann", "b"]


def test_a_fresh_volume_is_its_users_though_nothing_ever_ran_as_root(
    engine: Engine, clone: str, client: docker.DockerClient
) -> None:
    made = _spec(engine, clone, _caches(clone, "pip", "npm"), uid=1234)
    volumes.make(engine, made)
    before = client.api.containers(all=True, filters={"label": f"{LABEL}.helper"})
    assert not [c for c in before if c["Labels"][f"{LABEL}.helper"] == made.name]
    script = "touch /home/agent/.pip-cache/f /home/agent/.npm/f && stat -c '%u:%g %a' /home/agent/.npm"
    out = client.containers.run(
        made.image,
        ["sh", "-c", script],
        user="1234:1234",
        cap_drop=["ALL"],
        remove=True,
        network_mode="none",
        tmpfs={"/home/agent": "uid=1234"},
        mounts=[Mount(v.path, v.name, type="volume") for v in made.volumes],
    )
    assert out == b"1234:1234 700\n"
    volumes.make(engine, made)  # what is in it stays
    again = client.containers.run(
        made.image, ["ls", "/v"], user="1234", remove=True, mounts=[Mount("/v", made.volumes[0].name, type="volume")]
    )
    assert again == b"f\n"


def test_what_a_killed_maker_left_goes_when_it_is_old(
    engine: Engine, clone: str, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _spec(engine, clone, _caches(clone, "pip"), uid=1234)
    left = client.containers.create(made.image, ["-"], labels={f"{LABEL}.helper": made.name})
    try:
        volumes.make(engine, made)
        left.reload()  # it may be somebody's who is at it
        monkeypatch.setattr(volumes, "_GIVEN_S", -1)
        volumes.make(engine, made)
        with pytest.raises(docker.errors.NotFound):
            left.reload()
    finally:
        with suppress(docker.errors.NotFound):
            left.remove(force=True)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ({}, {}),
        ({f"{LABEL}.clone": "other"}, {}),
        ({f"{LABEL}.task": "other-task-7k3q9m"}, {}),
        ({f"{LABEL}.volume": "npm"}, {}),
        (None, {"type": "none", "o": "bind", "device": "/etc"}),
    ],
    ids=["no label", "another clone's", "another task's", "another kind", "a folder of the host"],
)
def test_a_volume_of_somebody_else_with_our_name_is_not_used(
    engine: Engine, clone: str, client: docker.DockerClient, labels: dict[str, str] | None, options: dict[str, str]
) -> None:
    made = _spec(engine, clone, _caches(clone, "pip"))
    (volume,) = made.volumes
    own = {
        f"{LABEL}.schema": "1",
        f"{LABEL}.clone": clone,
        f"{LABEL}.repository": "repo-hash",
        f"{LABEL}.volume": "pip",
        f"{LABEL}.task": _task(clone),
    }
    given = {**own, **labels} if labels else labels
    theirs = client.volumes.create(volume.name, labels=own if given is None else given, driver_opts=options)
    try:
        with pytest.raises(TaskError) as refused:
            volumes.make(engine, made)
        assert (refused.value.code, volume.name in refused.value.message) == ("name_taken", True)
    finally:
        theirs.remove()
    volumes.make(engine, made)


def _make(made: ContainerSpec) -> None:
    volumes.make(Engine(), made)


def test_several_may_make_the_same_at_once(engine: Engine, clone: str) -> None:
    made = _spec(engine, clone, _caches(clone, "pip", "npm", shared=True), uid=1234)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_make, [made] * 3)
    assert [(v.kind, v.task) for v in volumes.listed(engine, clone)] == [("npm", None), ("pip", None)]


def test_listed_and_removed_unless_a_container_has_it(engine: Engine, clone: str, client: docker.DockerClient) -> None:
    volumes.make(engine, _spec(engine, clone, _caches(clone, "pip", shared=True)))
    volumes.make(engine, _spec(engine, clone, _caches(clone, "npm")))
    npm, pip = sorted(volumes.listed(engine, clone), key=lambda v: v.kind)
    assert (npm.task, pip.task) == (_task(clone), None)
    assert npm.created_at
    image = images.newest(engine, "base").tag
    holder = client.containers.create(image, ["true"], mounts=[Mount("/v", npm.name, type="volume")])
    assert not volumes.remove(engine, npm.name)
    holder.remove()
    assert volumes.remove(engine, npm.name)
    assert volumes.remove(engine, npm.name)
    assert [v.kind for v in volumes.listed(engine, clone)] == ["pip"]


# With whole tasks


@pytest.fixture
def settings(live_repo: Repo, engine: Engine) -> Iterator[Callable[[str], None]]:
    """Sets the repository's settings; its volumes are removed with it."""

    def set_(text: str) -> None:
        (live_repo.top / ".opencode" / "tasks.toml").write_text(text)
        live_repo.commit("settings")

    yield set_
    live_repo.tasks("uninstall", "--purge", check=False)


def _clone_of(repo: Repo) -> str:
    return Path(repo.common, "opencode-tasks", "clone").read_text().strip()


def _exec(repo: Repo, script: str, task: str) -> tuple[int, str]:
    ran = repo.tasks("exec", "--task", task, "--", "sh", "-c", script, check=False)
    return ran.code, ran.out


def test_a_tasks_cache_outlives_its_container_and_goes_when_asked(
    live_repo: Repo, engine: Engine, settings: Callable[[str], None], client: docker.DockerClient
) -> None:
    settings('[container]\ncaches = ["pip", "npm"]\n')
    live_repo.tasks("create-task", "one", "--branch", "task/one")
    one = live_repo.only_id()
    assert _exec(live_repo, "echo kept > $PIP_CACHE_DIR/f; grep -c pip-cache /proc/mounts", one) == (0, "1\n")
    client.containers.get(f"opencode-task-{one}").remove(force=True)
    assert _exec(live_repo, "cat ~/.pip-cache/f", one) == (0, "kept\n")
    assert "2, 0 of them shared" in live_repo.tasks("doctor", check=False).out
    live_repo.git("checkout", "--quiet", "main")
    kept = live_repo.tasks("cleanup-task", one).out
    assert f"volumes kept: opencode-cache-{one}-npm, opencode-cache-{one}-pip" in kept
    assert len(volumes.listed(engine, _clone_of(live_repo))) == 2
    removed = live_repo.tasks("cleanup-task", one, "--volumes").out
    assert removed.count("removed") == 2
    assert volumes.listed(engine, _clone_of(live_repo)) == []


def test_without_settings_there_are_no_volumes(live_repo: Repo, engine: Engine) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/none")
    live_repo.tasks("exec", "--", "true")
    assert volumes.listed(engine, _clone_of(live_repo)) == []


def test_a_shared_cache_is_the_projects_until_it_is_purged(
    live_repo: Repo, engine: Engine, settings: Callable[[str], None]
) -> None:
    settings('[container]\ncaches = ["pip"]\ncache_scope = "project"\n')
    one, two = (live_repo.tasks("create-task", name, "--worktree", "--json").json["id"] for name in ("one", "two"))
    assert _exec(live_repo, "echo shared > ~/.pip-cache/f", one)[0] == 0
    assert _exec(live_repo, "cat ~/.pip-cache/f", two) == (0, "shared\n")
    clone = _clone_of(live_repo)
    assert "--purge removes them" in live_repo.tasks("uninstall").out
    assert [v.task for v in volumes.listed(engine, clone)] == [None]
    live_repo.tasks("init")
    assert f"volume opencode-cache-{clone}-pip removed" in live_repo.tasks("uninstall", "--purge").out
    assert volumes.listed(engine, clone) == []


def test_a_changed_setting_makes_the_container_anew(live_repo: Repo, settings: Callable[[str], None]) -> None:
    live_repo.tasks("create-task", "one")
    one = live_repo.only_id()
    assert _exec(live_repo, "test -d ~/.pip-cache", one)[0] == 1
    (live_repo.top / ".opencode" / "tasks.toml").write_text('[container]\ncaches = ["pip"]\n')
    assert _exec(live_repo, "test -d ~/.pip-cache", one)[0] == 0


@pytest.mark.parametrize(("text", "said"), [('caches = ["nope"]', "no cache 'nope'"), ('cache_scope = "all"', "'all'")])
def test_a_setting_that_cannot_be_is_an_error(
    live_repo: Repo, settings: Callable[[str], None], text: str, said: str
) -> None:
    live_repo.tasks("create-task", "one")
    (live_repo.top / ".opencode" / "tasks.toml").write_text(f"[container]\n{text}\n")
    done = live_repo.tasks("exec", "--json", "--", "true", check=False).json["error"]
    assert done["code"] == "config"
    assert said in done["message"]
