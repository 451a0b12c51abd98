import os
import shutil
from pathlib import Path

import pytest

from opencode_tasks.store import Store, link
from opencode_tasks.store.layout import Layout
from tests.store.conftest import Spawn


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Store(tmp_path / "repo" / ".git")
    made.layout.common_dir.mkdir(parents=True)
    made.make()
    return made.layout


def test_the_link_of_the_main_checkout_is_relative_and_survives_a_move(layout: Layout, tmp_path: Path) -> None:
    top = tmp_path / "repo"
    assert link.state(top, layout) == "missing"
    assert link.ensure(top, layout) == "right"
    assert str((top / ".tasks").readlink()) == ".git/opencode-tasks/store"
    shutil.move(top, tmp_path / "moved")
    assert link.state(tmp_path / "moved", Layout(tmp_path / "moved" / ".git")) == "right"


def test_a_worktree_elsewhere_has_an_absolute_link(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "worktree").mkdir()
    assert link.ensure(tmp_path / "worktree", layout) == "right"
    assert (tmp_path / "worktree" / ".tasks").resolve() == layout.store


def _plant(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "itself":
        path.symlink_to(path.name)
    else:
        path.symlink_to("/")


@pytest.mark.parametrize("kind", ["file", "directory", "dangling", "itself", "elsewhere"])
def test_what_has_the_name_is_left_alone(layout: Layout, tmp_path: Path, kind: str) -> None:
    top = tmp_path / "repo"
    _plant(top / ".tasks", kind)
    before = os.lstat(top / ".tasks")
    assert link.state(top, layout) == "wrong"
    assert link.ensure(top, layout) == "wrong"
    assert not link.remove(top, layout)
    assert os.lstat(top / ".tasks") == before


def test_remove_takes_the_link_and_not_the_store(layout: Layout, tmp_path: Path) -> None:
    top = tmp_path / "repo"
    link.ensure(top, layout)
    assert link.remove(top, layout)
    assert not os.path.lexists(top / ".tasks")
    assert layout.store.is_dir()
    assert not link.remove(top, layout)


_RACER = """
from opencode_tasks.store import link
print("ready", flush=True)
for line in sys.stdin:
    print(link.ensure(Path(line.strip()), store.layout), flush=True)
"""


def test_two_processes_make_one_link(store: Store, spawn: Spawn, tmp_path: Path) -> None:
    racers = [spawn(_RACER) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for n in range(150):
        top = tmp_path / f"top{n}"
        top.mkdir()
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{top}\n")
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "right\n"
        assert link.state(top, store.layout) == "right"
