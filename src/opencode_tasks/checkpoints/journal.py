"""That a restore has begun, on the disk before it changes anything: a killed one is brought to its end."""

import json
from contextlib import suppress
from pathlib import Path

from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.events import dumps
from opencode_tasks.store import Store, files
from opencode_tasks.values import value


@value
class Begun:
    """Ids of checkpoints: where it goes, and what brings back what was. `only`: which paths, else all."""

    to: str
    undo: str
    only: tuple[str, ...] = ()


def path(store: Store, task_id: str) -> Path:
    """Where it lies while a restore is under way."""
    return store.layout.checkpoints_git / "ix" / task_id / "restoring.json"


def begun(store: Store) -> list[str]:
    """The ids of tasks in which one is under way, or was killed."""
    return [path.parent.name for path in store.layout.checkpoints_git.glob("ix/*/restoring.json")]


def read(shadow: Shadow) -> Begun | None:
    """None also for one that was torn: nothing was changed yet then."""
    with suppress(OSError, ValueError, TypeError):
        said = json.loads(path(shadow.store, shadow.task_id).read_bytes())
        return Begun(said["to"], said["undo"], tuple(said["only"]))
    return None


def write(shadow: Shadow, begun: Begun) -> None:
    files.replace(path(shadow.store, shadow.task_id), dumps(vars(begun)).encode(), durable=True)


def remove(shadow: Shadow) -> None:
    path(shadow.store, shadow.task_id).unlink(missing_ok=True)
