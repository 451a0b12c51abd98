"""What a task's container is, as a value. Pure: no engine, no files.

Measured on Docker 20.10: none of the hardening here costs anything at start.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from opencode_tasks.containers import sizes
from opencode_tasks.errors import TaskError
from opencode_tasks.events import dumps
from opencode_tasks.task import Task
from opencode_tasks.values import value

LABEL = "opencode-tasks"
LABEL_SCHEMA = "1"
HOME = "/home/agent"
SOCKETS = "/run/opencode-tasks"
SOCKET = "supervisor.sock"
EGRESS = "/run/opencode-egress"
_PROXY = "http://127.0.0.1:3128"
ABSENT = ".absent"
# From the forwarder to the supervisor, which takes no command before the way out is there.
_LISTENING = "/run/forwarder"
# Where the image has no python3, the container is only kept open, and says so.
_SUPERVISED = f"""
forwarder=$1
shift
rm -f "$2{ABSENT}" {_LISTENING}
if command -v python3 >/dev/null; then
    if [ -n "$forwarder" ] && mkfifo {_LISTENING}; then
        # The supervisor signals those of its children that serve; this one becomes a child of its, too.
        (
            trap '' USR1
            exec python3 -I -S -c "$forwarder" {EGRESS}/proxy.sock "$OPENCODE_TASK_ID" \\
                </dev/null >{_LISTENING} 2>/dev/null
        ) &
        exec python3 -I -S -c "$@" <{_LISTENING}
    fi
    exec python3 -I -S -c "$@" </dev/null
fi
: >"$2{ABSENT}"
exec sleep infinity
"""

# A workspace may not hide these from the container's own programs, nor bring the engine's socket along.
_TAKEN = tuple(
    PurePosixPath(p)
    for p in (
        *("/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib32", "/lib64", "/run", "/sbin", "/tmp", "/usr"),  # noqa: S108
        *("/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin", "/usr/share", "/var", "/var/run"),
        *("/usr/local/bin", "/usr/local/lib", HOME),
    )
)
_TAKEN_BELOW = tuple(PurePosixPath(p) for p in ("/dev", "/proc", "/sys"))


@value
class Limits:
    """Sizes in the engine's notation (`4g`), `cpus` in cores.

    At the part `soft` of `memory` everything is held still, and `memory` may then grow up to `memory_max`.
    Likewise when less than `disk_free` is left on the workspace's disk.
    """

    memory: str
    memory_max: str
    soft: float
    cpus: float
    pids: int
    tmp: str
    home: str
    disk_free: str


@value
class Mount:
    """A bind, of the same absolute path on both sides unless `source` says another of the host's."""

    path: str
    read_only: bool
    source: str = ""


@value
class Volume:
    """One of the engine's named volumes. `kind`: what it is for; `shared`: by all tasks of the clone."""

    name: str
    path: str
    kind: str
    shared: bool


@value
class Additions:
    """What settings and project add to every container: `environment` gives way to ours."""

    environment: Mapping[str, str] = {}
    volumes: tuple[Volume, ...] = ()


NOTHING_MORE = Additions()


@value
class Place:
    """Facts of the host that the specification needs.

    `protected`: existing paths inside the workspace that stay read-only, `above`: the folders there that lead to
    them. `git`: the git directory of its own that the container has over the real one, and what it reads of that.
    `sockets`: where the supervisor, whose text is `supervisor`, listens; empty: there is none, and every command is an
    exec of the engine. `egress`: where the task's proxy listens, to which `forwarder` takes what is meant for it.
    `path`: where the clone is, for whoever finds the container when it is not there any more.
    """

    clone: str
    repository: str
    uid: int
    gid: int
    login: str
    protected: Sequence[str]
    git: Sequence[Mount]
    sockets: str = ""
    supervisor: str = ""
    path: str = ""
    egress: str = ""
    forwarder: str = ""
    above: Sequence[str] = ()


@value
class ContainerSpec:
    name: str
    image: str
    command: tuple[str, ...]
    user: str
    workspace: str
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    tmpfs: Mapping[str, str]
    labels: Mapping[str, str]
    limits: Limits
    volumes: tuple[Volume, ...] = ()
    network: str = "none"
    goes_at_exit: bool = False

    @property
    def digest(self) -> str:
        """Changes when anything that was decided at creation would be decided otherwise now."""
        own = {**vars(self), **_plain(self)}
        # The isolation too: a container from before it was tightened is not what we want now.
        described = {**own, "host": host_config(self)}
        return hashlib.sha256(dumps(described).encode()).hexdigest()


