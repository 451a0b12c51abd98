"""A session begins. It takes no lease before somebody says something in it."""

from opencode_tasks.opencode_hooks.world import Reply, Said, World


def run(world: World, said: Said) -> Reply:
    world.session(said)
    return world.state(said)
