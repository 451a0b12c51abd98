"""Named volumes: caches that outlive a container, of one task or of all tasks of the clone.

A volume's name carries the clone's or the task's id, which nobody else's has, and its labels are looked at before it is
used: no other project's volume is ever mounted, whatever it is called.
"""

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from opencode_tasks import assets
from opencode_tasks.containers.engine import Engine, engine_errors
from opencode_tasks.containers.spec import HOME, LABEL, LABEL_SCHEMA, NOTHING_MORE, Additions, ContainerSpec, Volume
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.values import value

_HELPER = f"{LABEL}.helper"
_GIVEN_S = 60
_SAFE = re.compile(r"[^a-zA-Z0-9_.-]")


@value
class Found:
    """A volume as the engine knows it. `task`: None when all tasks of the clone share it."""

    name: str
    kind: str
    task: str | None
    created_at: str


def caches(wanted: Sequence[str], *, clone: str, task_id: str, shared: bool) -> Additions:
    """The volumes of `container.caches`. Raises `TaskError` (code `config`) for a name that is not in the table."""
    if not wanted:
        return NOTHING_MORE
    path = assets.root() / "templates" / "caches.yaml"
    table: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    volumes, environment = [], {}
    for kind in dict.fromkeys(wanted):
        if kind not in table:
            raise TaskError(
                f"container.caches: there is no cache {kind!r}", hint="one of: " + ", ".join(table), code="config"
            )
        where = f"{HOME}/{table[kind]['path']}"
        volumes.append(Volume(name_of(kind, clone=clone, task_id=task_id, shared=shared), where, kind, shared))
        environment.update(table[kind]["environment"])
    return Additions(environment, tuple(volumes))


def name_of(kind: str, *, clone: str, task_id: str, shared: bool) -> str:
    """Two kinds never have one name, whatever characters are in them."""
    plain = _SAFE.sub("_", kind)[:60]
    if plain != kind:
        plain += f".{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
    return f"opencode-cache-{clone if shared else task_id}-{plain}"


def make(engine: Engine, spec: ContainerSpec) -> None:
    """Every volume of `spec` there, and its user's. Safe to call by several processes at once.

    Raises `TaskError` (code `name_taken`) when a name is somebody else's.
    """
    for volume in spec.volumes:
        _ensure(engine, volume, _labels(spec, volume))
    uid, gid = (int(number) for number in spec.user.split(":"))
    if (uid, gid) != (0, 0) and spec.volumes:
        _sweep(engine, spec.name)
        _give(engine, spec, uid, gid)


def listed(engine: Engine, clone: str) -> list[Found]:
    """All of a clone, by name."""
    with engine_errors("Listing volumes"):
        seen = engine.api.volumes(filters={"label": f"{LABEL}.clone={clone}"})["Volumes"] or []
    found = []
    for one in seen:
        labels = one["Labels"]
        kind, task = labels.get(f"{LABEL}.volume", "?"), labels.get(f"{LABEL}.task")
        found.append(Found(one["Name"], kind, task, one.get("CreatedAt", "")))
    return sorted(found, key=lambda f: f.name)


def remove(engine: Engine, name: str) -> bool:
    """False: a container still has it. One that is gone already is as good."""
    from docker.errors import NotFound

    with suppress(ConflictError), engine_errors(f"Removing volume {name}"):
        with suppress(NotFound):
            engine.api.remove_volume(name)
        return True
    return False


def _labels(spec: ContainerSpec, volume: Volume) -> dict[str, str]:
    own = {
        f"{LABEL}.schema": LABEL_SCHEMA,
        f"{LABEL}.clone": spec.labels[f"{LABEL}.clone"],
        f"{LABEL}.repository": spec.labels[f"{LABEL}.repository"],
        f"{LABEL}.volume": volume.kind,
    }
    return own if volume.shared else {**own, f"{LABEL}.task": spec.labels[f"{LABEL}.task"]}


def _ensure(engine: Engine, volume: Volume, labels: Mapping[str, str]) -> None:
    from docker.errors import NotFound

    with engine_errors(f"Making volume {volume.name}"):
        try:
            seen = engine.api.inspect_volume(volume.name)
        except NotFound:
            engine.api.create_volume(volume.name, labels=dict(labels))
            # Asked again: where two make it at once, the engine gives the second one the first one's.
            seen = engine.api.inspect_volume(volume.name)
    # The local driver's options can make a volume of any folder of the host.
    if (seen["Labels"] or {}) != dict(labels) or seen["Driver"] != "local" or seen["Options"]:
        raise TaskError(
            f"The name {volume.name} is taken by a volume that is not this {_whose(volume)}'s",
            hint=f"look at it, then remove it: docker volume inspect {volume.name}",
            code="name_taken",
        )


def _whose(volume: Volume) -> str:
    return "clone" if volume.shared else "task"


def _sweep(engine: Engine, container: str) -> None:
    """What `_give` left behind when it was killed: such a container would keep the volumes from being removed."""
    with engine_errors("Looking for leftovers"):
        left = engine.api.containers(all=True, filters={"label": f"{_HELPER}={container}"})
    for one in left:
        if one["Created"] < time.time() - _GIVEN_S:
            engine.remove(one["Id"])


def _give(engine: Engine, spec: ContainerSpec, uid: int, gid: int) -> None:
    """A fresh volume is root's. The engine itself unpacks a folder's entry over it: nothing runs, as root or otherwise.

    Each time, for who made the volume may have been killed before this.
    """
    from docker.types import Mount

    mounts = [Mount(f"/opencode-tasks/{i}", v.name, type="volume", no_copy=True) for i, v in enumerate(spec.volumes)]
    entries = io.BytesIO()
    with tarfile.open(fileobj=entries, mode="w") as tar:
        for i in range(len(mounts)):
            entry = tarfile.TarInfo(str(i))
            entry.type, entry.uid, entry.gid, entry.mode = tarfile.DIRTYPE, uid, gid, 0o700
            tar.addfile(entry)
    with engine_errors("Preparing volumes"):
        config = engine.api.create_host_config(mounts=mounts, network_mode="none")
        labels = {_HELPER: spec.name}
        made = engine.api.create_container(spec.image, ["-"], entrypoint=[], labels=labels, host_config=config)["Id"]
        try:
            engine.api.put_archive(made, "/opencode-tasks", entries.getvalue())
        finally:
            engine.api.remove_container(made, force=True)


def remove_told(engine: Engine, names: Sequence[str]) -> list[str]:
    """A sentence for each: whether it is removed."""
    return [
        f"volume {name} removed" if remove(engine, name) else f"volume {name} kept: a container has it"
        for name in names
    ]
