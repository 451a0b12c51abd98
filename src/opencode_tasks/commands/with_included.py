"""What `create-task` says of ignored files that come along into a worktree, and does for them."""

from typing import TYPE_CHECKING

from opencode_tasks.commands.here import Here
from opencode_tasks.commands.progress import progress
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.git.included import Brought

_MOST_RECORDED = 200


def bring(at: Here, checkout: Checkout) -> "Brought":
    """Before there is a task: an interruption takes all of it back."""
    from opencode_tasks.git import included

    if not checkout.is_linked or at.main.top == at.main.common_dir:
        return included.Brought()
    with progress("bringing ignored files along") as tell:
        return included.bring(at.main, checkout, tell)


def record(at: Here, task: Task, brought: "Brought") -> None:
    """Which they were, as far as they are not too many."""
    if brought.paths:
        paths = brought.paths[:_MOST_RECORDED]
        data = {"count": len(brought.paths), "size_bytes": brought.size_bytes, "paths": list(paths)}
        at.store.record(task.id, ("workspace.included", data), actor=at.actor)


def told(brought: "Brought") -> list[str]:
    """For a person."""
    lines = []
    if brought.paths:
        some = ", ".join(brought.paths[:5]) + (", …" if len(brought.paths) > 5 else "")
        lines.append(f"{len(brought.paths)} ignored files brought along ({brought.size_bytes} bytes): {some}")
    lines += [f"not brought along: {path}" for path in brought.left[:5]]
    if len(brought.left) > 5:
        lines.append(f"not brought along: {len(brought.left) - 5} more")
    return lines
