"""A session is thrown away: the task stays, and remembers that."""

from opencode_tasks.opencode_hooks.world import Reply, Said, World, log_changed


def run(world: World, said: Said) -> Reply:
    session = world.session(said)
    at = world.here()
    if at is not None and session.task_id:
        log_changed(at, at.store.get(session.task_id), session, "deleted")
    world.sessions.pop(session.id, None)
    if at is not None and session.task_id and all(s.task_id != session.task_id for s in world.sessions.values()):
        world.detach(at, session.task_id, reason="its session was deleted")
    return {}