def document(spec: ContainerSpec) -> dict[str, Any]:
    """For a person or a program to read."""
    command = [_SHOWN if len(word) > 1000 else word for word in spec.command]
    own = {**vars(spec), "command": command, **_plain(spec)}
    return {**own, "isolation": host_config(spec), "digest": spec.digest}


def _plain(spec: ContainerSpec) -> dict[str, Any]:
    mounts, volumes = ([vars(one) for one in several] for several in (spec.mounts, spec.volumes))
    return {"mounts": mounts, "limits": vars(spec.limits), "volumes": volumes}


_SHOWN = "<the text of a program of ours>"


_PROXIES = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _PROXY),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
}


def container_name(task_id: str) -> str:
    return f"opencode-task-{task_id}"


def build(task: Task, image: str, limits: Limits, place: Place, more: Additions = NOTHING_MORE) -> ContainerSpec:
    """The container of `task`. Raises `TaskError` when its workspace cannot be mounted at its own path."""
    workspace = task.workspace.path
    _check_workspace(workspace)
    mounts = [Mount(workspace, read_only=False)]
    mounts += [*(Mount(path, read_only=False) for path in place.above), *place.git]
    mounts += [Mount(path, read_only=True) for path in place.protected]
    command: tuple[str, ...] = ("sleep", "infinity")
    if place.sockets:
        mounts.append(Mount(SOCKETS, read_only=False, source=place.sockets))
        watched = {
            "soft": limits.soft,
            "disk": workspace,
            "disk_free": sizes.parse(limits.disk_free, what="disk_free"),
        }
        socket = f"{SOCKETS}/{SOCKET}"
        command = ("/bin/sh", "-c", _SUPERVISED, "sh", place.forwarder, place.supervisor, socket, json.dumps(watched))
    if place.egress:
        mounts.append(Mount(EGRESS, read_only=True, source=place.egress))
    owner = f"uid={place.uid},gid={place.gid}"
    return ContainerSpec(
        name=container_name(task.id),
        image=image,
        command=command,
        user=f"{place.uid}:{place.gid}",
        workspace=workspace,
        mounts=tuple(mounts),
        environment={
            **more.environment,
            "HOME": HOME,
            "USER": place.login,
            "LOGNAME": place.login,
            "OPENCODE_TASK_ID": task.id,
            "OPENCODE_TASK_BRANCH": task.branch,
            # Whether anything may be reached or not: then what is allowed later works at once.
            **(_PROXIES if place.egress else {}),
        },
        tmpfs={
            "/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={limits.tmp}",  # noqa: S108
            "/run": f"rw,nosuid,nodev,noexec,mode=755,size=16m,{owner}",
            HOME: f"rw,nosuid,nodev,exec,mode=700,size={limits.home},{owner}",
        },
        labels={
            f"{LABEL}.schema": LABEL_SCHEMA,
            f"{LABEL}.task": task.id,
            f"{LABEL}.clone": place.clone,
            f"{LABEL}.repository": place.repository,
            f"{LABEL}.owner": place.login,
            f"{LABEL}.path": place.path,
        },
        limits=limits,
        volumes=more.volumes,
    )


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    """The isolation, in docker-py's words. Never privileged, never a host namespace, never the engine's socket."""
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "network_mode": spec.network,
        "read_only": True,
        "init": True,
        "ipc_mode": "private",
        "tmpfs": dict(spec.tmpfs),
        "mem_limit": spec.limits.memory,
        "memswap_limit": spec.limits.memory,
        "nano_cpus": int(spec.limits.cpus * 1_000_000_000),
        "pids_limit": spec.limits.pids,
        "restart_policy": {"Name": "no"},
        "auto_remove": spec.goes_at_exit,
        "log_config": {"Type": "none", "Config": {}},
    }


def is_taken(path: str) -> bool:
    """Whether a mount there would cover what the container itself needs."""
    pure = PurePosixPath(path)
    return pure in _TAKEN or any(pure.is_relative_to(p) for p in _TAKEN_BELOW)


def _check_workspace(path: str) -> None:
    if is_taken(path):
        raise TaskError(
            f"A workspace at {path} would cover the container's own {path}",
            hint="clone the repository to a directory of its own, such as ~/src/project",
            code="workspace",
        )
