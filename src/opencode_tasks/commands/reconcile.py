"""`reconcile`: bring containers to where their tasks' status wants them."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, documents, here
from opencode_tasks.errors import TaskError

HELP = "bring containers into agreement with their tasks"

ACTOR = "reconcile"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="only this one (default: all that are open)")


def run(args: Namespace) -> Result:
    from opencode_tasks.containers import follow
    from opencode_tasks.containers.engine import Engine

    at = here.ready()
    tasks = [at.store.resolve(args.task)] if args.task else [t for t in at.store.all() if t.is_open or t.container.id]
    engine = None
    done, failed = [], []
    for task in tasks:
        try:
            engine = engine or Engine()
            done.append(follow.follow(at.store, engine, at.config, task.id, actor=ACTOR))
        except TaskError as e:
            # At checkout nobody sees our output: `task-status` tells.
            if e.message != at.store.get(task.id).container.error:
                failure = {"code": e.code, "message": e.message, "hint": e.hint}
                at.store.record(task.id, ("container.failed", failure), actor=ACTOR)
            if args.task:
                raise
            failed.append({"id": task.id, "code": e.code, "message": e.message, "hint": e.hint})
    live = documents.live_states(at.store, done)
    lines = [f"{t.id}: {t.status}, container {documents.container_state(t, live)}" for t in done]
    lines += [f"{f['id']}: {f['message']}\n  {f['hint']}" for f in failed]
    document = {"tasks": [documents.task_document(at.store, t, live) for t in done], "failed": failed}
    return Result(document, "\n".join(lines) or "No task has or needs a container.", 1 if failed else 0)
