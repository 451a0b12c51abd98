"""Stores without git around them, and processes that work on them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks import fold
from opencode_tasks.store import Store, state
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Task, Workspace
from opencode_tasks.values import replace

ID = "fix-parser-7k3q9m"
PRELUDE = """
import os, signal, sys
from pathlib import Path
from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace
store = Store(Path(sys.argv[1]), hot=sys.argv[2] == "hot")
"""

# Tells when the feed knows of the task, and goes on when it is told to.
CREATES = """
real = os.rename
def slowly(*args, **kwargs):
    print("noted", flush=True)
    sys.stdin.readline()
    real(*args, **kwargs)
os.rename = slowly
made = NewTask("late-000000", "Late", "task/late", Base("main", "a" * 40), Workspace("in-place", "/src"))
if sys.argv[3] == "create":
    store.create(made, actor="x")
else:
    store.create_many([made], actor="x")
print("done", flush=True)
"""

Spawn = Callable[..., subprocess.Popen[str]]


def new(task_id: str = ID, **fields: Any) -> NewTask:
    base, workspace = Base("main", "a" * 40), Workspace("in-place", "/src/repo")
    return replace(NewTask(task_id, "Fix the parser", "task/fix-parser", base, workspace), **fields)


def create(store: Store, task_id: str = ID) -> Task:
    return store.create(new(task_id), actor="test")


def is_consistent(store: Store) -> bool:
    """What is read, what the log says, and the projection's bytes are one."""
    task, at = store.load(ID)
    folded = fold.fold(store.history(ID))
    return store.get(ID) == task == folded and store.layout.state(ID).read_bytes() == state.render(folded, at)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path, hot=True)
    made.make()
    return made


@pytest.fixture
def task(store: Store) -> Task:
    return create(store)


@pytest.fixture
def log_path(store: Store, task: Task) -> Path:
    (only,) = store.layout.log(task.id).iterdir()
    return only


@pytest.fixture
def spawn(store: Store) -> Iterator[Spawn]:
    """A process with `store` (or that of `common_dir`) at hand; `args` from `sys.argv[3]` on."""
    started = []

    def start(
        script: str, *args: str, hot: bool = True, common_dir: Path = store.layout.common_dir
    ) -> subprocess.Popen[str]:
        variant = "hot" if hot else "cold"
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(common_dir), variant, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with mounted(tmp_path / "small", "64k") as place:
        yield place


def fill(disk: Path, *, pages_left: int = 0) -> Path:
    """Take all of the disk but `pages_left`; the file that has to go to get it back."""
    filler = disk / "filler"
    page_b = bytes(4096)
    try:
        with filler.open("wb", buffering=0) as f:
            while True:
                f.write(page_b)
    except OSError:
        pass
    kept = max(0, filler.stat().st_size // len(page_b) - pages_left)
    with filler.open("r+b") as f:
        f.truncate(kept * len(page_b))
    return filler
