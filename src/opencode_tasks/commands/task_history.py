"""`task-history`: the events of a task, oldest first."""

import io
from argparse import ArgumentParser, Namespace
from itertools import islice
from typing import Any

from opencode_tasks.commands import Result, Table, here
from opencode_tasks.errors import UsageError
from opencode_tasks.events import Data, Event

HELP = "show what happened in a task"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--limit", type=int, default=1000, help="at most so many (default 1000)")
    parser.add_argument("--after", type=int, default=0, metavar="REV", help="only events after this revision")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a line, for other programs")


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    at = here.ready()
    task = at.task(args.task)
    events = list(islice(at.store.history(task.id), max(0, args.after), None))
    page, rest = events[: args.limit], events[args.limit :]
    if args.jsonl:
        return Result(text=_lines(page))
    rows = [(e.ts, e.actor, e.type, _summary(e)) for e in page]
    document = {"events": [_document(e) for e in page], "next": args.after + len(page) if rest else None}
    return Result(document, table=Table(("time", "who", "event", "what"), rows, "No events."))


def _lines(page: list[Event]) -> str:
    import jsonlines

    with io.StringIO() as lines, jsonlines.Writer(lines) as out:
        out.write_all(_document(e) for e in page)
        return lines.getvalue().removesuffix("\n")


def _document(event: Event) -> dict[str, Any]:
    return {key: getattr(event, key) for key in ("w", "seq", "ts", "actor", "type", "data")}


def _summary(event: Event) -> str:
    # One event is one line, whatever bytes a command line holds.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in _told(event.type, event.data))


def _told(type_: str, data: Data) -> str:
    text = str(dict(data))
    match type_:
        case "task.created":
            text = f"{data['title']} on {data['branch']}"
        case "status.changed":
            text = f"{data['from']} → {data['to']} ({data['reason']})"
        case "container.changed":
            text = data["state"] + (f" {str(data['id'])[:12]}" if data["id"] else "")
        case "container.failed":
            text = data["message"]
        case "commit.recorded":
            text = f"{data['sha'][:9]} {data['subject']}"
        case "command.started":
            text = " ".join(data["argv"])
        case "command.finished":
            text = f"exit {data['exit_code']} after {data['duration_ms']} ms"
        case "checkpoint.created":
            text = f"{data['id']} {data['label'] or data['kind']}, {data['changed']} changed"
        case "checkpoint.restored":
            counts = f"{data['added']} added, {data['changed']} changed, {data['deleted']} deleted"
            text = f"to {data['to']}: {counts}; undo {data['undo']}"
        case "task.updated":
            text = "; ".join(f"{name}: {before} → {to}" for name, (before, to) in data["changes"].items())
        case "decision.added":
            text = f"{data['id']} {data['text']}"
        case "lease.taken":
            over = f", taking over from {', '.join(data['took_over'])}" if data["took_over"] else ""
            text = f"{data['agent']} ({data['mode']}, epoch {data['epoch']}){over}"
        case "lease.released":
            text = f"{data['agent']} (epoch {data['epoch']})"
        case "log.repaired":
            text = f"lost: {data['lost'] or 'nothing'}; kept: {', '.join(data['kept'])}"
    return text
