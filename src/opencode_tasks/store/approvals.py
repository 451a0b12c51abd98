"""Which references of the settings a person has approved: the settings come with the repository, from anybody.

In the clone's own directory, which no container can write and no pull request brings along. No values.
"""

import json
from collections.abc import Iterable
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.store import files
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.values import value


@value
class Approval:
    """`path`: what a `file://` led to when it was approved, without a link on the way; empty for others."""

    name: str
    source: str
    path: str
    by: str
    at: str


def load(layout: Layout) -> list[Approval]:
    """Raises `TaskError` for a file that is not ours: then nothing is approved."""
    try:
        found: Any = json.loads(layout.approved.read_bytes())
        entries = [Approval(**entry) for entry in found["approved"]]
        if all(isinstance(said, str) for entry in entries for said in vars(entry).values()):
            return entries
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise TaskError(
        f"{layout.approved} is not what opencode-tasks writes: no secret is given out",
        hint="move it away, then approve again: opencode-tasks secrets",
        code="corrupt",
    )


def approve(layout: Layout, new: Iterable[Approval]) -> None:
    """Each takes the place of what was approved for the same name and source."""
    with locked(layout.lock("approved")):
        kept = {(known.name, known.source): known for known in load(layout)}
        kept.update({(one.name, one.source): one for one in new})
        _write(layout, kept.values())


def revoke(layout: Layout, names: Iterable[str]) -> list[Approval]:
    """What was approved under these names and is no more."""
    gone = set(names)
    with locked(layout.lock("approved")):
        known = load(layout)
        _write(layout, [one for one in known if one.name not in gone])
    return [one for one in known if one.name in gone]


def _write(layout: Layout, approved: Iterable[Approval]) -> None:
    document = {"v": 1, "approved": [vars(one) for one in approved]}
    files.replace(layout.approved, json.dumps(document, indent=1).encode() + b"\n", durable=True)
