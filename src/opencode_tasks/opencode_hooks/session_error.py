"""A session failed, or was interrupted: whoever resumes is told."""

from opencode_tasks.opencode_hooks.world import Reply, Said, World, log_changed

_ABORTED = "MessageAbortedError"
_LONGEST = 300


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    if found is not None:
        at, task, session = found
        name, message = str(said.get("name") or ""), str(said.get("message") or "")[:_LONGEST]
        if name == _ABORTED:
            log_changed(at, task, session, "interrupted")
        else:
            log_changed(at, task, session, "failed", f"{name}: {message}" if message else name)
    return world.state(said)
