"""Where a task's supervisor listens, on the host's side.

Not below the git directory: every container of the clone sees that, and could speak to its
neighbours' supervisors. The place is the same for every process of the user, whatever its environment says, for
it is part of what a container is made of.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from opencode_tasks.containers.spec import SOCKET


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


def tasks(clone: str) -> list[str]:
    """Who has a folder. Nobody, where the place is not ours."""
    try:
        place = _of_clone(clone)
        found = place.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        return sorted(p.name for p in place.iterdir()) if is_ours else []
    except OSError:
        return []


def path(clone: str, task_id: str) -> Path:
    """The socket itself. The container can put anything there."""
    return _of_clone(clone) / task_id / SOCKET


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
