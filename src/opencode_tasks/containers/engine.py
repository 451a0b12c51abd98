"""The Docker engine through docker-py: one client per process, errors that say what to do.

docker-py and requests stop here; callers get frozen values and `TaskError`s.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount as DockerMount

from opencode_tasks.containers import contexts, mounts, refusals
from opencode_tasks.containers.contexts import address
from opencode_tasks.containers.spec import EGRESS, LABEL, SOCKETS, ContainerSpec, host_config
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.task import ContainerState
from opencode_tasks.values import value

STATES: dict[str, ContainerState] = {
    "created": "created",
    "running": "running",
    "paused": "paused",
    "restarting": "running",
    "exited": "stopped",
    "dead": "stopped",
    "removing": "none",
}
_CONTEST_S = 20.0


@value
class Found:
    """A container as the engine knows it now. `busy`: an exec of the engine runs in it. `pid`: of its first process."""

    id: str
    name: str
    image: str
    state: ContainerState
    labels: Mapping[str, str]
    started_at: str
    busy: bool
    pid: int = 0


@value
class EngineInfo:
    address: str
    version: str
    api: str
    cgroup: str
    storage: str
    arch: str


class ContainerGoneError(TaskError):
    """The container was removed by somebody else."""

    code = "container_gone"


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what docker-py and requests raise into errors with the next step."""
    try:
        yield
    except ImageNotFound as e:
        raise TaskError(
            f"{doing}: the engine has no such image ({e.explanation})",
            hint="opencode-tasks images build base",
            code="image_missing",
        ) from e
    except NotFound as e:
        raise ContainerGoneError(f"{doing}: {e.explanation}", hint="run the command again: it is created anew") from e
    except APIError as e:
        raise refusals.error(doing, e.status_code, str(e.explanation or e)) from e
    except (requests.RequestException, DockerException, ConnectionError) as e:
        raise refusals.no_engine(doing, str(e), address()) from e


