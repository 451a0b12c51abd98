"""The event types, one event as one line, and the fold from events to a Task. Pure.

The log is the truth: a Task is what its events say and nothing else. A line is
`{v, w, seq, lam, ts, actor, epoch, type, data, prev, h}` in this order, JSON without
spaces, where `h` is the SHA-256 of the same line without `h` and `prev` the `h` before it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.task import Base, Container, Tally, Task, Workspace, check_transition

SCHEMA = 1
GENESIS = "0" * 64

Data = Mapping[str, Any]


class CorruptError(TaskError):
    """Stored bytes are not what was written. Nothing is guessed from them."""

    code = "corrupt"


@dataclass(frozen=True)
class Event:
    """`w` writer (clone and host), `seq` its count from 1, `lam` Lamport time, `ts` RFC 3339 UTC."""

    w: str
    seq: int
    lam: int
    ts: str
    actor: str
    epoch: int
    type: str
    data: Data
    prev: str
    h: str = ""


def _dumps(value: object) -> str:
    # A path that is not UTF-8 carries surrogates; escaping keeps such a line valid UTF-8.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def encode(event: Event) -> tuple[Event, bytes]:
    """The event with its hash, and its line (with the final newline)."""
    fields: dict[str, object] = {
        "v": SCHEMA,
        "w": event.w,
        "seq": event.seq,
        "lam": event.lam,
        "ts": event.ts,
        "actor": event.actor,
        "epoch": event.epoch,
        "type": event.type,
        "data": event.data,
        "prev": event.prev,
    }
    body = _dumps(fields)
    h = hashlib.sha256(body.encode()).hexdigest()
    return replace(event, h=h), f'{body[:-1]},"h":"{h}"}}\n'.encode()


def decode(line_b: bytes) -> Event:
    """Parse and verify one line. Raises `CorruptError`, or `TaskError` for a newer schema."""
    tail = b',"h":"'
    at = line_b.rfind(tail)
    try:
        fields = json.loads(line_b)
        claimed = fields["h"]
        newer = int(fields["v"]) > SCHEMA
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
        raise CorruptError("A line of the log is not a record") from e
    if newer:
        raise newer_schema("The log", fields["v"])
    if at < 0 or hashlib.sha256(line_b[:at] + b"}").hexdigest() != claimed:
        raise CorruptError("A line of the log does not match its hash")
    return Event(**{k: fields[k] for k in ("w", "seq", "lam", "ts", "actor", "epoch", "type", "data", "prev", "h")})


def newer_schema(what: str, found: object) -> TaskError:
    return TaskError(
        f"{what} has records of schema {found}; this version reads up to {SCHEMA}",
        hint="pip install --upgrade opencode-tasks",
        code="newer_schema",
    )


def fold(events: Iterable[Event]) -> Task:
    """The task that `events` describe. Raises `CorruptError` when the first is not its creation."""
    task: Task | None = None
    for event in events:
        task = apply(task, event)
    if task is None:
        raise CorruptError("The log is empty")
    return task


def apply(task: Task | None, event: Event) -> Task:
    """One step of the fold. Types this version does not know count as a revision and change nothing else."""
    if task is None:
        if event.type != "task.created":
            raise CorruptError(f"The log begins with {event.type}, not with the task's creation")
        return _created(event)
    return replace(task, rev=task.rev + 1, updated_at=event.ts, **_changes(task, event.type, event.data))


def _changes(task: Task, type_: str, data: Data) -> dict[str, Any]:
    """The fields that the event sets, with their new values."""
    changes: dict[str, Any] = {}
    match type_:
        case "status.changed":
            changes["status"] = data["to"]
        case "container.changed":
            changes["container"] = Container(**{k: data.get(k) for k in _CONTAINER_FIELDS})  # type: ignore[arg-type]
        case "container.failed":
            changes["container"] = replace(task.container, error=data["message"])
        case "checkpoint.created":
            changes["checkpoints"] = Tally(task.checkpoints.count + 1, data["id"])
        case "commit.recorded":
            changes["commits"] = Tally(task.commits.count + 1, data["sha"])
        case "branch.renamed":
            changes["branch"] = data["to"]
        case "workspace.moved":
            changes["workspace"] = Workspace(**data["workspace"])
    return changes


_CONTAINER_FIELDS = ("state", "id", "name", "image", "engine")


def _created(event: Event) -> Task:
    data = event.data
    return Task(
        id=data["id"],
        title=data["title"],
        branch=data["branch"],
        base=Base(**data["base"]),
        status="pending",
        workspace=Workspace(**data["workspace"]),
        created_at=event.ts,
        updated_at=event.ts,
        rev=1,
        image=data.get("image"),
        parent=data.get("parent"),
        depends_on=tuple(data.get("depends_on", ())),
    )


def check(task: Task, new: Iterable[tuple[str, Data]]) -> None:
    """Whether the events may be appended to `task` now, one after the other. Raises `TaskError`."""
    for type_, data in new:
        if type_ == "status.changed":
            check_transition(task, data["to"])
            task = replace(task, status=data["to"])


def to_json(task: Task) -> dict[str, Any]:
    """The task as plain values, every field in its fixed order."""
    return asdict(task)


def from_json(fields: Mapping[str, Any]) -> Task:
    """The inverse of `to_json`. Raises `CorruptError` when fields are missing or surplus."""
    try:
        tuples = {k: tuple(fields[k]) for k in ("agents", "children", "depends_on", "blocked")}
        nested = {
            "base": Base(**fields["base"]),
            "workspace": Workspace(**fields["workspace"]),
            "container": Container(**fields["container"]),
            "checkpoints": Tally(**fields["checkpoints"]),
            "commits": Tally(**fields["commits"]),
        }
        return Task(**{**fields, **tuples, **nested})
    except (TypeError, KeyError) as e:
        raise CorruptError("state.json has other fields than this version knows") from e


def state_line(document: Mapping[str, Any]) -> str:
    """Fixed formatting of a projection, so that a rebuilt one is byte-identical."""
    return _dumps(document)
