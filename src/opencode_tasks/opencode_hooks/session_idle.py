"""The agent has done what it was told: how far its session knows the task is noted."""

from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.chat_message import note_seen
from opencode_tasks.opencode_hooks.world import Reply, Said, World


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is None:
        return world.state(said)
    at, task, session = found
    note_seen(at, at.store.get(task.id), session)
    return world.state(said) | {"memory": memory.text(at, task)}
