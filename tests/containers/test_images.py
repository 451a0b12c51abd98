"""Images: tagged by what goes in, built on a miss only, never pulled for a task."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from opencode_tasks import assets
from opencode_tasks.containers import images
from opencode_tasks.containers.engine import Engine
from opencode_tasks.errors import TaskError
from tests.conftest import Repo


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Artifacts of another version of ours: a base image that is quick to build."""
    shutil.copytree(assets.root() / "docker-images", tmp_path / "docker-images")
    dockerfile = tmp_path / "docker-images" / "opencode-sandbox-base" / "Dockerfile"
    dockerfile.write_text("ARG BASE\nFROM ${BASE}\nARG APT_MIRROR\nRUN echo made > /made\n")
    monkeypatch.setattr(assets, "root", lambda: tmp_path)
    return dockerfile


def test_the_image_that_is_here_is_not_built_again(engine: Engine) -> None:
    said: list[str] = []
    image = images.build(engine, "base", said.append)
    assert not image.built
    assert said == []
    assert image.tag.startswith("localhost/opencode-sandbox-base:")
    assert images.newest(engine, "base").id == image.id


def test_a_changed_recipe_is_missing_until_it_is_built_and_then_found(engine: Engine, changed: Path) -> None:
    with pytest.raises(TaskError) as missing:
        images.resolve(engine, "base")
    assert missing.value.code == "image_missing"
    assert missing.value.hint == "opencode-tasks images build base"
    said: list[str] = []
    first = images.build(engine, "base", said.append)
    try:
        assert first.built
        assert any("RUN echo made" in line for line in said)
        assert images.resolve(engine, None) == first.tag
        assert not images.build(engine, "base", said.append).built
    finally:
        engine.api.remove_image(first.tag, force=True)


def test_a_build_that_fails_says_where(engine: Engine, changed: Path) -> None:
    changed.write_text("ARG BASE\nFROM ${BASE}\nARG APT_MIRROR\nRUN echo about to fail && exit 9\n")
    with pytest.raises(TaskError, match="about to fail") as failed:
        images.build(engine, "base", lambda _: None)
    assert failed.value.code == "build_failed"


def test_without_the_foundation_the_error_names_the_script_that_makes_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FOUNDATION", "localhost/no-such-foundation:1")
    with pytest.raises(TaskError) as missing:
        images.build(engine, "base", lambda _: None)
    assert missing.value.code == "image_missing"
    assert Path(missing.value.hint.rpartition(" ")[2]).is_file()


def test_the_recipe_of_an_image_changes_with_that_of_its_parent(changed: Path) -> None:
    before = images.recipe("developer")
    changed.write_text(changed.read_text() + "RUN true\n")
    assert images.recipe("developer") != before


@pytest.fixture
def quick(engine: Engine, changed: Path) -> Iterator[images.Image]:
    """A base image of another version, which is this version for the test."""
    made = images.build(engine, "base", lambda _: None)
    yield made
    with suppress(docker.errors.ImageNotFound):
        engine.api.remove_image(made.tag, force=True)


def test_an_image_of_another_version_is_superfluous_unless_a_container_is_made_of_it(
    engine: Engine, quick: images.Image, changed: Path
) -> None:
    current = next(image for image in images.listed(engine) if image.tag == quick.tag)
    assert quick.tag not in [image.tag for image in images.superfluous(engine)]
    changed.write_text(changed.read_text() + "RUN true\n")
    assert quick.tag in [image.tag for image in images.superfluous(engine)]
    assert current in images.listed(engine)
    name = f"prune-{uuid.uuid4().hex[:8]}"
    engine.api.create_container(quick.tag, ["true"], name=name)
    assert not images.remove(engine, quick)
    engine.api.remove_container(name)
    assert images.remove(engine, quick)
    assert quick.tag not in [image.tag for image in images.listed(engine)]


def test_pruning_by_the_command_keeps_what_tasks_are_started_from(engine: Engine, repo: Repo, engine_host: str) -> None:
    told = Repo(repo.top, {"DOCKER_HOST": engine_host}).tasks("images", "prune", "--dry-run", "--json").json
    assert told["dry_run"] is True
    assert images.newest(engine, "base").tag not in told["removed"]


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz"])
def test_saved_removed_and_loaded_it_is_the_same(
    engine: Engine, quick: images.Image, tmp_path: Path, name: str
) -> None:
    told: list[str] = []
    file = tmp_path / name
    assert images.save(engine, "base", file, told.append).tag == quick.tag
    assert told
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(name) or "building" in p.name] == [name]
    engine.api.remove_image(quick.tag)

    def loaded() -> list[str]:
        """Other tests build images of projects at the same time."""
        return [i.tag for i in images.load(engine, file, told.append) if "project" not in i.tag]

    assert loaded() == [quick.tag]
    assert images.newest(engine, "base").id == quick.id
    assert loaded() == []


def test_a_save_that_fails_leaves_nothing_behind(engine: Engine, quick: images.Image, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "full"], check=True)
    try:
        with pytest.raises(TaskError) as refused:
            images.save(engine, "base", tmp_path / "full" / "x.tar", lambda _: None)
        assert refused.value.code == "disk_full"
        assert list((tmp_path / "full").iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "full"], check=True)
    with pytest.raises(TaskError) as missing:
        images.save(engine, "developer", tmp_path / "x.tar", lambda _: None)
    assert missing.value.code == "image_missing"


def test_a_file_that_is_no_image_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    for path in (tmp_path / "noise", tmp_path / "absent"):
        with pytest.raises(TaskError, match=path.name):
            images.load(engine, path, lambda _: None)
