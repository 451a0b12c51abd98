"""`complete-task`: the branch is merged when that is asked for, the files are kept in a checkpoint, the plan says
what was done, the container stops.
"""

from argparse import ArgumentParser, Namespace

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.commands import Result, documents, here, importing, merging
from opencode_tasks.commands.here import workspace_of
from opencode_tasks.containers import network
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import NoEngineError, TaskError
from opencode_tasks.git import repository
from opencode_tasks.plans import Facts
from opencode_tasks.store import plan_edits
from opencode_tasks.task import Task, check_transition

HELP = "close a task as done"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    here.add_expected_rev(parser)
    merging.configure(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    at.store.require_rev(task.id, args.expected_rev)
    check_transition(task, "completed")
    workspace = workspace_of(at, task)
    merging.settle(at)
    importing.ask(at, task, workspace)
    merged, lines = merging.merge(at, task, workspace, args)
    if workspace is not None:
        with frozen(at.store, task):
            ignored = at.config.checkpoint.ignored
            kept, _ = snapshot.take(
                at.store, task, kind="milestone", label="completed", actor=at.actor, ignored=ignored
            )
        lines.append(f"files kept in checkpoint {kept.id}")
        left = repository.unsaved(at.main, task, workspace)
        lines += [f"still open: {said}" for said in left.sentences(task.base.branch or "its base")]
    lines += _finish_plan(at, task)
    task = at.store.ensure_status(task.id, "completed", reason="complete-task", actor=at.actor)
    if workspace is not None:
        workspace.occupant_file.unlink(missing_ok=True)
    network.close(at.store, task.id)
    if task.container.id is not None:
        lines.append(_stop(at, task.id))
    document = documents.task_document(at.store, at.store.get(task.id), documents.live_states(at.store, [task]))
    if merged is not None:
        document["merged"] = merged
    return Result(document, "\n".join([f"task {task.id} completed", *lines]))


def _finish_plan(at: here.Here, task: Task) -> list[str]:
    """Before the status, which cannot be set twice: who is killed in between does this again, with the same outcome."""
    decided = at.store.decisions(task.id).items
    facts = Facts(repository.commits_of(at.main, task), tuple((one.id, one.text) for one in decided))
    try:
        plan_edits.finish(at.store, task.id, facts)
    except TaskError as e:  # what is wrong with a plan keeps no task open
        return [f"what was done is not in its plan: {e.message}"]
    return []


def _stop(at: here.Here, task_id: str) -> str:
    from opencode_tasks.containers import follow
    from opencode_tasks.containers.engine import Engine

    try:
        follow.follow(at.store, Engine(), at.config, task_id, actor=at.actor)
    except NoEngineError as e:
        return f"its container was not stopped: {e.message}"
    return "its container is stopped"
