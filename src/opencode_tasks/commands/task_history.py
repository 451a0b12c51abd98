"""`task-history`: the events of a task, oldest first."""

import io
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from opencode_tasks.commands import Result, Table, here
from opencode_tasks.errors import UsageError
from opencode_tasks.events import Data, Event
from opencode_tasks.printable import printable

HELP = "show what happened in a task"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--limit", type=int, default=1000, help="at most so many (default 1000)")
    parser.add_argument("--after", type=int, default=0, metavar="REV", help="only events after this revision")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a line, for other programs")


def run(args: Namespace) -> Result:
    if args.limit < 1:
        raise UsageError("--limit must be 1 or more")
    if args.after < 0:
        raise UsageError("--after must be 0 or more")
    at = here.ready()
    task = at.task(args.task)
    events = list(islice(at.store.history(task.id), min(args.after, sys.maxsize), None))
    page, rest = events[: args.limit], events[args.limit :]
    document = {"events": [_document(e) for e in page], "next": args.after + len(page) if rest else None}
    if args.jsonl:
        return Result(document, _lines(page))
    rows = [(e.ts, e.actor, e.type, _summary(e)) for e in page]
    return Result(document, table=Table(("time", "who", "event", "what"), rows, "No events."))


def _lines(page: list[Event]) -> str:
    import jsonlines

    # All ASCII: what is not printable is escaped on its way out, and not as JSON escapes it.
    with io.StringIO() as lines, jsonlines.Writer(lines, dumps=json.dumps) as out:
        out.write_all(_document(e) for e in page)
        return lines.getvalue().removesuffix("\n")


def _document(event: Event) -> dict[str, Any]:
    return {key: getattr(event, key) for key in ("w", "seq", "ts", "actor", "type", "data")}


def _summary(event: Event) -> str:
    # One event is one line, whatever bytes a command line holds.
    data = event.data
    try:
        text = _TOLD.get(event.type, str)(data)
    except (KeyError, TypeError, ValueError, AttributeError):  # another program left something out
        text = str(data)
    return printable(text)


def _container(data: Data) -> str:
    return str(data["state"]) + (f" {str(data['id'])[:12]}" if data["id"] else "")


def _created(data: Data) -> str:
    container = ", with its container's own files" if data.get("layer") else ""
    return f"{data['id']} {data['label'] or data['kind']}, {data['changed']} changed{container}"


def _dropped(data: Data) -> str:
    return ", ".join([*data["ids"], *(f"the container's files of {one}" for one in data.get("layers", ()))])


def _restored(data: Data) -> str:
    counts = f"{data['added']} added, {data['changed']} changed, {data['deleted']} deleted"
    return f"to {data['to']}: {counts}; undo {data['undo']}"


def _taken(data: Data) -> str:
    over = f", taking over from {', '.join(data['took_over'])}" if data["took_over"] else ""
    return f"{data['agent']} ({data['mode']}, epoch {data['epoch']}){over}"


# What a person wants to know of an event, by its type. Of others: all there is.
_TOLD: Mapping[str, Callable[[Data], str]] = {
    "task.created": lambda d: f"{d['title']} on {d['branch']}",
    "task.updated": lambda d: "; ".join(f"{name}: {before} → {to}" for name, (before, to) in d["changes"].items()),
    "status.changed": lambda d: f"{d['from']} → {d['to']} ({d['reason']})",
    "container.changed": _container,
    "container.failed": lambda d: str(d["message"]),
    "task.undeleted": lambda d: d["reason"],
    "task.restored": lambda d: f"{d['branch']}, {d['status'] or 'closed as before'}",
    "commit.recorded": lambda d: f"{d['sha'][:9]} {d['subject']}",
    "commit.rewritten": lambda d: f"{d['by']}: {len(d['rewritten'])} commits, now {d['head'][:9]}",
    "session.changed": lambda d: f"{d['session']} {d['to']} {d['detail']}".rstrip(),
    "tool.used": lambda d: f"{d['tool']} {' '.join(d['paths'])}" + (f": {d['error']}" if d["error"] else ""),
    "permission.asked": lambda d: f"{d['permission']} {' '.join(d['patterns'])}",
    "commit.refused": lambda d: "; ".join(d["reasons"]),
    "branch.merged": lambda d: f"{d['branch']} into {d['into']}, {d['head'][:9]}",
    "branch.deleted": lambda d: f"{d['branch']}, which was at {d['tip'][:9]}",
    "plan.updated": lambda d: f"{'step' if len(d['steps']) == 1 else 'steps'} {', '.join(map(str, d['steps']))} done",
    "command.started": lambda d: " ".join(d["argv"]),
    "command.finished": lambda d: f"exit {d['exit_code']} after {d['duration_ms']} ms",
    "checkpoint.created": _created,
    "checkpoint.restored": _restored,
    "checkpoint.pinned": lambda d: f"{d['id']}: {', '.join(d['risk'])}",
    "checkpoint.dropped": _dropped,
    "decision.added": lambda d: f"{d['id']} {d['text']}",
    "lease.taken": _taken,
    "lease.released": lambda d: f"{d['agent']} (epoch {d['epoch']})",
    "log.repaired": lambda d: f"lost: {d['lost'] or 'nothing'}; kept: {', '.join(d['kept'])}",
}
