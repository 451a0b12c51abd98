"""Layer 1: `state.json`, a checksummed projection of the log, replaced atomically. Snapshots have the same form."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from opencode_tasks import fold
from opencode_tasks.events import SCHEMA, CorruptError, dumps, newer_schema
from opencode_tasks.store import files
from opencode_tasks.store.log import Head
from opencode_tasks.task import Base, Choice, Commands, Conflict, Container, Lease, Spent, Tally, Task, Use, Workspace
from opencode_tasks.values import names_of, value


@value
class Position:
    """What of the log is folded: each writer's head, and the key of the newest event."""

    heads: Mapping[str, Head] = MappingProxyType({})
    last: tuple[int, str, int] = (0, "", 0)

    @property
    def lam(self) -> int:
        return self.last[0]


def write(path: Path, task: Task, at: Position) -> None:
    """Not synced: a torn file fails its checksum and is rebuilt from the log."""
    files.replace(path, render(task, at))


def render(task: Task, at: Position) -> bytes:
    heads = {writer: at.heads[writer]._asdict() for writer in sorted(at.heads)}
    document = {"v": SCHEMA, "fold": fold.VERSION, "task": to_json(task), "log": {"heads": heads, "last": at.last}}
    body_b = dumps(document).encode()
    digest = hashlib.sha256(body_b).hexdigest()
    return body_b[:-1] + f',"sha256":"{digest}"}}\n'.encode()


def read(path: Path) -> tuple[Task, Position]:
    """Raises `FileNotFoundError`, `CorruptError` for anything but what `write` wrote, or `newer_schema`."""
    return parse(path.read_bytes(), path)


def parse(content_b: bytes, path: Path) -> tuple[Task, Position]:
    at = content_b.rfind(b',"sha256":"')
    try:
        document = json.loads(content_b)
        digest = hashlib.sha256(content_b[:at] + b"}").hexdigest()
        if at < 0 or document["sha256"] != digest:
            raise CorruptError(f"{path} does not match its checksum")
        if document["v"] > SCHEMA:
            raise newer_schema(path.name, document["v"])
        if document["fold"] != fold.VERSION:
            raise OutdatedError(f"{path} was folded by another version")
        log = document["log"]
        heads = {writer: Head(**head) for writer, head in log["heads"].items()}
        lam, w, seq = log["last"]
        return from_json(document["task"]), Position(heads, (lam, w, seq))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise CorruptError(f"{path} is not a state") from e


class OutdatedError(CorruptError):
    """Sound, and of another version of the fold: to be rebuilt, and nothing to worry about."""


def keep_corrupt(path: Path) -> Path:
    """Move a damaged file aside, for a person to look at."""
    kept = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.replace(kept)
    return kept


_NAMES = names_of(Task)
_NESTED: dict[str, type[Any]] = {
    "base": Base,
    "workspace": Workspace,
    "container": Container,
    "checkpoints": Tally,
    "commits": Tally,
    "decisions": Tally,
    "commands": Commands,
    "spent": Spent,
    "use": Use,
    "limits": Choice,
}
_LISTS: dict[str, type[Any]] = {"leases": Lease, "conflicts": Conflict}
_TUPLES = ("children", "depends_on", "allowed", "blocked", "degraded")


def to_json(task: Task) -> dict[str, Any]:
    """The task as plain values, every field in its fixed order."""
    made = {name: getattr(task, name) for name in _NAMES}
    for name in _NESTED:
        made[name] = vars(made[name])
    for name in _LISTS:
        made[name] = [vars(item) for item in made[name]]
    return made


def from_json(fields_: Mapping[str, Any]) -> Task:
    """The inverse of `to_json`. Raises `CorruptError` when fields are missing or surplus."""
    try:
        nested = {name: kind(**fields_[name]) for name, kind in _NESTED.items()}
        lists = {name: tuple(kind(**item) for item in fields_[name]) for name, kind in _LISTS.items()}
        tuples = {name: tuple(fields_[name]) for name in _TUPLES}
        return Task(**{**fields_, **nested, **lists, **tuples})
    except (TypeError, KeyError) as e:
        raise CorruptError("state.json has other fields than this version knows") from e
