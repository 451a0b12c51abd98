"""Images: tagged by what goes in, built on a miss only, never pulled for a task."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_tasks import assets
from opencode_tasks.containers import images
from opencode_tasks.containers.engine import Engine
from opencode_tasks.errors import TaskError


@pytest.fixture
def engine(engine_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DOCKER_HOST", engine_host)
    made = Engine()
    yield made
    made.api.close()


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
