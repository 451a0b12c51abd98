"""A session is about to be compacted: what must survive goes into the prompt for it."""

from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, World


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    return {} if found is None else {"context": [memory.text(found[0], found[1])]}
