"""What `cleanup-task` took away, for as long as it may be brought back: a folder for each task, in the clone alone.

An entry is written before anything is removed. One that is not `done` is of a cleanup that was killed, or is under way.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.events import dumps
from opencode_tasks.store import files
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import STATUSES, is_id
from opencode_tasks.values import names_of, replace, value

_FILE = "entry.json"


@value
class Entry:
    """`tip`: where the branch was; `config`: its section of git's configuration, key and value; `worktree`: where it
    was checked out, if in one of its own; `checkpoint`: of the files there that were in no commit; `status`: before.
    `discarded`: the kinds of work that somebody said may go.
    """

    task: str
    title: str
    branch: str
    tip: str | None
    at: str
    actor: str
    status: str
    config: tuple[tuple[str, str], ...] = ()
    worktree: str | None = None
    checkpoint: str | None = None
    discarded: tuple[str, ...] = ()
    done: bool = False


def folder(layout: Layout, task_id: str) -> Path:
    return layout.trash / task_id


def write(layout: Layout, entry: Entry) -> None:
    """Synced. Raises `TaskError` where it cannot be written: then nothing may be removed."""
    place = folder(layout, entry.task)
    with files.refused_writes(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(place / _FILE, (dumps(vars(entry)) + "\n").encode(), durable=True)


def read(layout: Layout, task_id: str) -> Entry | None:
    """None: there is none. Raises `TaskError` (code `corrupt`) for one that is not what we write."""
    path = folder(layout, task_id) / _FILE
    try:
        found: Any = json.loads(path.read_bytes())
        entry = Entry(**{**found, "config": tuple((str(key), str(said)) for key, said in found["config"])})
        entry = replace(entry, discarded=tuple(map(str, entry.discarded)))
        texts = (entry.task, entry.title, entry.branch, entry.at, entry.actor)
        maybe = (entry.tip, entry.worktree, entry.checkpoint)
        datetime.fromisoformat(entry.at)
        if (
            found.keys() == set(names_of(Entry))
            and entry.task == task_id
            and entry.status in STATUSES
            and isinstance(entry.done, bool)
            and all(isinstance(one, str) for one in texts)
            and all(one is None or isinstance(one, str) for one in maybe)
        ):
            return entry
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise TaskError(
        f"{path} is not what opencode-tasks writes",
        hint=f"look at it; what is beside it stays: {path.parent}",
        code="corrupt",
    )


def listed(layout: Layout) -> Iterator[Entry]:
    """Those that can be read, the newest first."""
    found = []
    for place in layout.trash.iterdir() if layout.trash.is_dir() else ():
        with suppress(TaskError):
            entry = read(layout, place.name) if is_id(place.name) else None
            found += [entry] if entry is not None else []
    yield from sorted(found, key=lambda entry: entry.at, reverse=True)


def until(entry: Entry, grace_s: int | None) -> datetime | None:
    """When it is swept away; None: never."""
    at = datetime.fromisoformat(entry.at)
    return None if grace_s is None else (at if at.tzinfo else at.replace(tzinfo=UTC)) + timedelta(seconds=grace_s)


def is_over(entry: Entry, grace_s: int | None) -> bool:
    last = until(entry, grace_s)
    return entry.done and last is not None and last < datetime.now(UTC)


def forget(layout: Layout, task_id: str) -> None:
    """The entry first: without it nothing of the folder is used."""
    place = folder(layout, task_id)
    with files.refused_writes(place):
        (place / _FILE).unlink(missing_ok=True)
        files.remove_tree(place)
