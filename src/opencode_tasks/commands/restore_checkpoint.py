"""`restore-checkpoint`: the files as a checkpoint has them; the present is kept first."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.checkpoints import restore, snapshot
from opencode_tasks.checkpoints.planning import Plan
from opencode_tasks.commands import Result, here
from opencode_tasks.commands.checkpoint import require_workspace
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import UsageError

HELP = "bring the workspace's files back to a checkpoint"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", help="id, label, or latest")
    parser.add_argument("--task", help="id, unique beginning of an id, or branch (default: the branch here)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.add_argument("--undo", action="store_true", help="undo the newest restore")


def run(args: Namespace) -> Result:
    if bool(args.checkpoint) == args.undo:
        raise UsageError("Name a checkpoint, or use --undo", hint="opencode-tasks checkpoint --list")
    at = here.ready()
    task = at.task(args.task)
    require_workspace(at, task)
    target = restore.undo_of_last(at.store, task) if args.undo else snapshot.named(at.store, task, args.checkpoint)
    undo = None
    with frozen(at.store, task):
        if args.dry_run:
            plan = restore.preview(at.store, task, target)
        else:
            undo, plan = restore.restore(at.store, task, target, actor=at.actor)
    document = {
        "restored": None if undo is None else target.id,
        "undo": None if undo is None else undo.id,
        "added": len(plan.added),
        "changed": len(plan.changed),
        "deleted": len(plan.deleted),
        "collisions": list(plan.collisions),
    }
    if undo is None:
        head = f"Restoring {target.id} would change {_counted(plan)}."
    else:
        head = f"Restored {target.id}: {_counted(plan)}. Undo: opencode-tasks restore-checkpoint {undo.id}"
    return Result(document, "\n".join([head, *_details(plan)]))


def _counted(plan: Plan) -> str:
    return f"{len(plan.added)} added, {len(plan.changed)} changed, {len(plan.deleted)} deleted"


def _details(plan: Plan) -> list[str]:
    lines = [
        f"  {mark} {path}"
        for mark, paths in (("+", plan.added), ("~", plan.changed), ("-", plan.deleted))
        for path in paths
    ]
    lines += [f"  ! {path} is ignored and in the way; the undo has it" for path in plan.collisions]
    lines += [f"  = {path} stays: the checkpoint's .gitignore ignores it" for path in plan.left]
    if plan.head_moved:
        lines.append("  HEAD is at another commit than it was at the checkpoint; it is not moved")
    return lines
