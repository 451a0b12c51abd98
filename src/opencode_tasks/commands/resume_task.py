"""`resume-task`: a task is at work again, in its worktree, or by having its branch checked out here."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from opencode_tasks.commands import Result, documents, here
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers import handover
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.git import discovery, gone, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import clean_git_env, run_attached
from opencode_tasks.task import Task

HELP = "go on with a task: check its branch out here, or tell where its worktree is"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="id, unique beginning of an id, or branch (default: the last paused)")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task) if args.task else _last_paused(at)
    if not task.is_open:
        raise TaskError(
            f"Task {task.id} is {task.status}",
            hint=f"go on from its branch: opencode-tasks create-task TITLE --from {task.branch}",
            code="not_running",
        )
    checkout = workspace_of(at, task) or _checked_out(at, task)
    switched = workspaces.switch(at.store, checkout, at.config, actor=at.actor)
    notes = [*switched.notes, *handover.after(at.store, checkout, at.config, switched.left, switched.entered)]
    task = at.store.get(task.id)
    if task.status != "running":
        raise ConflictError(f"Another branch was checked out in {checkout.top} meanwhile", hint="run the command again")
    document = documents.task_document(at.store, task, documents.live_states(at.store, [task]))
    lines = [f"task {task.id} is running in {checkout.top}", *notes]
    if checkout.top != at.checkout.top:
        lines.append(f"cd {checkout.top}")
    return Result(document, "\n".join(lines))


def _last_paused(at: Here) -> Task:
    paused = [task for task in at.store.all() if task.status == "paused"]
    if not paused:
        raise NoTaskError("No task is paused", hint="opencode-tasks list-tasks; then: opencode-tasks resume-task TASK")
    return max(paused, key=lambda task: task.updated_at)


def _checked_out(at: Here, task: Task) -> Checkout:
    """Where its files were last. Our hooks see the checkout as any other."""
    top = at.main.top if task.workspace.kind == "in-place" else Path(task.workspace.path)
    if gone.is_gone(task):
        raise TaskError(
            f"The worktree of task {task.id} is gone: {task.workspace.path}",
            hint=gone.way_back(at.main, task),
            code="worktree",
        )
    code = run_attached(("git", "checkout", "--quiet", task.branch), cwd=top, env=clean_git_env())
    checkout = discovery.find(top, {})
    if workspaces.holds(task, top, checkout) is None:
        raise TaskError(
            f"git did not check out {task.branch} in {top} (exit code {code}; its own words are above)",
            hint="commit or stash what is in the way, then run the command again",
            code="git",
        )
    return checkout
