"""Somebody says something in a session: from here on it works on the task, and its agent is told of it."""

import json
from pathlib import Path

from opencode_tasks.commands.here import Here
from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, Session, World, log_changed
from opencode_tasks.store import files
from opencode_tasks.task import Task

_MOST = 200


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is None:
        return world.state(said) | {"memory": _refusal(world.session(said))}
    at, task, session = found
    since = None
    if not session.is_told:
        known = _known(at).get(session.id)
        since = known if known is not None and known < task.rev else None
        log_changed(at, task, session, "started" if known is None else "resumed")
        session.is_told = True
        if since is None:
            note_seen(at, at.store.get(task.id), session)
    return world.state(said) | {"memory": memory.text(at, task, since_rev=since)}


def _refusal(session: Session) -> str:
    return f"<task>\n{session.refused}. Your shell commands and edits are refused until then.\n</task>" * bool(
        session.refused
    )


def note_seen(at: Here, task: Task, session: Session) -> None:
    """How much of the task's history the session knows, for the day it comes again."""
    known = _known(at)
    known.pop(session.id, None)
    known[session.id] = task.rev
    for old in list(known)[:-_MOST]:
        del known[old]
    files.replace(_path(at), json.dumps(known).encode())


def _known(at: Here) -> dict[str, int]:
    try:
        found = json.loads(_path(at).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {}


def _path(at: Here) -> Path:
    return at.store.layout.sessions
