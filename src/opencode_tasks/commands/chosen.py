"""The flags that choose limits for one task."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.task import Choice
from opencode_tasks.values import names_of


def add(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("limits of its container")
    group.add_argument("--limits", dest="set", metavar="SET", help="a set of templates/limits.yaml")
    group.add_argument("--memory", metavar="SIZE", help="such as 512m or 8g; at most memory_max of the set")
    group.add_argument("--cpus", type=float, metavar="N", help="cores, such as 1.5")
    group.add_argument("--pids", type=int, metavar="N", help="processes and threads")


def choice(args: Namespace) -> Choice:
    return Choice(**{name: getattr(args, name) for name in names_of(Choice)})
