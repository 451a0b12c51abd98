"""`cleanup-task`: container, worktree and branch go; the memory stays, and with `--delete` is listed no more. Refuses
while work would be lost, unless told which may go; and even that can be brought back for a while.
"""

from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import Any

from opencode_tasks.commands import Result, documents, here, importing, merging
from opencode_tasks.commands import trash as trashing
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.durations import seconds_or_never
from opencode_tasks.errors import NoEngineError, TaskError, UsageError
from opencode_tasks.events import New
from opencode_tasks.git import backup, plumbing, private, repository
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.repository import Unsaved
from opencode_tasks.store import link, trash
from opencode_tasks.store.log import now
from opencode_tasks.store.trash import Entry
from opencode_tasks.task import Task
from opencode_tasks.values import names_of, replace

HELP = "remove a task's container, worktree and branch; its memory stays"

_KINDS = names_of(Unsaved)


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--delete", action="store_true", help="list the task no more")
    parser.add_argument("--volumes", action="store_true", help="its caches and other volumes of its own, too")
    parser.add_argument(
        "--discard",
        action="append",
        default=[],
        metavar="KIND[,KIND]",
        help=f"what may go although it is saved nowhere else: {', '.join(_KINDS)}",
    )
    parser.add_argument("--discard-ignored", dest="discard", action="append_const", const="ignored", help=SUPPRESS)
    parser.add_argument("--undo", action="store_true", help="bring back what was removed (default: the last task's)")


def run(args: Namespace) -> Result:
    discarded = {kind for said in args.discard for kind in said.split(",") if kind}
    if unknown := sorted(discarded - set(_KINDS)):
        raise UsageError(f"--discard: there is no {', '.join(unknown)}", hint=f"one of: {', '.join(_KINDS)}")
    at = here.ready()
    if args.undo:
        if discarded or args.volumes or args.delete:
            raise UsageError("--undo goes with no other option")
        return trashing.undo(at, args.task)
    return _clean(at, args, discarded)


def _clean(at: Here, args: Namespace, discarded: set[str]) -> Result:
    merging.settle(at)
    trashing.sweep(at)
    task = at.task(args.task)
    if task.deleted_at is not None:
        return _deleted(at, task)
    if args.delete:
        _require_no_open_children(at, task)
    workspace = workspace_of(at, task)
    importing.ask(at, task, workspace)  # it may move the branch
    # The tip that was examined is the only one that may be deleted.
    owned = _has_branch(at, task)
    tip = repository.tip_of(at.main, task.branch) if owned else None
    goes = workspace if workspace is not None and workspace.is_linked else None
    begun = _begun(at, task, tip)
    if begun is not None:
        discarded |= {"unmerged", "unpushed", "untaken"} & set(begun.discarded)
    unsaved = repository.unsaved(at.main, task, workspace) if tip is not None else Unsaved()
    if goes is not None:
        unsaved = replace(unsaved, **_in_worktree(at, task, goes, unsaved, discarded))
    _refuse(at, task, replace(unsaved, **dict.fromkeys(discarded, ())))
    if workspace is not None and not workspace.is_linked:
        raise TaskError(
            f"Branch {task.branch} is checked out in {workspace.top}",
            hint=f"git checkout {task.base.branch or 'another branch'}, then run the command again",
            code="in_use",
        )
    if goes is not None and (goes.git_dir / "locked").exists():
        raise TaskError(f"{goes.top} is locked", hint=f"git worktree unlock {goes.top}", code="worktree")
    entry = _kept(at, task, tip, goes, begun, discarded)
    done = [_remove_container(at, task), *_volumes(at, task, remove=args.volumes)]
    if task.is_open:
        task = at.store.ensure_status(task.id, "cancelled", reason="cleanup-task", actor=at.actor)
    if goes is not None:
        # Nothing runs in it any more.
        entry, lines = _keep_files(at, task, entry, goes, unsaved)
        done += [*lines, _remove_worktree(at, goes, force=bool(unsaved.uncommitted))]
    if owned:
        repository.delete_branch(at.main, task.branch, tip)
    if tip is not None:
        done.append(f"branch {task.branch} deleted; it was at {tip}")
    events: list[New] = [("task.cleaned", {"branch": task.branch, "tip": entry.tip})]
    if args.delete:
        events.append(("task.deleted", {"reason": "cleanup-task --delete"}))
        done.append("listed no more, but by list-tasks --deleted")
    task = at.store.record(task.id, *events, actor=at.actor)
    trash.write(at.store.layout, replace(entry, done=True))
    done.append(f"memory kept in {at.store.layout.task(task.id)}")
    done.append(f"to bring it back, for {at.config.cleanup.grace}: opencode-tasks cleanup-task --undo {task.id}")
    document = {**documents.task_document(at.store, task, {}), "kept": _kept_document(at, entry)}
    return Result(document, "\n".join(line for line in done if line))


