"""What `cleanup-task` removed: thrown away when its time is over, brought back when somebody asks."""

from contextlib import suppress
from pathlib import Path

from opencode_tasks.commands import Result, documents
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.commands.with_submodules import Submodules
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.durations import seconds_or_never
from opencode_tasks.errors import TaskError
from opencode_tasks.git import backup, discovery, private, repository, submodule_trees, workspaces
from opencode_tasks.opencode import present
from opencode_tasks.store import link, trash
from opencode_tasks.store.trash import Entry
from opencode_tasks.task import Task


def sweep(at: Here) -> list[Entry]:
    """Those whose period of grace is over."""
    grace_s = seconds_or_never(at.config.cleanup.grace)
    over = [entry for entry in trash.listed(at.store.layout) if trash.is_over(entry, grace_s)]
    for entry in over:
        backup.drop(at.main, entry.task)
        private.drop(at.main, entry.task)
        trash.forget(at.store.layout, entry.task)
    return over


def unfinished(at: Here) -> list[Entry]:
    """Of cleanups that were killed, or are under way."""
    return [entry for entry in trash.listed(at.store.layout) if not entry.done]


def undo(at: Here, named: str | None) -> Result:
    """Branch, worktree and files are back, and the task is open if the cleanup closed it. Again is the same."""
    entry = _entry(at, named)
    task = at.store.undelete(entry.task, reason="cleanup-task --undo", actor=at.actor)
    done = []
    if entry.tip is not None:
        folder = trash.folder(at.store.layout, task.id)
        backup.bring_back(at.main, task.id, entry.branch, entry.tip, entry.config, folder)
        done.append(f"branch {entry.branch} is back at {entry.tip[:9]}")
    private.bring_back(at.store.layout, task.id, trash.folder(at.store.layout, task.id))
    if entry.worktree is not None:
        done += _worktree(at, task, entry, Path(entry.worktree))
    task = _reopened(at, task, entry)
    if entry.worktree is not None:
        workspaces.switch(at.store, discovery.find(Path(entry.worktree), {}), at.config, actor=at.actor)
    elif not task.is_open:
        done.append(f"the task stays {task.status}")
    backup.drop(at.main, task.id)
    trash.forget(at.store.layout, task.id)
    if task.is_open:
        done.append("its container is made anew when a command needs it; caches that were removed stay so")
    task = at.store.get(task.id)
    return Result(documents.task_document(at.store, task, {}), "\n".join([f"task {task.id} is {task.status}", *done]))


def _entry(at: Here, named: str | None) -> Entry:
    if named:
        entry = trash.read(at.store.layout, at.store.resolve(named).id)
    else:
        entry = next(trash.listed(at.store.layout), None)
    if entry is None:
        raise TaskError(
            f"Nothing of {named or 'any task'} is kept to be brought back",
            hint=f"it is kept for {at.config.cleanup.grace} (cleanup.grace); opencode-tasks list-tasks",
            code="no_backup",
        )
    return entry


def _worktree(at: Here, task: Task, entry: Entry, path: Path) -> list[str]:
    done = []
    if workspace_of(at, task) is None:
        with suppress(FileNotFoundError):
            if any(path.iterdir()):
                raise TaskError(
                    f"There is something else in {path} by now",
                    hint="move it away, then run the command again",
                    code="worktree",
                )
        repository.add_worktree(at.main, path, entry.branch)
        submodules = Submodules([])
        submodules.prepare(at, discovery.find(path, {}))
        done += [f"worktree {path} is back", *submodules.lines]
    link.ensure(path, at.store.layout)
    done += present.keep_up(discovery.find(path, {}))
    if at.config.workspace.submodules:
        done += submodule_trees.prepare(discovery.find(path, {})).lines
    if entry.checkpoint is not None:
        from opencode_tasks.checkpoints import restore, snapshot

        kept = snapshot.named(at.store, task, entry.checkpoint)
        with frozen(at.store, task):
            _, plan = restore.restore(at.store, task, kept, actor=at.actor)
        done.append(f"{len(plan.added) + len(plan.changed) + len(plan.deleted)} files as checkpoint {kept.id} has them")
    if any(event.type == "workspace.included" for event in at.store.history(task.id)):
        from opencode_tasks.git import included

        included.bring(at.main, discovery.find(path, {}))  # what was still the main checkout's was no work of the task
    return done


def _reopened(at: Here, task: Task, entry: Entry) -> Task:
    """Once. What was closed before the cleanup stays closed."""
    events = [e.type for e in at.store.history(task.id) if e.type in ("task.cleaned", "task.restored")]
    status = {"pending": "pending", "running": "paused", "paused": "paused"}.get(entry.status)
    if events[-1:] == ["task.restored"] and task.status != "cancelled":
        return task
    data = {"branch": entry.branch, "tip": entry.tip, "status": status}
    return at.store.record(task.id, ("task.restored", data), actor=at.actor)
