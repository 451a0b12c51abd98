"""What `create-task` does beside git and after it: all that does not decide whether git may start.

Git writes the files of a worktree for as long as half of our modules take to load. `create_task` loads this one, and
calls `ahead`, while git is at it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from opencode_tasks.commands import Result, devcontainers, documents, with_included
from opencode_tasks.commands.devcontainers import Known
from opencode_tasks.commands.here import Here
from opencode_tasks.containers import handover
from opencode_tasks.errors import TaskError
from opencode_tasks.git import filters, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import Switch
from opencode_tasks.opencode import present
from opencode_tasks.store import link
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.commands.with_submodules import Submodules
    from opencode_tasks.git.included import Brought

# Of those that are loaded in functions: what every task made in a worktree comes to.
_NEEDED = (
    "datetime",
    "opencode_tasks.git.included",
    "opencode_tasks.git.submodules",
    "opencode_tasks.store.documents",
)


def ahead(at: Here, new: NewTask) -> Known:
    """What stays as it is while git writes the files: looked up, and noted down where notes are kept."""
    for name in _NEEDED:
        import_module(name)
    plumbing.tasks_by_branch(at.checkout)
    if new.workspace.kind == "worktree" and present.is_set_up(at.checkout):
        import_module("opencode_tasks.opencode.install").wanted()
    return devcontainers.known(at, new.base.commit, new.image)


def finished(
    at: Here,
    checkout: Checkout,
    task: Task,
    switched: Switch,
    brought: "Brought",
    submodules: "Submodules",
    known: Known,
) -> Result:
    """The task is there: what remains to be done for it, and what is told."""
    with_included.record(at, task, brought)
    link.ensure(checkout.top, at.store.layout)
    notes = [*present.keep_up(checkout), *handover.after(at.store, checkout, at.config, switched.left, None)]
    if task.workspace.kind == "in-place":
        submodules.prepare(at, checkout)  # nothing of a container writes there now
    notes += handover.after(at.store, checkout, at.config, None, task)
    lines = [
        f"task {task.id} created",
        f"branch {task.branch}, from {task.base.branch or task.base.commit[:9]}",
    ]
    lines.append(f"workspace {task.workspace.path}")
    lines += with_included.told(brought)
    lines += [*submodules.lines, *filter(None, [filters.only_pointers(checkout)])]
    lines += _of_devcontainer(at, task, known)
    document = documents.task_document(at.store, at.store.get(task.id), {})
    if brought.paths or brought.left:
        document["included"] = {"count": len(brought.paths), "size_bytes": brought.size_bytes, "left": brought.left}
    submodules.into(document)
    return Result(document, "\n".join([*lines, *switched.notes, *notes]))


def _of_devcontainer(at: Here, task: Task, known: Known) -> list[str]:
    if not known.is_used:
        return [f"there is a {known.path}: create-task --devcontainer would use it"] if known.path else []
    try:
        said = devcontainers.said(at, task.base.commit, task.workspace.path)
    except TaskError as e:
        said = [e.message]
    return [f"devcontainer {known.told}", *(f"  {sentence}" for sentence in said)]
