"""A read-only path deep in the tree: a folder above it cannot be renamed away, to put another in its place."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.images import newest
from tests.conftest import Repo, another
from tests.submodules import LIB, NESTED

SCRIPT = "ci/scripts/run"
RENAMED = "mv ci away && mkdir -p ci/scripts && echo planted >ci/scripts/run"


@pytest.fixture
def deep(live_repo: Repo, with_submodules: Path, tmp_path: Path) -> Iterator[Repo]:
    """On a task's branch: settings that protect a folder in a folder, and a submodule in a submodule."""
    another(with_submodules, tmp_path / "deep")
    settings = {"OPENCODE_TASKS_CONTAINER_AUTOSTART": "no", "OPENCODE_TASKS_CONTAINER_PROTECTED": "ci/scripts"}
    made = Repo(tmp_path / "deep", {**live_repo.env, **settings})
    made.commit("scripts", **{SCRIPT: "right\n", "ci/notes": "x\n"})
    made.git("checkout", "-q", "-b", "task/deep")
    yield made
    made.tasks("uninstall", check=False)


def test_nothing_takes_the_place_of_what_is_protected(deep: Repo) -> None:
    def inside(script: str) -> int:
        return deep.tasks("exec", "--", "sh", "-c", script, check=False).code

    assert inside(RENAMED) != 0
    for path in (LIB, NESTED, "vendor"):
        assert inside(f"mv {path} {path}-away") != 0, path
        assert inside(f"rmdir {path} || rm -rf {path}; test ! -e {path}") != 0, path
    assert (deep.top / SCRIPT).read_text() == "right\n"
    assert (deep.top / NESTED / ".git").is_file()
    # Work beside it goes on, across its border too.
    assert (
        inside("mv ci/notes notes && mv notes ci/again && echo x >ci/new && mkdir ci/more && mv ci/more ci/most") == 0
    )


def test_the_same_where_only_the_path_itself_is_mounted(
    deep: Repo, client: docker.DockerClient, engine: Engine
) -> None:
    top = deep.top
    naive = client.containers.run(
        newest(engine, "base").tag,
        ["sh", "-c", RENAMED],
        name=f"naive-{uuid.uuid4().hex[:8]}",
        detach=True,
        working_dir=str(top),
        volumes=[f"{top}:{top}", f"{top}/ci/scripts:{top}/ci/scripts:ro"],
    )
    try:
        assert naive.wait(timeout=60)["StatusCode"] == 0
        assert (top / SCRIPT).read_text() == "planted\n"
    finally:
        naive.remove(force=True)
