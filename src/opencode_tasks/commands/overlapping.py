"""What `task-status` says of other open tasks that changed the same files."""

from typing import Any

from opencode_tasks.commands import here
from opencode_tasks.git import overlaps
from opencode_tasks.git.overlaps import Overlap
from opencode_tasks.printable import printable
from opencode_tasks.task import Task

_MOST = 5


def into(document: dict[str, Any], at: here.Here, task: Task) -> list[str]:
    """Adds `overlaps` and `overlaps_cut` to the document; the lines for a person."""
    found = overlaps.find(at.store, at.checkout, task.id) if task.is_open else overlaps.Found()
    document["overlaps"] = [
        {"task": o.task, "title": o.title, "files": [{"path": f.path, "kind": f.kind} for f in o.files]}
        for o in found.overlaps
    ]
    document["overlaps_cut"] = list(found.cut)
    return [*(f"  overlaps     {_said(o)}" for o in found.overlaps), *(f"  overlaps     {c}" for c in found.cut)]


def _said(overlap: Overlap) -> str:
    names = [printable(f.path) + (" (same lines)" if f.kind == "region" else "") for f in overlap.files[:_MOST]]
    left = len(overlap.files) - len(names)
    return f"{overlap.task}: {', '.join(names)}" + (f", and {left} more" if left else "")
