"""Where a task's supervisor listens, on the host's side.

Not below the git directory: every container of the clone sees that, and could speak to its
neighbours' supervisors. The place is the same for every process of the user, whatever its environment says, for
it is part of what a container is made of.
"""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from opencode_tasks.containers.spec import SOCKET
from opencode_tasks.values import value


def folder(clone: str, task_id: str) -> Path | None:
    """Made if need be. None where somebody else sits in its place: then there is only the engine's exec."""
    return _made(_of_clone(clone) / task_id, above=2)


def bridges(clone: str) -> Path | None:
    """Where the children of OpenCode's plugin listen. No container sees it. None as in `folder`."""
    return _made(_of_clone(clone) / "bridges", above=2)


def _made(path: Path, *, above: int) -> Path | None:
    try:
        for part in (*reversed(path.parents[:above]), path):
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


_PROXY = "proxy.sock"


@value
class Egress:
    """Of one task: its list (only the host writes it), the folder of its proxy's socket, and what that refused."""

    policy: Path
    socket: Path
    refused: Path


def egress_root(clone: str) -> Path:
    return _of_clone(clone) / "egress"


def egress_paths(clone: str, task_id: str) -> Egress:
    root = egress_root(clone)
    return Egress(root / "policy" / f"{task_id}.json", root / "sockets" / task_id, root / "refused" / f"{task_id}.json")


def egress(clone: str, task_id: str) -> Egress | None:
    """`egress_paths`, with its folders made if need be. None as in `folder`."""
    paths = egress_paths(clone, task_id)
    made = [_made(paths.policy.parent, above=3), _made(paths.refused.parent, above=3), _made(paths.socket, above=4)]
    return None if None in made else paths


def connect(connection: socket.socket, folder: Path, name: str) -> None:
    """To the very socket that was opened and looked at, whatever its name means a moment later. Raises `OSError`."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    try:
        if not stat.S_ISSOCK(os.fstat(there).st_mode):
            raise ConnectionError("not a socket")
        connection.connect(f"/proc/self/fd/{there}")
    finally:
        os.close(there)


def is_served(clone: str, task_id: str) -> bool:
    """Whether the task's proxy listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connect(connection, egress_paths(clone, task_id).socket, _PROXY)
        except (OSError, AttributeError):  # AttributeError: a system without O_PATH
            return False
    return True


def refused_stamp(clone: str, task_id: str) -> int:
    """Another one when something was refused to the task since."""
    try:
        return egress_paths(clone, task_id).refused.lstat().st_mtime_ns
    except OSError:
        return 0


def remove(clone: str, task_id: str) -> None:
    _remove(_of_clone(clone) / task_id)
    paths = egress_paths(clone, task_id)
    for path in (paths.policy, paths.refused):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    _remove(paths.socket)


def is_used(clone: str) -> bool:
    """Whether a container of the clone was ever made, and this not taken away since."""
    return _of_clone(clone).is_dir()


def remove_all(clone: str) -> None:
    """Of all tasks of a clone."""
    _remove(_of_clone(clone))


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)  # it follows no link


def _of_clone(clone: str) -> Path:
    return Path("/tmp", f"opencode-tasks-{os.getuid()}", clone)  # noqa: S108 (each part is checked)
