"""`checkpoint`: the workspace's files as they are now, to come back to."""

from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.commands import Result, Table, here
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import ConflictError
from opencode_tasks.git import gone
from opencode_tasks.task import Task

HELP = "keep the workspace's files as they are now"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("-m", "--message", default="", help="a label to find it by")
    parser.add_argument("--list", action="store_true", help="list the checkpoints instead")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    if args.list:
        found = snapshot.listed(at.store, task.id)
        rows = [(c.id, c.created_at, c.kind, str(c.changed), c.label) for c in found]
        table = Table(("checkpoint", "time", "kind", "changed", "label"), rows, "No checkpoints yet.")
        return Result({"checkpoints": [document(c) for c in found]}, table=table)
    require_workspace(at, task)
    with frozen(at.store, task):
        made, is_new = snapshot.take(at.store, task, kind="manual", label=args.message, actor=at.actor)
    lines = [f"{made.id}: {made.changed} changed" if is_new else f"{made.id}: nothing has changed since"]
    lines += [f"not included: {s.path} ({s.reason})" for s in made.skipped]
    return Result(document(made) | {"changed": made.changed if is_new else 0}, "\n".join(lines))


def document(checkpoint: Checkpoint) -> dict[str, Any]:
    return {key: getattr(checkpoint, key) for key in ("id", "label", "kind", "created_at", "changed")}


def require_workspace(at: Here, task: Task) -> None:
    """Another branch's files are not this task's."""
    if workspace_of(at, task) is None:
        raise ConflictError(
            f"Branch {task.branch} is not checked out in {task.workspace.path}: the files there are not this task's",
            hint=gone.way_back(at.checkout, task),
        )
