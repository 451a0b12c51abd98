"""A tool failed, or was refused: OpenCode tells it with the part of the message only."""

from opencode_tasks.opencode_hooks import tool_after
from opencode_tasks.opencode_hooks.world import Reply, Said, World


def run(world: World, said: Said) -> Reply:
    return tool_after.run(world, said)
