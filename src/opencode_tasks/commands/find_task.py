"""`find-task`: tasks by the words in their title, branch, plan, decisions and commands, best first."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, Table, documents, here, list_tasks
from opencode_tasks.errors import UsageError

HELP = "find tasks by words in title, plan, decisions and commands"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", help="all of them have to be there; the last may be a beginning")
    list_tasks.add_filters(parser)
    parser.add_argument("--limit", type=int, default=20, help="at most so many (default 20)")


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    at = here.ready()
    found = at.store.index.find(" ".join(args.words), limit=args.limit, query=list_tasks.query(at, args))
    live = documents.live_states(at.store, [m.task for m in found])
    tasks = [
        documents.task_document(at.store, m.task, live) | {"match": {"part": m.part, "line": m.line}} for m in found
    ]
    rows = [(m.task.id, m.task.status, m.part, m.line) for m in found]
    table = Table(("task", "status", "found in", "line"), rows, "No task has these words.")
    return Result({"tasks": tasks, "next": None}, table=table)
