"""A session was compacted: its memory of the task is told anew with the next request."""

from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, World, log_changed


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is None:
        return world.state(said)
    at, task, session = found
    log_changed(at, task, session, "compacted")
    return world.state(said) | {"memory": memory.text(at, task)}
