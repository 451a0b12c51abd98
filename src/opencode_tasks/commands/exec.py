"""`exec -- COMMAND…`: in the task's container, in this very directory, as this very user."""

import argparse
from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, here
from opencode_tasks.commands.execution import execute
from opencode_tasks.errors import UsageError

HELP = "run a command in the task's container"

_LONGEST_S = 1e8


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--task", help="id, unique beginning of an id, or branch (default: the branch here)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end it then, and exit with 124")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")


def run(args: Namespace) -> Result:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("There is no command", hint="opencode-tasks exec -- COMMAND …")
    if args.timeout is not None and not 0 < args.timeout < _LONGEST_S:
        raise UsageError(f"--timeout {args.timeout:g} is no time to wait", hint="seconds, such as 600 or 0.5")
    at = here.ready(hot=True)
    return execute(at, at.task(args.task), command, as_json=args.json, timeout_s=args.timeout)