def _deleted(at: Here, task: Task) -> Result:
    """Nothing is left to remove; the cleanup may have been killed before it said so."""
    entry = trash.read(at.store.layout, task.id)
    if entry is not None and not entry.done:
        trash.write(at.store.layout, replace(entry, done=True))
    return Result(documents.task_document(at.store, task, {}), f"task {task.id} was deleted at {task.deleted_at}")


def _require_no_open_children(at: Here, task: Task) -> None:
    children = [child for child in task.children if at.store.get(child).is_open]
    if children:
        raise TaskError(
            f"Task {task.id} has children that are open: {', '.join(children)}",
            hint=f"opencode-tasks complete-task {children[0]}; or cleanup-task, for each",
            code="in_use",
        )


def _begun(at: Here, task: Task, tip: str | None) -> Entry | None:
    """A cleanup of the same that was killed."""
    found = trash.read(at.store.layout, task.id)
    return found if found is not None and not found.done and tip in (None, found.tip) else None


def _in_worktree(
    at: Here, task: Task, goes: Checkout, unsaved: Unsaved, discarded: set[str]
) -> dict[str, tuple[str, ...]]:
    found = {"ignored": _ignored(at, task, goes)}
    if unsaved.uncommitted and "uncommitted" in discarded:
        from opencode_tasks.checkpoints import last

        found["unkeepable"] = last.unkeepable(goes)
    return found


def _kept(
    at: Here, task: Task, tip: str | None, goes: Checkout | None, begun: Entry | None, discarded: set[str]
) -> Entry:
    """Before anything is removed: where the branch is, twice, and what there is to bring back."""
    before = trash.read(at.store.layout, task.id)
    if begun is None and before is not None and tip is None and goes is None:
        return before  # there is nothing left to remove
    entry = begun or Entry(
        task=task.id,
        title=task.title,
        branch=task.branch,
        tip=tip,
        at=now(),
        actor=at.actor,
        status=task.status,
        config=backup.section(at.main, task.branch) if tip is not None else (),
        worktree=str(goes.top) if goes is not None else None,
    )
    entry = replace(entry, discarded=tuple(sorted({*entry.discarded, *discarded})))
    trash.write(at.store.layout, entry)
    if tip is not None:
        backup.keep(at.main, task, tip, trash.folder(at.store.layout, task.id))
    return entry


def _keep_files(at: Here, task: Task, entry: Entry, goes: Checkout, unsaved: Unsaved) -> tuple[Entry, list[str]]:
    if not unsaved.uncommitted and not unsaved.ignored:
        return entry, []
    from opencode_tasks.checkpoints import last

    with frozen(at.store, task):
        kept, left = last.keep(at.store, task, goes, actor=at.actor)
    entry = replace(entry, checkpoint=kept.id)
    trash.write(at.store.layout, entry)
    lines = [f"files kept in checkpoint {kept.id}"]
    if left:
        lines.append(f"ignored, and too much to be kept: {repository.some(left)}")
    return entry, lines


