"""`diff`: what lies between two checkpoints, or between one and the files as they are now."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.checkpoints import differences, snapshot
from opencode_tasks.commands import Result, here
from opencode_tasks.commands.checkpoint import require_workspace
from opencode_tasks.containers.freeze import frozen

HELP = "show what changed between checkpoints, or since one"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("old", nargs="?", default="latest", help="id, label, or latest (default)")
    parser.add_argument("new", nargs="?", help="id, label, or latest (default: the files as they are now)")
    parser.add_argument("--task", help="id, unique beginning of an id, or branch (default: the branch here)")
    parser.add_argument("--stat", action="store_true", help="only which files, and how much of them")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    old = snapshot.named(at.store, task, args.old)
    new = snapshot.named(at.store, task, args.new) if args.new else None
    if new is not None:
        found = differences.between(at.store, task, at.checkout, old, new)
    else:
        require_workspace(at, task)
        with frozen(at.store, task):
            found = differences.since(at.store, task, old, ignored=at.config.checkpoint.ignored)
    text = found.stat if args.stat else found.patch
    document = {"old": old.id, "new": None if new is None else new.id, "files": [vars(f) for f in found.files]}
    return Result(document if args.stat else document | {"patch": found.patch}, text or "Nothing differs.")
