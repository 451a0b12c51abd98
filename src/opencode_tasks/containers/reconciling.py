"""What has to be done so that engine, store and disk agree. Pure: facts in, actions out.

Whoever does it looks again, under the locks: between the look and the deed the world goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from opencode_tasks.containers.spec import container_name
from opencode_tasks.task import Container, ContainerState, Task, is_id
from opencode_tasks.values import value

Verb = Literal["start", "resume", "pause", "stop", "record", "remove", "leave"]
What = Literal["container", "sockets", "ready mark", "half-made task", "worktree", "task"]

LOST_WITH_IT = "what is in its /tmp and home goes with it"


@value
class Seen:
    """A container with our labels. `task` and `path` are empty where it has no such label.

    `is_left_behind`: at `path` there is no clone any more, or another one.
    """

    id: str
    name: str
    state: ContainerState
    clone: str
    task: str = ""
    path: str = ""
    is_left_behind: bool = False

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "paused")


@value
class Facts:
    """`tasks`: all of this clone that can be read, less the deleted. `unclear`: being made right now, or damaged.

    `deleted`: have a tombstone. `homeless`: their workspace is not there.
    `folders`, `marks`, `half_made`: by the name of the task, what lies on the disk. `programs` asks the engine.
    `idle_s`: after how long a container is stopped; None: never.
    """

    clone: str
    path: str
    containers: Sequence[Seen]
    tasks: Mapping[str, Task]
    now: datetime
    idle_s: float | None
    programs: Callable[[str], int]
    unclear: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()
    homeless: frozenset[str] = frozenset()
    folders: Sequence[str] = ()
    marks: Sequence[str] = ()
    half_made: Sequence[str] = ()


@value
class Action:
    """`leave`: it stays, and `why` says what stands in the way. `id`: of the container; else a path."""

    what: What
    name: str
    id: str
    action: Verb
    why: str
    task: str | None = None
    done: bool = False

    @property
    def deletes(self) -> bool:
        return self.action == "remove"


def idle_since(task: Task) -> datetime:
    """When something happened in it last: a command, a commit, a checkout. All of it is in the log."""
    return datetime.fromisoformat(task.updated_at if task.status == "running" else task.status_since)


def is_idle(task: Task, now: datetime, idle_s: float | None) -> bool:
    return idle_s is not None and task.is_open and (now - idle_since(task)).total_seconds() >= idle_s


def plan(facts: Facts, *, force: bool = False, elsewhere: bool = False) -> list[Action]:
    """`force`: also what programs run in. `elsewhere`: also what is left of clones that are gone."""
    ours = [c for c in facts.containers if c.clone == facts.clone and is_id(c.task)]
    copies = [c for c in ours if c.path not in ("", facts.path) and not c.is_left_behind]
    mine = [c for c in ours if c not in copies]
    actions = [_action(c, "leave", f"it belongs to {c.path}, of which one is the copy of the other") for c in copies]
    for task in facts.tasks.values():
        found = next((c for c in mine if c.name == container_name(task.id)), None)
        actions += of_task(facts, task, found)
    for seen in mine:
        actions += _stray(facts, seen, force)
    actions += _elsewhere(facts, force, elsewhere)
    return [*actions, *_on_disk(facts, ours)]


def cheap(facts: Facts) -> list[Action]:
    """Of the same, what starts nothing, deletes nothing and needs nobody's consent."""
    by_name = {c.name: c for c in facts.containers if c.clone == facts.clone}
    found = [(task, by_name.get(container_name(task.id))) for task in facts.tasks.values()]
    actions = [a for task, seen in found if seen and seen.is_up for a in of_task(facts, task, seen)]
    return [a for a in actions if a.action in ("pause", "stop")]


def of_task(facts: Facts, task: Task, seen: Seen | None) -> Iterator[Action]:
    """At most one."""
    state = seen.state if seen else "none"
    idle = is_idle(task, facts.now, facts.idle_s)
    verb, why = _wanted(task, state, idle=idle, homeless=task.id in facts.homeless)
    if verb == "stop" and idle and seen and (count := facts.programs(seen.id)):
        verb, why = _unless_idle(task, state, homeless=task.id in facts.homeless)
        if verb is None:
            verb, why = "leave", f"idle since {_told(idle_since(task))}, and {_programs(count)} in it"
    if verb is None and _is_unrecorded(task, seen):
        same = task.container.state == state
        verb, why = "record", "it is another one" if same else f"recorded as {task.container.state}, and it is {state}"
    if verb is not None:
        yield Action("container", container_name(task.id), seen.id if seen else "", verb, why, task.id)


