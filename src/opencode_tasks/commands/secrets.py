"""`secrets`: what of the host the settings ask for, and a person's word that the containers may have it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opencode_tasks import references
from opencode_tasks.commands import Result, Table, here
from opencode_tasks.commands.here import Here
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.references import Reference
from opencode_tasks.store import approvals
from opencode_tasks.store.approvals import Approval
from opencode_tasks.store.log import now

HELP = "show, approve or revoke what containers get of the host's variables and files"


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|approve|revoke")
    actions.add_parser("list", help="what the settings ask for, and whether it may be had; never a value")
    approve = actions.add_parser("approve", help="containers may have these from now on")
    approve.add_argument("wanted", nargs="+", metavar="NAME=REFERENCE", help="as in the settings: TOKEN=env://TOKEN")
    revoke = actions.add_parser("revoke", help="they may not have them any more")
    revoke.add_argument("names", nargs="+", metavar="NAME")
    for action in (*actions.choices.values(),):
        action.add_argument("--json", action="store_true", default=False, help="print one JSON document")


def run(args: Namespace) -> Result:
    at = here.ready()
    if args.action == "list":
        return _list(at)
    here.require_person("decides what of the host is given to containers")
    return _approve(at, args.wanted) if args.action == "approve" else _revoke(at, args.names)


def _list(at: Here) -> Result:
    entries = [entry(at, reference) for reference in at.config.references]
    rows = [(e["name"], e["table"], e["source"], e["approved_at"] or "NOT APPROVED", e["problem"]) for e in entries]
    columns = ("name", "given as", "from", "approved", "problem")
    return Result({"secrets": entries}, table=Table(columns, rows, "The settings ask for nothing of the host."))


def entry(at: Here, reference: Reference) -> dict[str, Any]:
    from opencode_tasks.containers import given

    main, known = at.main.top, approvals.load(at.store.layout)
    word = next((a for a in known if given.is_approved(reference, main, [a])), None)
    try:
        problem = given.warning(reference, main)
    except TaskError as e:
        problem = e.message
    return {
        **vars(reference),
        "approved_at": word.at if word else None,
        "by": word.by if word else None,
        "problem": problem,
    }


def _approve(at: Here, wanted: Sequence[str]) -> Result:
    from opencode_tasks.containers import given

    main = at.main.top
    approved = [_approval(at, text, main) for text in wanted]
    approvals.approve(at.store.layout, approved)
    lines = [f"approved: {a.name} from {a.source}" + (f", which is {a.path}" if a.path else "") for a in approved]
    asked = {(r.name, r.source): r for r in at.config.references}
    for one in approved:
        reference = asked.get((one.name, one.source))
        if reference is None:
            lines.append(f"{one.name}={one.source} is not in the settings here")
        elif problem := entry(at, reference)["problem"]:
            lines.append(f"{one.name}: {problem}")
        elif not given.is_approved(reference, main, approved):
            lines.append(f"{one.name}: {one.source} leads elsewhere by now")
    return Result({"approved": [vars(a) for a in approved]}, "\n".join(lines))


def _approval(at: Here, text: str, main: Path) -> Approval:
    """For any table: what matters is which value the container gets."""
    from opencode_tasks.containers import given

    name, is_there, source = text.partition("=")
    reference = Reference("secrets", name, source)
    wrong = references.fault("secrets", name, source)
    if not is_there or wrong is not None:
        what = wrong[0] if wrong and is_there else f"{text!r} is not NAME=REFERENCE"
        raise UsageError(what, hint="as in the settings: opencode-tasks secrets approve TOKEN=env://TOKEN")
    return Approval(name, source, given.place(reference, main), at.actor, now())


def _revoke(at: Here, names: Sequence[str]) -> Result:
    gone = approvals.revoke(at.store.layout, names)
    unknown = sorted(set(names) - {one.name for one in gone})
    if unknown and not gone:
        raise TaskError(f"Nothing is approved as {', '.join(unknown)}", hint="opencode-tasks secrets list")
    lines = [f"revoked: {one.name} from {one.source}" for one in gone]
    lines.append("A container that has a value keeps it: change the value where it counts.")
    return Result({"revoked": [vars(one) for one in gone]}, "\n".join(lines))
