"""`task-decisions`: what was decided in a task, and why; `--add` records one."""

from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.commands import Result, here
from opencode_tasks.decisions import Decision
from opencode_tasks.errors import UsageError

HELP = "show what was decided in a task, or record a decision"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--add", metavar="TEXT", help="record this decision")
    parser.add_argument("--because", default="", metavar="TEXT", help="the reason")
    parser.add_argument(
        "--instead-of", action="append", default=[], metavar="TEXT", help="what was not chosen; repeatable"
    )
    here.add_expected_rev(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    if args.add is None:
        if args.because or args.instead_of or args.expected_rev is not None:
            raise UsageError("--because, --instead-of and --expected-rev go with a decision: which?", hint="--add TEXT")
        found = at.store.decisions(task.id).items
        text = "\n\n".join(_told(d) for d in found) or "Nothing was decided yet."
        return Result({"decisions": [document(d) for d in found]}, text)
    if not args.add.strip():
        raise UsageError("The decision is empty", hint='--add "Parse by hand" --because "no dependency"')
    made = at.store.decide(
        task.id,
        args.add,
        because=args.because,
        alternatives=args.instead_of,
        actor=at.actor,
        expected_rev=args.expected_rev,
    )
    return Result({"decisions": [document(made)]}, f"{made.id} recorded in {at.store.layout.decisions(task.id)}")


def document(decision: Decision) -> dict[str, Any]:
    """`text` is the whole block for one that was written by hand."""
    return {
        "id": decision.id,
        "ts": decision.ts,
        "actor": decision.actor,
        "text": decision.raw if decision.raw is not None else decision.text,
        "because": decision.because,
        "alternatives": list(decision.alternatives),
    }


def _told(decision: Decision) -> str:
    lines = [f"{decision.id}  {decision.ts[:16].replace('T', ' ')}  {decision.actor}"]
    if decision.raw is not None:
        return "\n".join([*lines, *(f"  {line}" for line in decision.raw.rstrip().splitlines())])
    lines += [f"  {line}" for line in decision.text.splitlines()]
    if decision.because:
        lines.append(f"  because: {decision.because}")
    lines += [f"  instead of: {other}" for other in decision.alternatives]
    return "\n".join(lines)
