"""`list-tasks`: every task of this repository, newest first."""

import sys
from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, Table, documents, here
from opencode_tasks.errors import UsageError
from opencode_tasks.task import STATUSES

HELP = "list the tasks of this repository"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--status", choices=STATUSES, help="only those in this status")
    parser.add_argument("--limit", type=int, default=50, help="at most so many (default 50)")
    parser.add_argument("--cursor", help="go on after this task: `next` of the answer before")


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    at = here.ready()
    found, damaged = at.store.survey()
    tasks = [t for t in found if args.status in (None, t.status)]
    if args.cursor:
        ids = [t.id for t in tasks]
        if args.cursor not in ids:
            raise UsageError(f"--cursor {args.cursor}: no such task in this list")
        tasks = tasks[ids.index(args.cursor) + 1 :]
    page, rest = tasks[: args.limit], tasks[args.limit :]
    live = documents.live_states(at.store, page)
    for task_id, what in damaged.items():
        sys.stderr.write(f"opencode-tasks: task {task_id} cannot be read: {what}; opencode-tasks doctor\n")
    rows = [(t.id, t.status, documents.container_state(t, live), t.branch, t.title) for t in page]
    document = {
        "tasks": [documents.task_document(at.store, t, live) for t in page],
        "next": page[-1].id if rest else None,
        "damaged": damaged,
    }
    empty = "No tasks yet. Start one: opencode-tasks create-task TITLE"
    return Result(document, table=Table(("task", "status", "container", "branch", "title"), rows, empty))
