"""A tool has done its work: what it changed is in the log."""

from opencode_tasks.opencode_hooks.tool_before import paths_of
from opencode_tasks.opencode_hooks.world import Reply, Said, World

_LONGEST = 300


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is not None:
        at, task, session = found
        data = {
            "session": session.id,
            "tool": str(said.get("tool") or ""),
            "paths": [str(path) for path in paths_of(said)],
            "error": str(said.get("error") or "")[:_LONGEST],
        }
        at.store.record(task.id, ("tool.used", data), actor=at.actor, has_happened=True)
    return world.state(said)
