"""`import-commits`: takes the commits that were made inside a task's container, also what only a person may let in."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, here, importing
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.incoming import KINDS, RefusedError

HELP = "take the commits made inside the task's container; a person may accept what was refused"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument(
        "--accept", action="append", choices=KINDS, default=[], help="let commits in that have such things (repeatable)"
    )
    parser.add_argument(
        "--rewrite",
        action="store_true",
        help="its commits replace those on the branch that they do not follow",
    )


def run(args: Namespace) -> Result:
    from opencode_tasks.containers import opening

    at = here.ready()
    task = at.task(args.task)
    if args.accept or args.rewrite:
        here.require_person("decides what comes out of a container")
    checkout = here.workspace_of(at, task)
    if checkout is None or task.status != "running":
        raise ConflictError(
            f"Task {task.id} is {task.status}: its branch is not checked out in {task.workspace.path}",
            hint=f"git checkout {task.branch}",
        )
    before = plumbing.commit_of(checkout, f"refs/heads/{task.branch}")
    with opening.session(at.store, at.config, task, actor=at.actor, use_tty=False) as session:
        try:
            notes = importing.run(at, task, checkout, session, accepted=args.accept, rewrite=args.rewrite, again=True)
        except RefusedError as e:
            raise TaskError(f"Not taken:\n  {e.message}", hint=importing.hint(task, e), code=e.code) from e
    after = plumbing.commit_of(checkout, f"refs/heads/{task.branch}")
    said = f"{task.branch} is at {str(after)[:9]}" + ("" if before != after else ", as before")
    document = {"branch": task.branch, "from": before, "to": after, "notes": notes}
    return Result(document, "\n".join([said, *notes]))
