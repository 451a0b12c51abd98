"""The texts in which `find` looks."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.events import CorruptError, Event
from opencode_tasks.store.state import Position
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

MOST = 64 * 1024


def storable(text: str) -> str:
    """A name that is no UTF-8 carries surrogates, which SQLite does not take."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def plan(path: Path) -> tuple[str, str]:
    """The text, and by what it is noticed that it changed. The stamp first: an edit between the two is noticed."""
    seen = stamp(path)
    with suppress(OSError), path.open("rb") as f:
        return f.read(MOST).decode(errors="replace"), seen
    return "", seen


def stamp(path: Path) -> str:
    with suppress(OSError):
        found = path.stat()
        return f"{found.st_mtime_ns} {found.st_size}"
    return ""


def decisions(store: "Store", task: Task, at: Position) -> str:
    from opencode_tasks import decisions

    found = decisions.fold(task.title, _events(store, task, at, None))
    return storable("\n".join([found.head or "", *map(decisions.body, found.items)]))[:MOST]


def commands(store: "Store", task: Task, at: Position, known: Position | None, before: str) -> str:
    """`before`: the text as it was at `known`. The log is only read from there on."""
    # One writer's new records come after its old ones; of several they may come before.
    if known is not None and len(at.heads) == 1 and known.heads.keys() == at.heads.keys():
        with suppress(CorruptError):  # it was mended since
            return (before + _commands(_events(store, task, at, known)))[-MOST:]
    return _commands(_events(store, task, at, None))[-MOST:]


def _events(store: "Store", task: Task, at: Position, known: Position | None) -> Iterator[Event]:
    """Those after `known` that count to `at`; more may have come since."""
    for event in store.events_after(task.id, known):
        if event.w in at.heads and event.seq <= at.heads[event.w].seq:
            yield event


def _commands(events: Iterator[Event]) -> str:
    lines = []
    for event in events:
        argv = event.data.get("argv") if event.type == "command.started" else None
        if isinstance(argv, list):
            lines.append(" ".join(map(str, argv)) + "\n")
    return storable("".join(lines))
