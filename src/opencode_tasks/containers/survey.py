"""The facts that `reconciling` decides by: one list request to the engine, the store, and the disk beside them."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import reconciling, sockets
from opencode_tasks.containers.engine import STATES, Engine, Found, engine_errors
from opencode_tasks.containers.reconciling import Action, Facts, Seen
from opencode_tasks.containers.spec import LABEL, container_name
from opencode_tasks.durations import seconds_or_never
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.store import Store
from opencode_tasks.store.layout import FOLDER, UNFINISHED
from opencode_tasks.task import Task, is_id
from opencode_tasks.values import replace

_ABOUT_NOW_S = 600.0


def everything(store: Store, engine: Engine, config: Config) -> Facts:
    """Containers first: the task of one that is listed was in the store before it."""
    containers = listed(engine)
    all_tasks, damaged = store.survey()
    tasks = {t.id: t for t in all_tasks}
    candidates = {c.task for c in containers if c.clone == store.clone_id and is_id(c.task)} - set(tasks)
    return _facts(
        store,
        engine,
        config,
        containers,
        tasks,
        unclear=frozenset({*damaged, *(i for i in candidates if _is_under_way(store, i))}),
        deleted=frozenset(set(store.ids()) - set(tasks) - set(damaged)),
        folders=[i for i in sockets.tasks(store.clone_id) if is_id(i)],
        marks=_marks(store),
        half_made=_half_made(store),
    )


def of_those_up(store: Store, engine: Engine, config: Config) -> Facts:
    """Only the containers of this clone that run or are paused, and their tasks."""
    containers = [c for c in listed(engine, store.clone_id) if c.is_up and is_id(c.task)]
    tasks = {}
    for seen in containers:
        with suppress(TaskError):
            tasks[seen.task] = store.get(seen.task)
    return _facts(store, engine, config, containers, {i: t for i, t in tasks.items() if t.deleted_at is None})


def of_one(facts: Facts, store: Store, engine: Engine, task_id: str) -> tuple[Task, Found | None, Action | None]:
    """The same question again, now, of one task."""
    task, found = store.get(task_id), engine.find(container_name(task_id))
    seen = None
    if found is not None and found.labels.get(f"{LABEL}.clone") == facts.clone:
        seen = Seen(found.id, found.name, found.state, facts.clone, task_id)
    homeless = frozenset() if Path(task.workspace.path).is_dir() else frozenset({task_id})
    wanted = reconciling.of_task(replace(facts, homeless=homeless, now=datetime.now(UTC)), task, seen)
    return task, found, next(wanted, None)


def _facts(
    store: Store, engine: Engine, config: Config, containers: list[Seen], tasks: Mapping[str, Task], **more: Any
) -> Facts:
    return Facts(
        clone=store.clone_id,
        path=_told(store),
        containers=containers,
        tasks=tasks,
        now=datetime.now(UTC),
        idle_s=seconds_or_never(config.container.idle_stop),
        programs=lambda container: programs(engine, container),
        homeless=frozenset(t.id for t in tasks.values() if not Path(t.workspace.path).is_dir()),
        **more,
    )


def listed(engine: Engine, clone: str = "") -> list[Seen]:
    """What has our label, of one clone or of all. One request, however many there are."""
    with engine_errors("Listing containers"):
        found = engine.api.containers(all=True, filters={"label": f"{LABEL}.clone" + (f"={clone}" if clone else "")})
    # What is not there may be on the engine's own machine.
    is_local = engine.address.startswith("unix://")
    return [_seen(c, is_local=is_local) for c in found]


def _seen(container: Mapping[str, Any], *, is_local: bool) -> Seen:
    labels = container["Labels"]
    clone, path = labels[f"{LABEL}.clone"], labels.get(f"{LABEL}.path", "")
    return Seen(
        id=container["Id"],
        name=(container["Names"] or ["/"])[0].lstrip("/"),
        state=STATES.get(container["State"], "stopped"),
        clone=clone,
        task=labels.get(f"{LABEL}.task", ""),
        path=path,
        is_left_behind=is_local and bool(path) and _is_left_behind(clone, path),
    )


def _is_left_behind(clone: str, path: str) -> bool:
    """Not when we may not look, or the path is none that a label can hold."""
    if not path.startswith("/") or "\ufffd" in path:
        return False
    try:
        fd = os.open(Path(path, FOLDER, "clone"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    with os.fdopen(fd, "rb") as f:
        return f.read(64).strip() != clone.encode()


def _told(store: Store) -> str:
    return os.fsencode(store.layout.common_dir).decode(errors="replace")


def programs(engine: Engine, container: str) -> int:
    """One when the engine does not tell: it may be something."""
    try:
        return engine.programs(container)
    except TaskError:
        return 1


def is_orphan(store: Store, task_id: str) -> bool:
    """Whether the store has no such task, and none is being made."""
    try:
        return store.get(task_id).deleted_at is not None
    except NoTaskError:
        return not _is_under_way(store, task_id)
    except TaskError:
        return False


def _is_under_way(store: Store, task_id: str) -> bool:
    from opencode_tasks.store import transactions

    return transactions.under_way(store.layout, task_id)


def _marks(store: Store) -> list[str]:
    return sorted(p.stem for p in store.layout.ready("x").parent.glob("*.json") if is_id(p.stem))


def _half_made(store: Store) -> list[str]:
    """Nobody builds one for so long."""
    names = []
    for path in store.layout.store.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABOUT_NOW_S:
                names.append(path.name)
    return sorted(names)
