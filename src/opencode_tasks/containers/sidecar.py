"""The container in which a clone's proxy runs: one for all its tasks, there while one of them may reach anything.

It ends itself when nobody has used it for half an hour; the next full look at a container starts it again.
"""

import os
import time

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import handed, images, network, sockets
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import LABEL, LABEL_SCHEMA, ContainerSpec, Limits, Mount
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from opencode_tasks.store.tasks import login

_ROOT = "/run/egress"
_LIMITS = Limits(memory="128m", memory_max="128m", soft=1, cpus=1, pids=128, tmp="", home="", disk_free="0")
_ANSWERS_S = 5.0


def name(clone: str) -> str:
    return f"opencode-egress-{clone}"


def serve(store: Store, engine: Engine, otherwise: Config, task_id: str) -> None:
    """The task's list is written, and unless it is empty a proxy listens. Raises `TaskError`."""
    settings = network.write_policy(store, otherwise, task_id)
    if settings is None:
        return
    made = spec(store.clone_id, images.resolve(engine, "base"), settings.network.through)
    _require_network(engine, settings.network.through)
    engine.ensure_running(lambda: made, when_unused=_at_once)
    until = time.monotonic() + _ANSWERS_S
    while not sockets.is_served(store.clone_id, task_id):
        if time.monotonic() > until:
            raise TaskError(
                f"The proxy of task {task_id} does not answer: container {made.name}",
                hint=f"docker rm --force {made.name}; then run the command again",
                code="proxy",
            )
        time.sleep(0.01)


def _at_once(remove: "object") -> bool:
    assert callable(remove)  # noqa: S101 (for mypy)
    remove()
    return True


def _require_network(engine: Engine, through: str) -> None:
    if not engine.has_network(through):
        raise TaskError(
            f"network.through: the engine has no network {through!r}",
            hint='docker network ls; the default is "bridge"',
            code="config",
        )


def spec(clone: str, image: str, through: str) -> ContainerSpec:
    root = sockets.egress_root(clone)
    return ContainerSpec(
        name=name(clone),
        image=image,
        command=("python3", "-I", "-S", "-c", handed.proxy(), _ROOT),
        user=f"{os.getuid()}:{os.getgid()}",
        workspace="/",
        mounts=(
            Mount(f"{_ROOT}/policy", read_only=True, source=str(root / "policy")),
            Mount(f"{_ROOT}/sockets", read_only=False, source=str(root / "sockets")),
            Mount(f"{_ROOT}/refused", read_only=False, source=str(root / "refused")),
        ),
        environment={},
        tmpfs={},
        labels={
            f"{LABEL}.schema": LABEL_SCHEMA,
            f"{LABEL}.clone": clone,
            f"{LABEL}.egress": "1",
            f"{LABEL}.owner": login(),
        },
        limits=_LIMITS,
        network=through,
        goes_at_exit=True,
    )
