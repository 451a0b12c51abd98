"""`allow`: which hosts tasks may reach, by a person's decision; without a host, what is and what was refused."""

from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.commands import Result, here
from opencode_tasks.commands.here import Here
from opencode_tasks.containers import network
from opencode_tasks.containers.egress.refusals import Refusal
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.store import allowed
from opencode_tasks.task import Task

HELP = "let tasks reach a host; without one, show what is allowed and what was refused"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", help="such as pypi.org, *.example.com, github.com:22; or a preset")
    parser.add_argument("--task", help="only this one: id, unique beginning of an id, or branch (default: all tasks)")
    parser.add_argument("--remove", action="store_true", help="take back what was allowed")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task) if args.task else None
    if args.remove and not args.host:
        raise UsageError("--remove needs a host", hint="opencode-tasks allow tells what is allowed")
    notes: list[str] = []
    if args.host:
        here.require_person("decides which hosts may be reached")
        _decide(at, task, args.host, removed=args.remove)
        notes = _take_effect(at, [at.store.get(task.id)] if task else at.store.all())
    listed, refused = _shown(at, at.store.get(task.id) if task else None)
    lines = [f"{one.host}  ({one.said + ', ' if one.said != one.host else ''}{one.source})" for one in listed]
    text = ["allowed", *(f"  {line}" for line in lines or ["nothing: no task reaches any host"])]
    for task_id, found in refused.items():
        text += [f"refused to {task_id}", *(f"  {line}" for line in network.refusal_lines(found, task_id))]
    document: dict[str, Any] = {
        "allowed": [vars(one) for one in listed],
        "refused": [{"task": task_id, **one._asdict()} for task_id, found in refused.items() for one in found],
    }
    return Result(document, "\n".join([*text, *notes]))


def _decide(at: Here, task: Task | None, words: list[str], *, removed: bool) -> None:
    standing = task.allowed if task else allowed.hosts(at.store.layout)
    # What was allowed can be taken back, also a preset that there is not any more.
    words = list(dict.fromkeys(word if word in standing else network.checked(word) for word in words))
    if removed:
        missing = [word for word in words if word not in standing]
        if missing:
            raise _not_here(at, task, missing[0])
    else:
        words = [word for word in words if word not in standing]
    if not words:
        return
    if task is None:
        allowed.record(at.store.layout, words, removed=removed, actor=at.actor)
    elif removed:
        at.store.record(task.id, ("network.disallowed", {"hosts": words}), actor=at.actor)
    else:
        at.store.record(task.id, ("network.allowed", {"hosts": words}), actor=at.actor)


def _not_here(at: Here, task: Task | None, word: str) -> TaskError:
    where = f"task {task.id}" if task else "this clone"
    hint = "opencode-tasks allow tells what is allowed, and from where"
    if word in at.config.network.allow:
        hint = "it stands in network.allow of .opencode/tasks.toml: take it out there"
    elif task is not None and word in allowed.hosts(at.store.layout):
        hint = f"it is allowed for all tasks: opencode-tasks allow --remove {word}"
    return TaskError(f"{word} was not allowed for {where}", hint=hint, code="not_allowed")


def _take_effect(at: Here, tasks: list[Task]) -> list[str]:
    """Their lists are written anew, and a proxy listens for those whose containers are there."""
    using = [task for task in tasks if task.is_open and task.container.id is not None]
    if not using:
        return []
    from opencode_tasks.containers import sidecar
    from opencode_tasks.containers.engine import Engine

    for task in using:
        network.write_policy(at.store, at.config, task.id)
    try:
        engine = Engine(timeout_s=10)
        for task in using:
            sidecar.serve(at.store, engine, at.config, task.id)
    except TaskError as e:
        return [f"recorded; it takes effect with the next command in the container: {e.message}", f"  {e.hint}"]
    return []


def _shown(at: Here, task: Task | None) -> tuple[list[network.Allowed], dict[str, list[Refusal]]]:
    if task is not None:
        listed = network.of_task(at.store, network.settings_of(at.store, task, at.config), task)
        return listed, {task.id: network.refused(at.store, task.id)}
    tasks = [t for t in at.store.all() if t.is_open]
    own = [one for t in tasks for one in network.of_task(at.store, at.config, t) if one.source == t.id]
    refused = {t.id: network.refused(at.store, t.id) for t in tasks}
    return [*network.for_all(at.store, at.config), *own], {name: found for name, found in refused.items() if found}
