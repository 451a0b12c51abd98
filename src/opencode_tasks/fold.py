"""From events to a Task: what each type of event means. Pure.

The events of one task may come from several writers, in any order and more than once. Their
order is `(lam, w, seq)` everywhere, so that every machine comes to the same task. What each
type of event does is in `changes`.
"""

from collections.abc import Iterable

from opencode_tasks.changes import CHANGES, UPDATABLE, Fields, created, plain
from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, Data, Event, New
from opencode_tasks.task import Task, check_transition

VERSION = 5
"""Rises when the same events would fold to another Task; projections of another version are rebuilt."""


class Folding:
    """A fold under way. One step costs little, however many fields a task has."""

    def __init__(self, task: Task | None = None) -> None:
        self._fields: Fields = {} if task is None else dict(vars(task))

    def step(self, event: Event) -> None:
        """Raises `CorruptError` for an event that says what cannot be."""
        now = self._fields
        if now:
            now["rev"] += 1
            now["updated_at"] = event.ts
            change = CHANGES.get(event.type)
            if change is None:
                return  # a newer version's: kept, counted, and nothing else
        else:
            change = created
        try:
            change(now, event)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
            said = f"Record {event.seq} of {event.w} ({event.type}) lacks what its type says: {e!r}"
            raise CorruptError(said) from e

    def task(self) -> Task:
        if not self._fields:
            raise CorruptError("The log holds no whole record")
        # What Task(**fields) does, in a tenth of the time: every event pays for it.
        made = Task.__new__(Task)
        vars(made).update(self._fields)
        return made


def fold(events: Iterable[Event]) -> Task:
    """The task that `events` describe, whatever their order and however often each is there.

    Raises `CorruptError` when the first is not the creation, or two are different and claim to be one.
    """
    folding = Folding()
    for event in ordered(events):
        folding.step(event)
    return folding.task()


def ordered(events: Iterable[Event]) -> list[Event]:
    """Each event once, in the order of the fold."""
    once: dict[tuple[str, int], Event] = {}
    for event in events:
        known = once.setdefault((event.w, event.seq), event)
        if known.h != event.h:
            raise CorruptError(f"There are two records {event.seq} of {event.w}: the store was copied and both went on")
    return sorted(once.values(), key=lambda e: e.key)


def apply(task: Task, event: Event) -> Task:
    """One step from `task`."""
    folding = Folding(task)
    folding.step(event)
    return folding.task()


def check(task: Task, new: Iterable[New]) -> None:
    """Whether the events may be appended to `task` now, one after the other. Raises `TaskError`."""
    status, deleted = task.status, task.deleted_at and f"at {task.deleted_at}"
    for type_, data in new:
        if type_ == "task.undeleted":
            deleted = None
        elif deleted:
            raise TaskError(f"Task {task.id} was deleted {deleted}", code="deleted")
        if type_ == "status.changed":
            check_transition(task, data["to"], now=status)
            status = data["to"]
        elif type_ == "task.deleted":
            deleted = "one step before"


def update(task: Task, changes: Data) -> New:
    """The event that sets fields of `task`. Raises `TaskError` (code `usage`) for one that cannot be set so."""
    unknown = sorted(set(changes) - set(UPDATABLE))
    if unknown:
        raise TaskError(f"{', '.join(unknown)} cannot be updated", hint=f"can be: {', '.join(UPDATABLE)}", code="usage")
    return "task.updated", {"changes": {name: [plain(getattr(task, name)), plain(to)] for name, to in changes.items()}}
