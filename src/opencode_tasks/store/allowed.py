"""What every task of this clone may reach, by a person's decision: `allowed.jsonl`, a decision a line, never rewritten.

`{"ts", "actor", "hosts": […], "removed": true or false}`. It is this clone's own; no other takes it over.
"""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.store.files import refused_writes, write_all
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.store.log import now


def hosts(layout: Layout) -> tuple[str, ...]:
    """In the order in which they were allowed. Raises `TaskError` for a file that cannot be read."""
    found: dict[str, None] = {}
    for decision in _decisions(layout):
        for host in decision["hosts"]:
            found.pop(host, None)
            if not decision["removed"]:
                found[host] = None
    return tuple(found)


def record(layout: Layout, named: Sequence[str], *, removed: bool, actor: str) -> None:
    decision = {"ts": now(), "actor": actor, "hosts": list(named), "removed": removed}
    # A line that a full disk cut short is ended first.
    line_b = f"\n{json.dumps(decision)}\n".encode()
    with locked(layout.lock("allowed"), hot=True), refused_writes(layout.allowed):
        fd = os.open(layout.allowed, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, line_b)
            os.fsync(fd)
        finally:
            os.close(fd)


def _decisions(layout: Layout) -> Iterator[dict[str, Any]]:
    try:
        with open(layout.allowed, "rb") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        return
    except OSError as e:
        raise TaskError(f"{layout.allowed} cannot be read: {e.strerror}", hint="opencode-tasks doctor") from e
    for line_b in lines:
        try:
            found = json.loads(line_b)
            good = all(isinstance(host, str) for host in found["hosts"]) and isinstance(found["removed"], bool)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # empty, or cut short: that decision was never confirmed
        if good:
            yield found