class Engine:
    """One engine. Not for several threads: docker-py's client is not (docker-py #3229)."""

    def __init__(self, *, timeout_s: int = 60) -> None:
        """Raises `NoEngineError`."""
        contexts.require()
        self.address = address()
        with engine_errors("Connecting"):
            self.api = docker.from_env(timeout=timeout_s).api

    def info(self) -> EngineInfo:
        with engine_errors("Asking the engine"):
            version, info = self.api.version(), self.api.info()
        return EngineInfo(
            address=self.address,
            version=str(version.get("Version", "?")),
            api=str(version.get("ApiVersion", "?")),
            cgroup=str(info.get("CgroupVersion", "1")),
            storage=str(info.get("Driver", "?")),
            arch=str(info.get("Architecture", "?")),
        )

    def find(self, name: str) -> Found | None:
        with engine_errors(f"Looking for container {name}"):
            try:
                seen = self.api.inspect_container(name)
            except NotFound:
                return None
        return Found(
            id=seen["Id"],
            name=seen["Name"].lstrip("/"),
            image=seen["Config"]["Image"],
            state=STATES.get(seen["State"]["Status"], "stopped"),
            labels=seen["Config"]["Labels"] or {},
            started_at=seen["State"]["StartedAt"],
            busy=bool(seen["ExecIDs"]),
            pid=seen["State"].get("Pid") or 0,
        )

    def states(self, clone: str) -> dict[str, ContainerState]:
        """The state of every container of this clone, by task id. One request, however many there are."""
        with engine_errors("Listing containers"):
            # The low-level list is one request; the high-level one inspects each (42 ms at 50).
            listed = self.api.containers(all=True, filters={"label": f"{LABEL}.clone={clone}"})
        return {t: STATES.get(c["State"], "stopped") for c in listed if (t := c["Labels"].get(f"{LABEL}.task"))}

    def has_network(self, name: str) -> bool:
        with engine_errors(f"Looking for network {name}"):
            try:
                self.api.inspect_network(name)
            except NotFound:
                return False
        return True

    def ensure_running(
        self, spec_now: Callable[[], ContainerSpec], *, when_unused: Callable[[Callable[[], None]], bool]
    ) -> Found:
        """Created, started or unpaused as needed; safe to call by several processes at once.

        A container that differs from what `spec_now` says is made anew unless a command runs in it: `when_unused`
        does what it is given while it keeps commands away, or says that it cannot.
        """
        deadline = time.monotonic() + _CONTEST_S
        spec = spec_now()
        while True:
            found = self.find(spec.name)
            if found is not None and self.is_outdated(found, spec) and when_unused(partial(self.remove, found.id)):
                # What ran in it may have planted a link since we looked.
                spec, found = spec_now(), None
            try:
                if found is None:
                    self._create(spec)
                elif found.state == "paused":
                    self.unpause(found.id)
                elif found.state != "running":
                    self._start(found.id)
                else:
                    return found
            except (ConflictError, ContainerGoneError) as e:
                # Somebody else creates, starts or removes it. A name is taken some time before it can be inspected.
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"Container {spec.name} keeps being changed by somebody else",
                        hint=f"docker inspect {spec.name}",
                    ) from e
                time.sleep(0.05)

    def is_outdated(self, found: Found, spec: ContainerSpec) -> bool:
        """Whether it is to be made anew. Raises `TaskError` (code `name_taken`)."""
        if found.labels.get(f"{LABEL}.clone") != spec.labels[f"{LABEL}.clone"]:
            raise TaskError(
                f"The name {spec.name} is taken by a container that is not this clone's ({found.id[:12]})",
                hint=f"rename or remove it: docker inspect {spec.name}",
                code="name_taken",
            )
        if found.labels.get(f"{LABEL}.spec") != spec.digest or mounts.is_lost(found.pid, found.id, spec.workspace):
            return not found.busy
        return mounts.is_lost(found.pid, found.id, SOCKETS) and self.programs(found.id) == 0

    def _create(self, spec: ContainerSpec) -> None:
        with engine_errors(f"Creating container {spec.name} from {spec.image}"):
            try:
                self._create_with(spec, spec.tmpfs)
            except APIError as e:
                if not refusals.is_about_tmpfs_owner(str(e.explanation)):
                    raise
                self._create_with(spec, {path: refusals.without_owner(how) for path, how in spec.tmpfs.items()})

    def _create_with(self, spec: ContainerSpec, tmpfs: Mapping[str, str]) -> None:
        mounts = [
            DockerMount(m.path, m.source or m.path, type="bind", read_only=m.read_only, propagation="rprivate")
            for m in spec.mounts
        ]
        if spec.volumes:
            from opencode_tasks.containers import volumes

            volumes.make(self, spec)
            mounts += [DockerMount(v.path, v.name, type="volume") for v in spec.volumes]
        self.api.create_container(
            spec.image,
            command=list(spec.command),
            entrypoint=[],
            name=spec.name,
            hostname=spec.labels.get(f"{LABEL}.task", spec.name)[:63],
            user=spec.user,
            working_dir=spec.workspace,
            environment=dict(spec.environment),
            labels={**spec.labels, f"{LABEL}.spec": spec.digest},
            host_config=self.api.create_host_config(mounts=mounts, **{**host_config(spec), "tmpfs": dict(tmpfs)}),
        )

    def _start(self, container: str) -> None:
        with engine_errors(f"Starting container {container[:12]}"):
            self.api.start(container)

    def pause(self, container: str) -> None:
        with engine_errors(f"Pausing container {container[:12]}"):
            self.api.pause(container)

    def unpause(self, container: str) -> None:
        with engine_errors(f"Resuming container {container[:12]}"):
            self.api.unpause(container)

    def memory_limit(self, container: str) -> int:
        """Bytes; 0: none."""
        with engine_errors(f"Looking at container {container[:12]}"):
            return int(self.api.inspect_container(container)["HostConfig"]["Memory"])

    def set_memory(self, container: str, limit: int) -> None:
        """Bytes, swap included, of a container that runs."""
        with engine_errors(f"Setting the memory of container {container[:12]}"):
            self.api.update_container(container, mem_limit=limit, memswap_limit=limit)

    def stop(self, container: str, *, frozen: bool = False) -> None:
        """`frozen`: killed as it is, for thawed it would run in files that may be another task's by now."""
        with engine_errors(f"Stopping container {container[:12]}"):
            if frozen:
                self.api.kill(container)
            else:
                self.api.stop(container, timeout=2)

    def programs(self, container: str) -> int:
        """How many processes are in it, besides the engine's init, our supervisor and our forwarder."""
        with engine_errors(f"Looking into container {container[:12]}"):
            rows = self.api.top(container)["Processes"]
        return max(0, sum(f"{EGRESS}/proxy.sock " not in row[-1] for row in rows) - 2)

    def remove(self, container: str) -> None:
        """Kill and remove. The workspace is a bind mount and stays."""
        with engine_errors(f"Removing container {container[:12]}"):
            try:
                self.api.remove_container(container, force=True, v=True)
            except NotFound:
                return

    def new_exec(
        self, container: str, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], stdin: bool, tty: bool
    ) -> str:
        with engine_errors("Preparing the command"):
            made = self.api.exec_create(container, list(argv), stdin=stdin, tty=tty, workdir=cwd, environment=dict(env))
        return cast(str, made["Id"])

    def start_exec(self, exec_id: str, *, tty: bool) -> "socket.socket":
        """The raw, two-way socket of the running command."""
        with engine_errors("Starting the command"):
            raw: Any = self.api.exec_start(exec_id, tty=tty, socket=True)
        # docker-py hands out a reader; the socket under it is what can be half-closed.
        return cast("socket.socket", raw._sock)

    def exec_code(self, exec_id: str) -> int | None:
        """The exit code; None while it runs."""
        with engine_errors("Asking for the exit code"):
            seen = self.api.exec_inspect(exec_id)
        return None if seen["Running"] else cast(int, seen["ExitCode"])

    def resize_exec(self, exec_id: str, rows: int, columns: int) -> None:
        with engine_errors("Resizing the terminal"):
            self.api.exec_resize(exec_id, height=rows, width=columns)

    def run_quietly(self, container: str, argv: Sequence[str]) -> tuple[int, bytes]:
        """A short command of our own: exit code and output."""
        exec_id = self.new_exec(container, argv, cwd="/", env={}, stdin=False, tty=False)
        with engine_errors("Running a command"):
            out_b = self.api.exec_start(exec_id)
        return self.exec_code(exec_id) or 0, out_b
