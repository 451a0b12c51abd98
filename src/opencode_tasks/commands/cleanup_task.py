"""`cleanup-task`: container, worktree and branch go; the memory stays. Refuses while work would be lost."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, documents, here
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.errors import NoEngineError, TaskError
from opencode_tasks.git import plumbing, repository
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import link
from opencode_tasks.task import Task
from opencode_tasks.values import replace

HELP = "remove a task's container, worktree and branch; its memory stays"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--volumes", action="store_true", help="its caches and other volumes of its own, too")
    parser.add_argument("--discard-ignored", action="store_true", help="files that git ignores go with the worktree")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    workspace = workspace_of(at, task)
    # The tip that was examined is the only one that may be deleted.
    tip = repository.tip_of(at.main, task.branch) if _has_branch(at, task) else None
    goes = workspace if workspace is not None and workspace.is_linked else None
    unsaved = repository.unsaved(at.main, task, workspace) if tip is not None else repository.Unsaved()
    if goes is not None and not args.discard_ignored:
        unsaved = replace(unsaved, ignored=_ignored(at, task, goes))
    _refuse(task, unsaved)
    if workspace is not None and not workspace.is_linked:
        raise TaskError(
            f"Branch {task.branch} is checked out in {workspace.top}",
            hint=f"git checkout {task.base.branch or 'another branch'}, then run the command again",
            code="in_use",
        )
    done = [_remove_container(at, task), *_volumes(at, task, remove=args.volumes)]
    if task.is_open:
        task = at.store.ensure_status(task.id, "cancelled", reason="cleanup-task", actor=at.actor)
    if goes is not None:
        done.append(_remove_worktree(at, goes))
    if tip is not None:
        repository.delete_branch(at.main, task.branch, tip)
        done.append(f"branch {task.branch} deleted; it was at {tip}")
    task = at.store.record(task.id, ("task.cleaned", {"branch": task.branch, "tip": tip}), actor=at.actor)
    done.append(f"memory kept in {at.store.layout.task(task.id)}")
    return Result(documents.task_document(at.store, task, {}), "\n".join(line for line in done if line))


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


def _refuse(task: Task, unsaved: repository.Unsaved) -> None:
    sentences = unsaved.sentences(task.base.branch or "its base")
    if not sentences:
        return
    steps = {
        "commit them": unsaved.uncommitted,
        f"git checkout {task.base.branch or 'main'} && git merge {task.branch}": unsaved.unmerged,
        "git push": unsaved.unpushed,
        "move away what you need of the ignored files, then add --discard-ignored": unsaved.ignored,
    }
    raise TaskError(
        f"Task {task.id} has work that would be lost:\n  " + "\n  ".join(sentences),
        hint="; ".join(step for step, paths in steps.items() if paths),
        code="unsaved_work",
    )


def _remove_container(at: Here, task: Task) -> str:
    from opencode_tasks.containers import sockets

    if task.container.id is None:
        sockets.remove(at.store.clone_id, task.id)
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


def _remove_worktree(at: Here, workspace: Checkout) -> str:
    link.remove(workspace.top, at.store.layout)
    try:
        repository.remove_worktree(at.main, workspace.top)
    except TaskError as e:
        link.ensure(workspace.top, at.store.layout)
        raise TaskError(
            f"The worktree {workspace.top} was not removed: {e.message}",
            hint="move away what is left in it, then run the command again",
            code="worktree",
        ) from e
    return f"worktree {workspace.top} removed"
