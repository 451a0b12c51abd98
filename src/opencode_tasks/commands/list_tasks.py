"""`list-tasks`: the tasks of this repository, newest first."""

import sys
from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, Table, documents, here, period
from opencode_tasks.errors import UsageError
from opencode_tasks.git import gone
from opencode_tasks.store.index import Query
from opencode_tasks.task import STATUSES

HELP = "list the tasks of this repository"


def configure(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--recent", action="store_true", help="the last changed first, not the newest")
    parser.add_argument("--deleted", action="store_true", help="those that were deleted instead")
    parser.add_argument("--limit", type=int, default=50, help="at most so many (default 50)")
    parser.add_argument("--cursor", help="go on after this task: `next` of the answer before")


def add_filters(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--status", action="append", choices=STATUSES, help="only those in this status; may be repeated"
    )
    parser.add_argument("--owner", help="only those this person made")
    parser.add_argument("--branch", help="only those of this branch, past ones too")
    parser.add_argument("--parent", metavar="TASK", help="only the children of this task")
    parser.add_argument("--newer-than", metavar="AGE", help="made within this time: 90m, 12h, 7d, 4w")
    parser.add_argument("--older-than", metavar="AGE", help="made before this time")


def query(at: here.Here, args: Namespace, *, recent: bool = False, deleted: bool = False) -> Query:
    return Query(
        status=tuple(args.status or ()),
        owner=args.owner,
        branch=args.branch,
        parent=at.task(args.parent).id if args.parent else None,
        created_after=period.ago(args.newer_than),
        created_before=period.ago(args.older_than),
        recent=recent,
        deleted=deleted,
    )


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    at = here.ready()
    wanted = query(at, args, recent=args.recent, deleted=args.deleted)
    (page, following), damaged = at.store.index.page_and_damaged(wanted, limit=args.limit, after=args.cursor)
    page = [at.settled(t) if t.status == "running" and gone.is_gone(t) else t for t in page]
    live = documents.live_states(at.store, page)
    for task_id, what in damaged.items():
        sys.stderr.write(f"opencode-tasks: task {task_id} cannot be read: {what}; opencode-tasks doctor\n")
    rows = [(t.id, t.status, documents.container_state(t, live), t.branch, t.title) for t in page]
    document = None
    if args.json:  # fifty plans are read for it
        tasks = [documents.task_document(at.store, t, live) for t in page]
        document = {"tasks": tasks, "next": following, "damaged": damaged}
    return Result(document, table=Table(("task", "status", "container", "branch", "title"), rows, _empty(args)))


def _empty(args: Namespace) -> str:
    filters = (args.status, args.owner, args.branch, args.parent, args.newer_than, args.older_than, args.deleted)
    if any(filters) or args.cursor:
        return "No task is like that."
    return "No tasks yet. Start one: opencode-tasks create-task TITLE"