def _wanted(task: Task, state: ContainerState, *, idle: bool, homeless: bool) -> tuple[Verb | None, str]:
    up = state in ("running", "paused")
    if not task.is_open:
        if homeless and state in ("created", "stopped"):
            return "remove", f"the task is {task.status}, and its workspace is gone"
        return ("stop", f"the task is {task.status}") if up else (None, "")
    if idle:
        return ("stop", f"idle since {_told(idle_since(task))}") if up else (None, "")
    return _unless_idle(task, state, homeless=homeless)


def _unless_idle(task: Task, state: ContainerState, *, homeless: bool) -> tuple[Verb | None, str]:
    if homeless:  # when something is put there, nothing must write into it that does not know it
        return ("pause", f"its workspace {task.workspace.path} is gone") if state == "running" else (None, "")
    if task.status == "paused" and state == "running":
        return "pause", "the task is paused"
    if task.status != "running" or state == "running":
        return None, ""
    if state == "paused":
        return "resume", "the task is running"
    if state == "stopped" and task.container.state == "stopped":
        return None, ""  # it was stopped on purpose, and the next command starts it
    return (
        "start",
        "the task is running, and it has none" if state == "none" else f"the task is running, and it is {state}",
    )


def _is_unrecorded(task: Task, seen: Seen | None) -> bool:
    known = task.container
    if seen is None:
        return known != Container() and (known.id is not None or known.state != "none")
    return (known.id, known.state) != (seen.id, seen.state)


def _stray(facts: Facts, seen: Seen, force: bool) -> Iterator[Action]:
    """A container of ours that is no task's."""
    if seen.task in facts.unclear:
        yield _action(seen, "leave", "its task cannot be read now: opencode-tasks doctor")
    elif seen.task not in facts.tasks:
        why = "its task was deleted" if seen.task in facts.deleted else "it has no task"
        yield _removed(facts, seen, why, force)
    elif seen.name != container_name(seen.task):
        yield _removed(facts, seen, f"a second one of {seen.task}", force)


def _elsewhere(facts: Facts, force: bool, asked: bool) -> Iterator[Action]:
    gone = {c.clone: c.path for c in facts.containers if c.is_left_behind and c.clone != facts.clone}
    for seen in facts.containers:
        if seen.clone not in gone:
            continue
        why = f"its clone is gone: {gone[seen.clone]}"
        if asked:
            yield _removed(facts, seen, why, force)
        else:
            yield _action(seen, "leave", f"{why}; to remove it: opencode-tasks reconcile --elsewhere --apply")


def _removed(facts: Facts, seen: Seen, why: str, force: bool) -> Action:
    """Not what holds work, unless forced."""
    if not seen.is_up:
        return _action(seen, "remove", why)
    count = facts.programs(seen.id)
    if count and not force:
        return _action(seen, "leave", f"{why}, but {_programs(count)} in it: docker top {seen.name}; then --force")
    return _action(seen, "remove", f"{why}; {LOST_WITH_IT}")


def _action(seen: Seen, verb: Verb, why: str) -> Action:
    return Action("container", seen.name, seen.id, verb, why, seen.task or None)


def _on_disk(facts: Facts, mine: Sequence[Seen]) -> Iterator[Action]:
    """Nothing of it holds work. What a container still uses goes after it."""
    known = {*facts.tasks, *facts.unclear}
    used = {c.task for c in mine}
    kinds: tuple[tuple[What, Sequence[str]], ...] = (("sockets", facts.folders), ("ready mark", facts.marks))
    for what, names in kinds:
        for name in names:
            if name not in known | used:
                yield Action(what, name, "", "remove", "it has no task and no container", name)
    for name in facts.half_made:
        yield Action("half-made task", name, "", "remove", "whoever made it was killed before it was whole")


def _programs(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'} {'runs' if count == 1 else 'run'}"


def _told(when: datetime) -> str:
    return when.isoformat(timespec="minutes").replace("+00:00", "Z")
