"""A store with its history, without a user's repository around it."""

from pathlib import Path

import pytest

from opencode_tasks.git import memory
from opencode_tasks.store import Store, log
from opencode_tasks.store.layout import Layout
from tests.conftest import run
from tests.store.conftest import ID, create


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path, hot=True, versions=memory.versions(Layout(tmp_path)))
    made.make()
    return made


@pytest.fixture
def task(store: Store) -> Path:
    """The log of a task that history knows."""
    create(store)
    store.record(ID, ("note.added", {"n": 1}), ("note.added", {"n": 2}), actor="test")
    memory.commit(store)
    store.written.clear()
    (only,) = store.layout.log(ID).iterdir()
    return only


def git(store: Store, *args: str, check: bool = True) -> str:
    return run(["git", f"--git-dir={store.layout.memory_git}", *args], cwd=store.layout.root, check=check).out


def commits(store: Store) -> int:
    return int(git(store, "rev-list", "--count", "main"))


def kept(store: Store, task_id: str = ID) -> str:
    """What history has of the newest state of the log."""
    name = log.name_of(store.writer, 1)
    return git(store, "show", f"main:{task_id[-2:]}/{task_id}/log/{name}")
