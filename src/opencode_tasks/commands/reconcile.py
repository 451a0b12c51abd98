"""`reconcile`: bring engine, store and git into agreement after whatever happened. Deletes nothing unless asked."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_tasks.commands import Result, documents, here, importing, merging, trash
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.errors import NoTaskError, TaskError, UsageError
from opencode_tasks.task import Task
from opencode_tasks.values import replace

if TYPE_CHECKING:
    from opencode_tasks.containers.agreement import Doer
    from opencode_tasks.containers.reconciling import Action
    from opencode_tasks.git.landing import Landing

HELP = "bring containers, memory and git into agreement; deletes only with --apply"

ACTOR = "reconcile"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="only the container of this one (default: everything)")
    parser.add_argument("--apply", action="store_true", help="also delete what the plan says is to be removed")
    parser.add_argument("--force", action="store_true", help="also containers in which something runs")
    parser.add_argument("--elsewhere", action="store_true", help="also those of clones that are gone from this machine")
    parser.add_argument("--quick", action="store_true", help="only what is cheap: pause and stop, start nothing")


def run(args: Namespace) -> Result:
    if args.task and (args.apply or args.quick or args.elsewhere):
        raise UsageError("--apply, --elsewhere and --quick are for everything, not for one task")
    at = here.ready()
    if args.task:
        return _one(at, args.task)
    return _quickly(at) if args.quick else _everything(at, args)


def _one(at: Here, named: str) -> Result:
    from opencode_tasks.containers import agreement, follow
    from opencode_tasks.containers.engine import Engine

    task = at.store.resolve(named)
    try:
        engine = Engine()
        task = follow.follow(at.store, engine, at.config, task.id, actor=ACTOR)
    except TaskError as e:
        _note_failure(at, task.id, e)
        raise
    if agreement.is_due(at.store):
        agreement.quick(at.store, engine, at.config, actor=ACTOR)
    return _result(at, [], [task], [])


def _quickly(at: Here) -> Result:
    from opencode_tasks.containers import agreement
    from opencode_tasks.containers.engine import Engine

    return _result(at, agreement.quick(at.store, Engine(), at.config, actor=ACTOR), [], [])


def _everything(at: Here, args: Namespace) -> Result:
    from opencode_tasks.containers import reconciling, survey, trial
    from opencode_tasks.containers.agreement import Doer
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.git import agreement

    # First: without an engine, too.
    importing.settle(at)
    restored, failed = _half_restored(at)
    settled, swept = merging.settle(at, actor=ACTOR), trash.sweep(at)
    trial.sweep(at.store)
    moved = agreement.agree(at.store, at.checkout, at.config, actor=ACTOR)
    engine = Engine()
    facts = survey.everything(at.store, engine, at.config)
    doer = Doer(at.store, engine, at.config, facts, ACTOR, force=args.force)
    planned = [reconciling.Action("task", t.id, "", "record", why, t.id, done=True) for t, why in moved]
    planned += [reconciling.Action("task", m.task, "", "record", _merge(m, ok), m.task, done=True) for m, ok in settled]
    planned += [reconciling.Action("task", one.task, "", "record", _SWEPT, one.task, done=True) for one in swept]
    planned += reconciling.plan(facts, force=args.force, elsewhere=args.elsewhere)
    planned += [reconciling.Action("task", t, "", "record", _restore(to), t, done=True) for t, to in restored]
    done = []
    for action in [*planned, *_unseen(doer, planned)]:
        try:
            done.append(action if action.done or (action.deletes and not args.apply) else doer.do(action))
        except TaskError as e:
            done.append(action)
            failed.append(_failure(action.task or action.name, e))
            if action.task is not None and action.task in facts.tasks:
                _note_failure(at, action.task, e)
    done += _worktrees(at, apply=args.apply)
    tasks = [t for t in at.store.all() if t.is_open or t.container.id]
    return _result(at, done, tasks, failed)


_SWEPT = "what was cleaned up cannot be brought back any more (cleanup.grace)"


def _merge(landing: "Landing", came_through: bool) -> str:
    what = "finished" if came_through else "taken back"
    return f"an interrupted merge of {landing.branch} into {landing.into} was {what}"


def _restore(went_to: str) -> str:
    return f"an interrupted restore of {went_to} was finished"


def _half_restored(at: Here) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    """What was finished, each task with the checkpoint that it went to; and what could not be."""
    from opencode_tasks.checkpoints import journal, restore
    from opencode_tasks.containers.freeze import frozen

    done, failed = [], []
    for task_id in journal.begun(at.store):
        try:
            task = at.store.get(task_id)
            if workspace_of(at, task) is not None:
                with frozen(at.store, task):
                    went_to = restore.settle(at.store, task, actor=ACTOR, ignored=at.config.checkpoint.ignored)
                done += [(task_id, went_to)] if went_to else []
        except NoTaskError:
            continue
        except TaskError as e:
            failed.append(_failure(task_id, e))
    return done, failed


def _failure(name: str, e: TaskError) -> dict[str, str]:
    return {"id": name, "code": e.code, "message": e.message, "hint": e.hint}


def _unseen(doer: "Doer", planned: Sequence["Action"]) -> Iterator["Action"]:
    """Running containers that look right in a list, and may be made of what has changed since."""
    from opencode_tasks.containers import reconciling
    from opencode_tasks.containers.follow import spec_of
    from opencode_tasks.containers.spec import container_name

    spoken_of = {a.task for a in planned if a.what == "container"}
    for task in doer.facts.tasks.values():
        if task.status != "running" or task.id in spoken_of or task.container.state != "running":
            continue
        with suppress(TaskError):  # whoever uses it is told
            found = doer.engine.find(container_name(task.id))
            if found and doer.engine.is_outdated(found, spec_of(doer.store, doer.engine, doer.config, task)):
                why = "what it is made of has changed: it is made anew, unless a command runs in it"
                yield reconciling.Action("container", found.name, found.id, "start", why, task.id)


def _worktrees(at: Here, *, apply: bool) -> Iterator["Action"]:
    from opencode_tasks.containers.reconciling import Action
    from opencode_tasks.git import agreement, repository
    from opencode_tasks.store import link

    for left in agreement.leftovers(at.store, at.checkout, at.config):
        action = Action("worktree", left.task, str(left.path), "remove", "it has no task; its branch stays", left.task)
        if left.holds:
            yield replace(action, action="leave", why=f"it has no task, and holds {left.holds}")
            continue
        if apply:
            link.remove(left.path, at.store.layout)
            repository.remove_worktree(at.main, left.path)
        yield replace(action, done=apply)


def _note_failure(at: Here, task_id: str, e: TaskError) -> None:
    """At checkout nobody sees our output: `task-status` tells."""
    if e.message != at.store.get(task_id).container.error:
        failure = {"code": e.code, "message": e.message, "hint": e.hint}
        at.store.record(task_id, ("container.failed", failure), actor=ACTOR)


def _result(at: Here, done: Sequence["Action"], tasks: Sequence[Task], failed: list[dict[str, str]]) -> Result:
    live = documents.live_states(at.store, list(tasks))
    left = [a for a in done if a.deletes and not a.done]
    lines = [_line(a) for a in done]
    lines += [f"{t.id}: {t.status}, container {documents.container_state(t, live)}" for t in tasks]
    lines += [f"{f['id']}: {f['message']}\n  {f['hint']}" for f in failed]
    half_done = [entry.task for entry in trash.unfinished(at)]
    lines += [
        f"{i}: its cleanup was interrupted; to finish it: opencode-tasks cleanup-task {i}, or --undo" for i in half_done
    ]
    if left:
        lines.append(f"{len(left)} to be removed; that is done by: opencode-tasks reconcile --apply")
    document = {
        "plan": [vars(a) for a in done],
        "tasks": [documents.task_document(at.store, t, live) for t in tasks],
        "failed": failed,
        "unfinished": half_done,
    }
    return Result(document, "\n".join(lines) or "Everything agrees.", 1 if failed else 0)


def _line(action: "Action") -> str:
    said = action.action if action.done or action.action == "leave" else f"would {action.action}"
    return f"{said} {action.what} {action.name}: {action.why}"
