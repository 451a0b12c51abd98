"""What an agent wrote: lines that begin with `Decision:` are decisions."""

import re

from opencode_tasks.errors import TaskError
from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, World

# Also as an item of a list, or bold.
_LINE = re.compile(r"^[ \t]*(?:[-*] )?(?:\*\*)?Decision:(?:\*\*)?[ \t]*(\S.*)$", re.MULTILINE)
_MOST, _LONGEST = 10, 500


def decisions(written: str) -> list[tuple[str, str]]:
    """What was decided, and the reason if one is told."""
    found = []
    for match in list(_LINE.finditer(written))[:_MOST]:
        what, _, why = match[1].strip()[:_LONGEST].partition(" because ")
        found.append((what.rstrip(" ,;"), why.strip()))
    return found


def run(world: World, said: Said) -> Reply:
    made = decisions(str(said.get("text") or ""))
    found = world.working(said) if made else None
    if found is None:
        return {}
    at, task, session = found
    known = {decision.text for decision in at.store.decisions(task.id).items} if task.decisions.count else set()
    for what, why in made:
        if what and what not in known | session.decided:
            try:
                at.store.decide(task.id, what, actor=at.actor, because=why)
            except TaskError as e:
                return {"log": e.message}
            session.decided.add(what)
    return world.state(said) | {"memory": memory.text(at, at.store.get(task.id))}
