"""OpenCode asks a person whether a tool may do something."""

from opencode_tasks.opencode_hooks.world import Reply, Said, World

_MOST, _LONGEST = 20, 300


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is not None:
        at, task, session = found
        patterns = said.get("patterns")
        data = {
            "session": session.id,
            "permission": str(said.get("permission") or "")[:_LONGEST],
            "patterns": [str(p)[:_LONGEST] for p in patterns[:_MOST]] if isinstance(patterns, list) else [],
        }
        at.store.record(task.id, ("permission.asked", data), actor=at.actor, has_happened=True)
    return {}
