"""Where a task's supervisor listens, on the host's side.

Not below the git directory: every container of the clone sees that, and could speak to its
neighbours' supervisors. The place is the same for every process of the user, whatever its environment says, for
it is part of what a container is made of.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks.store import Store


def folder(clone: str, task_id: str) -> Path | None:
    """Made if need be. None where somebody else sits in its place: then there is only the engine's exec."""
    path = _of_clone(clone) / task_id
    try:
        for part in (path.parent.parent, path.parent, path):
            with suppress(FileExistsError):
                part.mkdir(mode=0o700)
            found = part.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
                return None
    except OSError:
        return None
    return path


def remove(clone: str, task_id: str) -> None:
    _remove(_of_clone(clone) / task_id)


def remove_all(clone: str) -> None:
    """Of all tasks of a clone."""
    _remove(_of_clone(clone))


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)  # it follows no link


def _of_clone(clone: str) -> Path:
    return Path("/tmp", f"opencode-tasks-{os.getuid()}", clone)  # noqa: S108 (each part is checked)


@contextmanager
def used(store: Store, task_id: str) -> Iterator[None]:
    """While a command runs: the container is not made anew meanwhile. Released by the kernel when we die."""
    with _flock(store, task_id, fcntl.LOCK_SH):
        yield


def when_unused(store: Store, task_id: str, do: Callable[[], None]) -> bool:
    """Whether nobody's command ran, so that `do` was done."""
    try:
        with _flock(store, task_id, fcntl.LOCK_EX | fcntl.LOCK_NB):
            do()
    except BlockingIOError:
        return False
    return True


@contextmanager
def _flock(store: Store, task_id: str, how: int) -> Iterator[None]:
    path = store.layout.lock(f"{task_id}.used")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)
