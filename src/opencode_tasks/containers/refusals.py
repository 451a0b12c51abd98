"""What an engine refused, as an error with the next step. Pure: by the words of Docker and of podman.

Neither has codes for most of it.
"""

from opencode_tasks.errors import ConflictError, NoEngineError, TaskError

_PODMAN_NO_OWNER = 'unknown mount option "uid='
_NO_SUCH_SOURCE = ("bind source path does not exist", "error while creating mount source path", "statfs /")


def error(doing: str, status: int | None, why: str) -> TaskError:
    if "no space left" in why:
        return TaskError(
            f"{doing}: the engine's disk is full ({why})",
            hint="free space: docker system df",
            code="disk_full",
        )
    if status == 409:
        return ConflictError(f"{doing}: {why}")
    if any(words in why for words in _NO_SUCH_SOURCE):
        return TaskError(
            f"{doing}: the engine cannot see the workspace ({why})",
            hint="the engine must run on this machine, or share this directory",
            code="workspace",
        )
    if "container-init binary not found" in why:
        return TaskError(
            f"{doing}: podman lacks its init ({why})",
            hint="install catatonit, which podman only recommends: apt-get install catatonit",
            code="engine_refused",
        )
    return TaskError(f"{doing}: the engine refused: {why}", hint="opencode-tasks doctor", code="engine_refused")


def no_engine(doing: str, why: str, address: str) -> NoEngineError:
    if "ermission denied" in why:
        return NoEngineError(
            f"{doing}: no permission to use the Docker engine at {address}",
            hint="add yourself to its group (usermod -aG docker $USER), then log in again",
        )
    return NoEngineError(
        f"{doing}: no Docker engine answers at {address}",
        hint="start Docker, or set DOCKER_HOST to an engine; check with: opencode-tasks doctor",
    )


def is_about_tmpfs_owner(why: str) -> bool:
    """Podman up to 4 at least gives a tmpfs no owner."""
    return _PODMAN_NO_OWNER in why


def without_owner(options: str) -> str:
    """A tmpfs that anybody in the container may write: there is only one user in it."""
    kept = [o for o in options.split(",") if not o.startswith(("uid=", "gid=", "mode="))]
    return ",".join([*kept, "mode=1777"])
