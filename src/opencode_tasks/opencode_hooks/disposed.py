"""OpenCode ends, or has ended without a word: what its sessions hold is given back."""

from opencode_tasks.opencode_hooks.chat_message import note_seen
from opencode_tasks.opencode_hooks.world import Reply, Said, World, log_changed


def run(world: World, said: Said) -> Reply:
    at = world.here()
    if at is None:
        return {}
    to = "interrupted" if said.get("killed") else "ended"
    for session in world.sessions.values():
        if session.task_id in world.held and session.is_told:
            at.store.under = (session.task_id, world.held[session.task_id])
            log_changed(at, at.store.get(session.task_id), session, to)
            if not said.get("killed"):  # else what it was doing is news to it
                note_seen(at, at.store.get(session.task_id), session)
    at.store.under = None
    for task_id in list(world.held):
        world.detach(at, task_id, reason="OpenCode ended")
    world.sessions.clear()
    return {}
