"""`shell`: an interactive shell in the task's container."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, here
from opencode_tasks.commands.execution import execute

HELP = "open a shell in the task's container"

# bash where the image has it.
_SHELL = ("/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi")


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    return execute(at, at.task(args.task), _SHELL, as_json=args.json)
