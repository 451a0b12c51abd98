"""Another branch was checked out in a session's directory: its task is another, or it has none."""

from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, World


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    return world.state(said) | {"memory": "" if found is None else memory.text(found[0], found[1])}
