"""`checkpoint`: the workspace's files as they are now, to come back to; and what is done with all of them."""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.checkpoints import restore, snapshot, upkeep
from opencode_tasks.checkpoints.snapshot import Checkpoint, Kind
from opencode_tasks.commands import Result, here, layers
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers import sizes
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import ConflictError, UsageError
from opencode_tasks.git import gone
from opencode_tasks.task import Task

HELP = "keep the workspace's files as they are now"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("-m", "--message", default="", help="a label to find it by")
    parser.add_argument("--container", action="store_true", help="also its container's home folder and /tmp")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="show the checkpoints, and what came of which")
    instead.add_argument("--verify", action="store_true", help="look whether everything in them is there and sound")
    instead.add_argument("--auto", action="store_true", help="as one that is taken by itself: thinned out later")
    instead.add_argument("--gc", action="store_true", help="throw away what is not kept, and pack the rest")


def run(args: Namespace) -> Result:
    if args.message and (args.list or args.verify or args.gc):
        raise UsageError("-m is for a new checkpoint")
    if args.container and (args.list or args.verify or args.gc):
        raise UsageError("--container is for a new checkpoint")
    at = here.ready()
    if args.gc:
        return _gc(at)
    task = at.task(args.task)
    if args.list:
        return _list(at, task)
    if args.verify:
        return _verify(at, task)
    require_workspace(at, task)
    kind: Kind = "auto" if args.auto else "manual"
    layers.settle(at, task)
    own = layers.asked(at, task) if args.container else layers.kept(at, task)
    with frozen(at.store, task):
        settle(at, task)
        made, is_new = snapshot.take(
            at.store,
            task,
            kind=kind,
            label=args.message,
            actor=at.actor,
            ignored=at.config.checkpoint.ignored,
            own=own,
        )
    if at.config.checkpoint.background:
        upkeep.later(at.store, at.checkout.top)
    container = f", container {sizes.told(made.layer.size)}" if made.layer else ""
    lines = [f"{made.id}: {made.changed} changed{container}" if is_new else f"{made.id}: nothing has changed since"]
    lines += [f"not included: {s.path} ({s.reason})" for s in made.skipped]
    return Result(document(made) | {"changed": made.changed if is_new else 0}, "\n".join(lines))


def _list(at: Here, task: Task) -> Result:
    from opencode_tasks.commands import checkpoint_tree

    found = snapshot.listed(at.store, task.id)
    now = _now(at, task) if found else None
    text = checkpoint_tree.drawn(found, now) if found else "No checkpoints yet."
    changed = None if now is None else now[1]
    return Result({"checkpoints": [document(c) for c in found], "changed_since": changed}, text)


def _now(at: Here, task: Task) -> "tuple[str, int] | None":
    """The checkpoint that the files come from, and how many differ from it. None: they are not here."""
    if workspace_of(at, task) is None:
        return None
    with frozen(at.store, task):
        return snapshot.changed_since(at.store, task, ignored=at.config.checkpoint.ignored)


def _verify(at: Here, task: Task) -> Result:
    from opencode_tasks.checkpoints import verifying

    found = snapshot.listed(at.store, task.id)
    problems = verifying.objects(at.store, at.checkout, task.id, found)
    if workspace_of(at, task) is not None:
        with frozen(at.store, task):
            problems += verifying.workspace(at.store, task)
    document = {"checkpoints": len(found), "problems": problems}
    return Result(document, "\n".join(problems) or f"{len(found)} checkpoints are whole.", 1 if problems else 0)


def _gc(at: Here) -> Result:
    budget_b = sizes.parse(at.config.checkpoint.budget, what="the budget of checkpoints")
    done = upkeep.run(at.store, at.checkout, budget_b=budget_b)
    lines = [f"{task_id}: {len(ids)} thrown away" for task_id, ids in done.dropped.items()]
    lines += [*done.problems, f"checkpoints take {sizes.told(done.size_bytes)}"]
    return Result(vars(done) | {"problems": list(done.problems)}, "\n".join(lines))


def document(checkpoint: Checkpoint) -> dict[str, Any]:
    plain = ("id", "label", "kind", "created_at", "changed", "parent", "size_bytes")
    found = {key: getattr(checkpoint, key) for key in plain} | {"risk": list(checkpoint.risk)}
    return found | {"container": layers.document(checkpoint)}


def settle(at: Here, task: Task) -> None:
    """Tell of a restore that was interrupted, once it is finished. The container is held still."""
    went_to = restore.settle(at.store, task, actor=at.actor, ignored=at.config.checkpoint.ignored)
    if went_to is not None:
        sys.stderr.write(f"opencode-tasks: the restore of {went_to} that was interrupted is finished now\n")


def require_workspace(at: Here, task: Task) -> None:
    """Another branch's files are not this task's."""
    if workspace_of(at, task) is None:
        raise ConflictError(
            f"Branch {task.branch} is not checked out in {task.workspace.path}: the files there are not this task's",
            hint=gone.way_back(at.checkout, task),
        )
