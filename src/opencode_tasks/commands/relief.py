"""What to do when memory or the disk of a task comes to an end: keep its files, then more, or ask, or stop.

The supervisor holds everything still meanwhile. Of several commands that are told, one decides.
"""

from contextlib import suppress

from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers import limits, sizes
from opencode_tasks.containers.session import Decision, Held, Session
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files
from opencode_tasks.store.locks import LockTimeout, locked
from opencode_tasks.task import Task
from opencode_tasks.values import value

POLICY = "policy:limits"


def decide(at: Here, task: Task, session: Session, held: Held) -> Decision | None:
    """None: another command's person or policy decides, or has. Never raises `TaskError`."""
    try:
        with locked(at.store.layout.lock(f"{task.id}.held"), timeout_s=0, hot=True):
            return _decide(at, task, session, held)
    except LockTimeout:
        return None
    except TaskError as e:
        session.say(f"{e.message}; everything is stopped")
        return "stop"


def _decide(at: Here, task: Task, session: Session, held: Held) -> Decision | None:
    known, this = at.store.layout.held(task.id), f"{session.container} {held.since}"
    with suppress(OSError):
        if known.read_text() == this:
            return None
    session.say(f"{_situation(held)}: everything in the task is held still")
    reached = {"kind": held.kind, "used_bytes": held.used, "limit_bytes": held.limit}
    at.store.record(task.id, ("limit.reached", reached), actor=POLICY, has_happened=True)
    checkpoint = _kept(at, task, session)
    outcome = _more_memory(at, task, session) if held.kind == "memory" else None
    outcome = outcome or _asked(at, session, held) or _Outcome("stopped", POLICY)
    decided = {"kind": held.kind, "decision": outcome.what, "checkpoint": checkpoint, "to_bytes": outcome.to}
    at.store.record(task.id, ("limit.decided", decided), actor=outcome.by, has_happened=True)
    with suppress(OSError, TaskError):
        known.parent.mkdir(exist_ok=True)
        files.replace(known, this.encode())
    if outcome.what == "stopped":
        session.say(f"everything in the task is stopped; {_next_step(task, held)}")
        return "stop"
    return "thaw"


@value
class _Outcome:
    what: str
    by: str
    to: int | None = None


def _kept(at: Here, task: Task, session: Session) -> str | None:
    """The checkpoint's id. Without one we go on: what is held still cannot wait for ever."""
    from opencode_tasks.checkpoints import snapshot
    from opencode_tasks.containers.freeze import frozen

    try:
        if workspace_of(at, task) is None:
            return None
        with frozen(at.store, task):
            ignored = at.config.checkpoint.ignored
            made, _ = snapshot.take(at.store, task, kind="auto", label="", actor=POLICY, ignored=ignored)
    except TaskError as e:
        session.say(f"no checkpoint could be made: {e.message}")
        return None
    session.say(f"its files are kept: checkpoint {made.id}")
    return made.id


def _more_memory(at: Here, task: Task, session: Session) -> _Outcome | None:
    from opencode_tasks.containers.engine import Engine

    most = sizes.parse(limits.of(at.config, at.store.get(task.id).limits).memory_max, what="memory_max")
    try:
        engine = Engine()
        now = engine.memory_limit(session.container)
        to = min(most, 2 * now)
        if to <= now:
            return None
        engine.set_memory(session.container, to)
    except TaskError as e:
        session.say(f"no more memory could be given: {e.message}")
        return None
    session.say(f"memory raised from {sizes.told(now)} to {sizes.told(to)}, of at most {sizes.told(most)}")
    return _Outcome("extended", POLICY, to)


def _asked(at: Here, session: Session, held: Held) -> _Outcome | None:
    danger = "the kernel ends processes when it is used up" if held.kind == "memory" else "the disk may become full"
    answer = session.ask(f"go on all the same? {danger}; n stops everything in the task")
    if answer is None:
        return None
    return _Outcome("continued" if answer else "stopped", at.actor)


def _situation(held: Held) -> str:
    if held.kind == "memory":
        return f"{sizes.told(held.used)} of {sizes.told(held.limit)} memory are used"
    return f"only {sizes.told(held.used)} are free on the workspace's disk ({sizes.told(held.limit)} must be)"


def _next_step(task: Task, held: Held) -> str:
    if held.kind == "memory":
        return f"more memory: opencode-tasks limits {task.id} --memory SIZE"
    return "free space on the disk, or set limits.disk_free in .opencode/tasks.toml"
