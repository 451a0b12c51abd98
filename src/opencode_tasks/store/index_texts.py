"""The texts in which `find` looks."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_tasks.events import CorruptError, Event
from opencode_tasks.store import plan as plan_file
from opencode_tasks.store.state import Position

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

MOST = 64 * 1024
_ANY = 1 << 30


def storable(text: str) -> str:
    """A name that is no UTF-8 carries surrogates, which SQLite does not take."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def plan(path: str, title: str, branch: str) -> tuple[str, str]:
    """The text, and by what it is noticed that it changed. Nobody looks for what stands in every new plan."""
    try:
        content_b, found = content(path, MOST)
    except OSError:
        return "", ""
    text = content_b.decode(errors="replace")
    return "" if text == plan_file.first(title, branch) else text, _told(found)


def content(path: str, most: int = _ANY) -> tuple[bytes, os.stat_result]:
    """At most so much of the file, and what it was *before*, so that a change is rather noticed twice than not.

    A Path and a file object cost more than the reading.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        return os.read(fd, min(most, found.st_size)), found
    finally:
        os.close(fd)


def stamp(path: str) -> str:
    with suppress(OSError):
        return _told(os.stat(path))
    return ""


def _told(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"


def decisions(store: "Store", task_id: str, title: str, at: Position) -> str:
    from opencode_tasks import decisions

    found = decisions.fold(title, _events(store, task_id, at, None))
    return storable("\n".join([found.head or "", *map(decisions.body, found.items)]))[:MOST]


def commands(store: "Store", task_id: str, at: Position, known: Position | None, before: str) -> str:
    """`before`: the text as it was at `known`. The log is only read from there on."""
    # One writer's new records come after its old ones; of several they may come before.
    if known is not None and len(at.heads) == 1 and known.heads.keys() == at.heads.keys():
        with suppress(CorruptError):  # it was mended since
            return (before + _commands(_events(store, task_id, at, known)))[-MOST:]
    return _commands(_events(store, task_id, at, None))[-MOST:]


def _events(store: "Store", task_id: str, at: Position, known: Position | None) -> Iterator[Event]:
    """Those after `known` that count to `at`; more may have come since."""
    for event in store.events_after(task_id, known):
        if event.w in at.heads and event.seq <= at.heads[event.w].seq:
            yield event


def _commands(events: Iterator[Event]) -> str:
    lines = []
    for event in events:
        argv = event.data.get("argv") if event.type == "command.started" else None
        if isinstance(argv, list):
            lines.append(" ".join(map(str, argv)) + "\n")
    return storable("".join(lines))
