"""`task-executions`: the commands that ran in a task, the newest first."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from opencode_tasks.commands import Result, Table, here, period
from opencode_tasks.errors import UsageError
from opencode_tasks.events import Event
from opencode_tasks.printable import printable
from opencode_tasks.values import replace, value

HELP = "show the commands that ran in a task, and how they ended"

_TAIL = 400
_KEPT = 4096


@value
class Execution:
    """`exit_code` None: it runs still, or nobody knows how it ended (`known` tells which)."""

    run: str
    command: list[str]
    cwd: str
    agent: str
    started_at: str
    exit_code: int | None = None
    duration_ms: int | None = None
    output_tail: str = ""
    known: bool = False


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument(
        "--failed", action="store_true", help="only those that ended with another code than 0, or badly"
    )
    parser.add_argument("--limit", type=int, default=50, help="at most so many (default 50)")
    parser.add_argument("--cursor", metavar="RUN", help="go on after this one: `next` of the answer before")
    parser.add_argument("--output", action="store_true", help="the end of each one's output, too")


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    at = here.ready()
    task = at.task(args.task)
    found = executions(at.store.history(task.id))[::-1]
    if args.failed:
        found = [e for e in found if e.known and e.exit_code != 0]
    if args.cursor:
        runs = [e.run for e in found]
        if args.cursor not in runs:
            raise UsageError(f"--cursor {args.cursor}: there is no such execution in this list")
        found = found[runs.index(args.cursor) + 1 :]
    page, rest = found[: args.limit], found[args.limit :]
    document = {"executions": [_document(e) for e in page], "next": page[-1].run if rest else None}
    if args.output:
        return Result(document, "\n\n".join(_told(e) for e in page) or "No command has run.")
    rows = [(e.started_at, _outcome(e), _took(e), e.agent, _line(e.command)) for e in page]
    return Result(document, table=Table(("started", "exit", "took", "who", "command"), rows, "No command has run."))


def executions(events: Iterable[Event]) -> list[Execution]:
    """Pairs of beginning and end, in the order of the beginnings."""
    found: dict[str, Execution] = {}
    for event in events:
        with suppress(KeyError, TypeError, ValueError):  # another program left something out
            _take_in(event, found)
    return list(found.values())


def _take_in(event: Event, found: dict[str, Execution]) -> None:
    if event.type == "command.started":
        data = event.data
        made = Execution(data["run"], list(data["argv"]), data["cwd"], event.actor, event.ts)
        found[made.run] = made
    elif event.type == "command.output" and (begun := found.get(event.data["run"])) is not None:
        # Of use when its end was never recorded.
        found[begun.run] = replace(begun, output_tail=(begun.output_tail + event.data["text"])[-_KEPT:])
    elif event.type == "command.finished" and (begun := found.get(event.data["run"])) is not None:
        data = event.data
        found[begun.run] = replace(
            begun,
            exit_code=data["exit_code"],
            duration_ms=data["duration_ms"],
            output_tail=data["output_tail"],
            known=True,
        )


def _document(e: Execution) -> dict[str, Any]:
    names = ("run", "command", "cwd", "exit_code", "started_at", "duration_ms", "agent", "output_tail")
    return {name: getattr(e, name) for name in names}


def _outcome(e: Execution) -> str:
    if not e.known:
        return "running?"
    return "unknown" if e.exit_code is None else str(e.exit_code)


def _took(e: Execution) -> str:
    return "" if e.duration_ms is None else period.told(e.duration_ms)


def _line(command: list[str]) -> str:
    import shlex

    text = " ".join(shlex.quote(word) for word in command)
    return printable(text)


def _told(e: Execution) -> str:
    tail = e.output_tail[-_TAIL:]
    cut = "…" if len(tail) < len(e.output_tail) else ""
    lines = "\n".join(f"    {line}" for line in (cut + tail).splitlines())
    head = f"{e.started_at}  {_line(e.command)}\n  exit {_outcome(e)}, {_took(e) or 'not ended'}, by {e.agent}"
    return f"{head}\n{lines}" if lines else head
