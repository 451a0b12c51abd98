"""`restore-checkpoint`: the files as a checkpoint has them; the present is kept first."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from opencode_tasks.checkpoints import restore, snapshot
from opencode_tasks.checkpoints.planning import Plan
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.commands import Result, here, layers
from opencode_tasks.commands.checkpoint import require_workspace, settle
from opencode_tasks.commands.here import Here
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import UsageError
from opencode_tasks.task import Task

HELP = "bring the workspace's files back to a checkpoint"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", help="id, label, or latest")
    parser.add_argument("--task", help="id, unique beginning of an id, or branch (default: the branch here)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.add_argument("--undo", action="store_true", help="undo the newest restore")
    parser.add_argument("--path", action="append", default=[], help="only this file or folder; can be repeated")
    parser.add_argument("--memory-only", action="store_true", help="only plan.md and decisions.md, and no file")
    parser.add_argument("--no-container", action="store_true", help="leave the container's own files as they are")


def run(args: Namespace) -> Result:
    if bool(args.checkpoint) == args.undo:
        raise UsageError("Name a checkpoint, or use --undo", hint="opencode-tasks checkpoint --list")
    if args.memory_only and (args.path or args.dry_run or args.undo):
        raise UsageError("--memory-only goes with none of --path, --dry-run and --undo")
    at = here.ready()
    task = at.task(args.task)
    require_workspace(at, task)
    is_memory = args.memory_only
    if args.undo:
        target, is_memory = restore.undo_of_last(at.store, task)
    else:
        target = snapshot.named(at.store, task, args.checkpoint)
    if is_memory:
        return _memory(at, task, target)
    only, ignored = _only(task, args.path), at.config.checkpoint.ignored
    undo = None
    layers.settle(at, task)
    with layers.going_back(at, task, target, why_not=_why_not(args), dry=args.dry_run) as back:
        with frozen(at.store, task):
            if args.dry_run:
                plan = restore.preview(at.store, task, target, only=only, ignored=ignored)
            else:
                settle(at, task)
                undo, plan = restore.restore(
                    at.store, task, target, actor=at.actor, only=only, ignored=ignored, own=back.own
                )
        if undo is not None:
            back.finish(undo)
    document: dict[str, Any] = {
        "restored": None if undo is None else target.id,
        "undo": None if undo is None else undo.id,
        "added": len(plan.added),
        "changed": len(plan.changed),
        "deleted": len(plan.deleted),
        "collisions": list(plan.collisions),
        "container": back.preview() if undo is None else back.document(),
    }
    if undo is None:
        head = f"Restoring {target.id} would change {_counted(plan)}."
    else:
        head = f"Restored {target.id}: {_counted(plan)}. Undo: opencode-tasks restore-checkpoint {undo.id}"
    return Result(document, "\n".join([head, *_details(plan), *back.lines()]))


def _why_not(args: Namespace) -> str | None:
    """Why the container's own files are not to go back."""
    if args.path:
        return "only some of the workspace's were asked for"
    return "--no-container" if args.no_container else None


def _memory(at: Here, task: Task, target: Checkpoint) -> Result:
    with frozen(at.store, task):
        ignored = at.config.checkpoint.ignored
        undo, changed = restore.restore_memory(at.store, task, target, actor=at.actor, ignored=ignored)
    document = {"restored": target.id, "undo": undo.id, "memory": changed}
    told = " and ".join(changed) if changed else "nothing: they were so already"
    return Result(document, f"Restored of {target.id}: {told}. Undo: opencode-tasks restore-checkpoint --undo")


def _only(task: Task, paths: list[str]) -> tuple[str, ...]:
    """From the workspace's top. Raises `UsageError`."""
    found = []
    top = Path(task.workspace.path).resolve()
    for path in paths:
        try:
            # Not resolved: the last part may be a link, which is a file like any other.
            full = Path.cwd().joinpath(path)
            inside = str(full.parent.resolve().joinpath(full.name).relative_to(top))
        except ValueError as e:
            raise UsageError(f"{path} is not in the workspace {top}") from e
        if inside in (".", "..") or ".git" in inside.split("/"):
            raise UsageError(f"{path} is nothing that a checkpoint has", hint="without --path everything is restored")
        found.append(inside)
    return tuple(found)


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