def _kept_document(at: Here, entry: Entry) -> dict[str, Any]:
    last = trash.until(entry, seconds_or_never(at.config.cleanup.grace))
    until = None if last is None else last.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"ref": backup.ref(entry.task) if entry.tip else None, "checkpoint": entry.checkpoint, "until": until}


def _has_branch(at: Here, task: Task) -> bool:
    """False when the branch's name is another task's by now."""
    return plumbing.task_of_branch(at.checkout, task.branch) == task.id


def _ignored(at: Here, task: Task, workspace: Checkout) -> tuple[str, ...]:
    """Less what was brought along from the main checkout and is there still, byte for byte."""
    paths = repository.ignored(workspace)
    if not paths or not any(event.type == "workspace.included" for event in at.store.history(task.id)):
        return paths
    from opencode_tasks.git import included

    return included.differing(at.main, workspace)


def _refuse(at: Here, task: Task, unsaved: Unsaved) -> None:
    sentences = unsaved.sentences(task.base.branch or "its base")
    if not sentences:
        return
    by_hand = f"git checkout {task.base.branch or 'main'} && git merge {task.branch}"
    steps = {
        "commit them": unsaved.uncommitted,
        f"opencode-tasks complete-task {task.id} --merge" if task.is_open else by_hand: unsaved.unmerged,
        "git push": unsaved.unpushed,
        "move away what you need of the ignored files": unsaved.ignored,
        f"git checkout {task.branch}, and {importing.command(task)}": unsaved.untaken,
        "move away what no checkpoint can keep": unsaved.unkeepable,
    }
    kinds = ",".join(kind for kind in _KINDS if getattr(unsaved, kind))
    raise TaskError(
        f"Task {task.id} has work that would be lost:\n  " + "\n  ".join(sentences),
        hint="; ".join(step for step, paths in steps.items() if paths)
        + f"; or let it go, to be brought back for {at.config.cleanup.grace}: --discard {kinds}",
        code="unsaved_work",
    )


def _remove_container(at: Here, task: Task) -> str:
    from opencode_tasks.containers import sockets

    away = trash.folder(at.store.layout, task.id)
    if task.container.id is None:
        sockets.remove(at.store.clone_id, task.id)
        private.put_away(at.store.layout, task.id, away)
        return ""
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.containers.follow import record
    from opencode_tasks.containers.spec import container_name

    try:
        engine = Engine()
    except NoEngineError as e:
        return f"its container was left: {e.message}; afterwards: opencode-tasks reconcile"
    engine.remove(container_name(task.id))
    sockets.remove(at.store.clone_id, task.id)
    record(at.store, engine, task, None, at.actor)
    private.put_away(at.store.layout, task.id, away)
    return "container removed"


def _volumes(at: Here, task: Task, *, remove: bool) -> list[str]:
    """Of a task whose container was never made there are none; then the engine is not asked."""
    at.store.layout.set_up(task.id).unlink(missing_ok=True)
    if task.container.engine is None and not remove:
        return []
    from opencode_tasks.containers import volumes
    from opencode_tasks.containers.engine import Engine

    try:
        engine = Engine()
        own = [v.name for v in volumes.listed(engine, at.store.clone_id) if v.task == task.id]
    except NoEngineError as e:
        return [f"its volumes were left: {e.message}; afterwards: the same command again"] if remove else []
    if not remove:
        return [f"volumes kept: {', '.join(own)}; cleanup-task --volumes removes them"] if own else []
    return volumes.remove_told(engine, own)


def _remove_worktree(at: Here, workspace: Checkout, *, force: bool) -> str:
    link.remove(workspace.top, at.store.layout)
    try:
        repository.remove_worktree(at.main, workspace.top, force=force)
    except TaskError as e:
        link.ensure(workspace.top, at.store.layout)
        raise TaskError(
            f"The worktree {workspace.top} was not removed: {e.message}",
            hint="move away what is left in it, then run the command again",
            code="worktree",
        ) from e
    return f"worktree {workspace.top} removed"
