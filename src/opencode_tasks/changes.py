"""What each type of event changes in a task's fields. Pure.

An event says what it changed *from*: where that is not what stands, two writers did not know
of each other, and what is set aside stays visible as a conflict.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from opencode_tasks.events import CorruptError, Data, Event
from opencode_tasks.task import (
    TRANSITIONS,
    Base,
    Choice,
    Commands,
    Conflict,
    Container,
    Lease,
    Spent,
    Tally,
    Task,
    Workspace,
)
from opencode_tasks.values import names_of, replace

UPDATABLE = ("title", "image", "owner", "parent", "depends_on", "limits")

Fields = dict[str, Any]
Change = Callable[[Fields, Event], None]


def created(task: Fields, event: Event) -> None:
    if event.type != "task.created":
        raise CorruptError(f"The log begins with {event.type}, not with the task's creation")
    data = event.data
    made = Task(
        id=data["id"],
        title=data["title"],
        branch=data["branch"],
        base=Base(data["base"]["branch"], data["base"]["commit"]),
        status="pending",
        workspace=_workspace(data),
        created_at=event.ts,
        updated_at=event.ts,
        rev=1,
        owner=data.get("owner"),
        image=data.get("image"),
        status_since=event.ts,
        parent=data.get("parent"),
        depends_on=tuple(data.get("depends_on", ())),
        limits=_choice(data.get("limits", {})),
    )
    task.update(vars(made))


def _choice(said: Data) -> Choice:
    return Choice(**{k: v for k, v in said.items() if k in _CHOOSABLE})


_CHOOSABLE = names_of(Choice)


def _workspace(data: Data) -> Workspace:
    return Workspace(data["workspace"]["kind"], data["workspace"]["path"])


def _set(task: Fields, event: Event, field: str, before: object, to: object) -> None:
    stands = task[field]
    if stands not in (before, to):
        _conflict(task, event, field, kept=to, lost=stands)
    task[field] = to


def _conflict(task: Fields, event: Event, field: str, *, kept: object, lost: object) -> None:
    task["conflicts"] = (*task["conflicts"], Conflict(field, plain(kept), plain(lost), event.ts, event.w))


def plain(field: object) -> object:
    """As JSON gives it back."""
    return list(field) if isinstance(field, tuple) else vars(field) if isinstance(field, Choice) else field


def _status(task: Fields, event: Event) -> None:
    data = event.data
    now, before, to = task["status"], data["from"], data["to"]
    if to not in TRANSITIONS:
        raise ValueError(to)
    if to == now:
        return
    if to not in TRANSITIONS[now]:
        # What is closed stays closed, whoever was later.
        _conflict(task, event, "status", kept=now, lost=to)
        return
    if before != now:
        _conflict(task, event, "status", kept=to, lost=now)
    if now in _TIMED:
        passed = max(0, ms_of(event.ts) - ms_of(task["status_since"]))  # clocks are set back
        task["spent"] = replace(task["spent"], **{now: getattr(task["spent"], now) + passed})
    task["status"], task["status_since"] = to, event.ts


_TIMED = names_of(Spent)


def _restored(task: Fields, event: Event) -> None:
    """The one way out of a closed status, and only out of the one that the cleanup itself set."""
    to = event.data["status"]
    if to not in (None, "pending", "paused"):
        raise ValueError(to)
    if to is not None and task["status"] == "cancelled":
        task["status"], task["status_since"] = to, event.ts


def ms_of(ts: str) -> int:
    """Milliseconds since 1970."""
    from datetime import UTC, datetime

    at = datetime.fromisoformat(ts)
    # Without a zone it would be another time on every machine.
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _container(task: Fields, event: Event) -> None:
    data = event.data
    task["container"] = Container(**{k: data.get(k) for k in _CONTAINER_FIELDS})  # type: ignore[arg-type]


_CONTAINER_FIELDS = ("state", "id", "name", "image", "engine")


def _container_failed(task: Fields, event: Event) -> None:
    task["container"] = replace(task["container"], error=event.data["message"])


def _tally(field: str, key: str) -> Change:
    def count(task: Fields, event: Event) -> None:
        task[field] = Tally(task[field].count + 1, event.data[key])

    return count


def _decision_added(task: Fields, event: Event) -> None:
    task["decisions"] = Tally(task["decisions"].count + 1, event.data["id"])
    task["decision_events"] += 1


def _decision_edited(task: Fields, _: Event) -> None:
    task["decision_events"] += 1


def _decision_removed(task: Fields, _: Event) -> None:
    task["decisions"] = Tally(max(0, task["decisions"].count - 1), task["decisions"].last)
    task["decision_events"] += 1


def _command_started(task: Fields, _: Event) -> None:
    seen = task["commands"]
    task["commands"] = Commands(seen.count + 1, seen.failures, seen.duration_ms)


def _command_finished(task: Fields, event: Event) -> None:
    seen, data = task["commands"], event.data
    failed = data["exit_code"] != 0
    task["commands"] = Commands(seen.count, seen.failures + failed, seen.duration_ms + int(data["duration_ms"]))
    used = data.get("use")
    if used:
        known = task["use"]
        task["use"] = replace(
            known,
            memory_bytes=max(known.memory_bytes, int(used["memory"])),
            cpu_ms=known.cpu_ms + int(used["cpu_ms"]),
            oom_kills=known.oom_kills + int(used["oom_kills"]),
        )


def _limit_reached(task: Fields, event: Event) -> None:
    field = {"memory": "memory_held", "disk": "disk_held"}.get(event.data["kind"])
    if field:
        task["use"] = replace(task["use"], **{field: getattr(task["use"], field) + 1})


def _renamed(task: Fields, event: Event) -> None:
    data = event.data
    _set(task, event, "branch", data["from"], data["to"])


def _moved(task: Fields, event: Event) -> None:
    task["workspace"] = _workspace(event.data)


def _updated(task: Fields, event: Event) -> None:
    for field, (before, to) in event.data["changes"].items():
        if field not in UPDATABLE:
            continue  # a newer version's
        if field == "depends_on":
            before, to = tuple(before), tuple(to)  # noqa: PLW2901 (JSON has no tuples)
        elif field == "limits":
            before, to = _choice(before), _choice(to)  # noqa: PLW2901
        _set(task, event, field, before, to)


def _child_added(task: Fields, event: Event) -> None:
    child = event.data["id"]
    if child not in task["children"]:
        task["children"] = (*task["children"], child)


def _deleted(task: Fields, event: Event) -> None:
    task["deleted_at"] = task["deleted_at"] or event.ts
    task["leases"] = ()


def _lease_taken(task: Fields, event: Event) -> None:
    data = event.data
    lease = Lease(**{k: data[k] for k in _LEASE_FIELDS if k in data}, since=event.ts)
    task["epoch"] = max(task["epoch"], lease.epoch)
    others = [held for held in task["leases"] if not _gives_way(held, lease, data.get("took_over", ()))]
    in_the_way = [held for held in others if held.agent == lease.agent or "exclusive" in (held.mode, lease.mode)]
    # Not taken over, so the writer did not know of them. Who has the task alone has it alone.
    for held in in_the_way:
        if held.mode == "exclusive" and lease.mode != "exclusive":
            _conflict(task, event, "lease", kept=held.agent, lost=lease.agent)
            return
    for held in in_the_way:
        _conflict(task, event, "lease", kept=lease.agent, lost=held.agent)
    task["leases"] = (*(held for held in others if held not in in_the_way), lease)


_LEASE_FIELDS = tuple(name for name in names_of(Lease) if name != "since")
_HOLDER = ("agent", "host", "boot_id", "pid", "pid_start")


def _gives_way(held: Lease, new: Lease, took_over: Collection[str]) -> bool:
    """Whether `held` was taken over knowingly (the epoch is then above it), or is of the very same process."""
    if held.agent in took_over and held.epoch < new.epoch:
        return True
    return all(getattr(held, name) == getattr(new, name) for name in _HOLDER)


def _lease_released(task: Fields, event: Event) -> None:
    data = event.data
    agent, epoch = data["agent"], data["epoch"]
    # `since`: agents of two clones that did not know of each other may have the same name and epoch.
    since = data.get("since")
    task["leases"] = tuple(
        held for held in task["leases"] if (held.agent, held.epoch) != (agent, epoch) or since not in (None, held.since)
    )


def _rewritten(task: Fields, event: Event) -> None:
    task["commits"] = Tally(task["commits"].count, event.data["head"])


def _network_allowed(task: Fields, event: Event) -> None:
    task["allowed"] = tuple(dict.fromkeys((*task["allowed"], *_hosts(event))))


def _network_disallowed(task: Fields, event: Event) -> None:
    gone = _hosts(event)
    task["allowed"] = tuple(host for host in task["allowed"] if host not in gone)


def _hosts(event: Event) -> list[str]:
    found = event.data["hosts"]
    if not (isinstance(found, list) and all(isinstance(host, str) for host in found)):
        raise ValueError(found)
    return found


def _repaired(task: Fields, event: Event) -> None:
    lost = event.data["lost"]
    if lost:
        task["degraded"] = (*task["degraded"], lost)


CHANGES: Mapping[str, Change] = {
    "task.updated": _updated,
    "task.deleted": _deleted,
    "task.undeleted": lambda task, _: task.update(deleted_at=None),
    "task.restored": _restored,
    "status.changed": _status,
    "branch.renamed": _renamed,
    "workspace.moved": _moved,
    "child.added": _child_added,
    "container.changed": _container,
    "container.failed": _container_failed,
    "checkpoint.created": _tally("checkpoints", "id"),
    "commit.recorded": _tally("commits", "sha"),
    "commit.rewritten": _rewritten,
    "command.started": _command_started,
    "command.finished": _command_finished,
    "limit.reached": _limit_reached,
    "decision.added": _decision_added,
    "decision.edited": _decision_edited,
    "decision.removed": _decision_removed,
    "lease.taken": _lease_taken,
    "lease.released": _lease_released,
    "log.repaired": _repaired,
    "network.allowed": _network_allowed,
    "network.disallowed": _network_disallowed,
}
