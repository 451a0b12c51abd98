"""The Task value, its states, its id and its branch name. Pure: values in, values out."""

import os
import re
from typing import Any, Literal, get_args

from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
ContainerState = Literal["none", "created", "running", "paused", "stopped", "lost"]
WorkspaceKind = Literal["in-place", "worktree"]
Mode = Literal["exclusive", "collaborative"]

STATUSES: tuple[Status, ...] = get_args(Status)
TRANSITIONS: dict[Status, tuple[Status, ...]] = {
    "pending": ("running", "cancelled"),
    "running": ("paused", "completed", "failed", "cancelled"),
    "paused": ("running", "completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}
OPEN: frozenset[Status] = frozenset(s for s, following in TRANSITIONS.items() if following)

# Crockford's base32: no i, l, o, u, so that an id survives being read aloud.
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_SUFFIX_LENGTH = 6
_SLUG_LENGTH = 40
_ID = re.compile(rf"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?-[{_CROCKFORD}]{{{_SUFFIX_LENGTH}}}")


@value
class Base:
    """Where the branch began: the branch it will return to (if known) and the commit."""

    branch: str | None
    commit: str


@value
class Workspace:
    kind: WorkspaceKind
    path: str


@value
class Container:
    """The last thing we did with the task's container, or why we could not. The engine knows how it is now."""

    state: ContainerState = "none"
    id: str | None = None
    name: str | None = None
    image: str | None = None
    engine: str | None = None
    error: str | None = None


@value
class Tally:
    """How many there have been, and the newest."""

    count: int = 0
    last: str | None = None


@value
class Commands:
    """What ran in the task. `failures`: those that ended with another code than 0, or of which nobody knows how."""

    count: int = 0
    failures: int = 0
    duration_ms: int = 0


@value
class Use:
    """What its commands used up at most (`memory_bytes`) or together (`cpu_ms`), as the container itself says.

    `oom_kills`: processes that the kernel ended for want of memory. `memory_held`, `disk_held`: how often
    everything was held still because one of them came to an end.
    """

    memory_bytes: int = 0
    cpu_ms: int = 0
    oom_kills: int = 0
    memory_held: int = 0
    disk_held: int = 0


@value
class Choice:
    """Limits chosen for one task, in the words of `templates/limits.yaml`; None: as everywhere."""

    set: str | None = None
    memory: str | None = None
    cpus: float | None = None
    pids: int | None = None


@value
class Spent:
    """How long the task has been in each open status, up to the newest change, in ms."""

    pending: int = 0
    running: int = 0
    paused: int = 0


AGENTS = ("OPENCODE_TASK_ID", "OPENCODE_PID")
"""Variables that are set where an agent's commands run: in a task's container, and by OpenCode."""
LEASE = "OPENCODE_TASKS_LEASE"
"""What `attach` gives: `<task>/<epoch>/<since>/<agent>`. With it a command writes under that lease, or not at all."""


@value
class Lease:
    """One agent's right to write. `pid`, `pid_start` and `boot_id` are how its death is proved on its own host.

    `since` is when it was taken, `epoch` what every write under it carries.
    """

    agent: str
    mode: Mode
    epoch: int
    ttl_s: int
    since: str
    host: str
    boot_id: str | None = None
    pid: int | None = None
    pid_start: str | None = None


@value
class Conflict:
    """Two writers set the same field without knowing of each other: what stands, and what was set aside."""

    field: str
    kept: Any
    lost: Any
    ts: str
    writer: str


@value
class Task:
    """What the events of a task add up to. `rev` counts them; `epoch` rises with every exclusive lease.

    `status_since`: when the status began. `allowed`: hosts and presets that a person lets it reach. `degraded`: what
    is known to be missing from its log.
    """

    id: str
    title: str
    branch: str
    base: Base
    status: Status
    workspace: Workspace
    created_at: str
    updated_at: str
    rev: int
    owner: str | None = None
    image: str | None = None
    status_since: str = ""
    epoch: int = 0
    leases: tuple[Lease, ...] = ()
    parent: str | None = None
    children: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    container: Container = Container()
    checkpoints: Tally = Tally()
    commits: Tally = Tally()
    decisions: Tally = Tally()
    decision_events: int = 0
    commands: Commands = Commands()
    spent: Spent = Spent()
    use: Use = Use()
    limits: Choice = Choice()
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    degraded: tuple[str, ...] = ()
    deleted_at: str | None = None

    @property
    def is_open(self) -> bool:
        return self.status in OPEN and self.deleted_at is None

    @property
    def agents(self) -> tuple[str, ...]:
        """Who is attached."""
        return tuple(lease.agent for lease in self.leases)


def check_transition(task: Task, to: Status, *, now: Status | None = None) -> None:
    """Raises `TaskError` (code `transition`) with what is possible instead."""
    now = now or task.status
    possible = TRANSITIONS[now]
    if to in possible:
        return
    ways = ", ".join(possible) if possible else "nothing: it is closed"
    raise TaskError(
        f"Task {task.id} is {now} and cannot become {to}",
        hint=f"possible from {now}: {ways}",
        code="transition",
    )


def slug(title: str) -> str:
    """`title` as lower-case ASCII words joined by hyphens, cut at a word, never empty."""
    import unicodedata

    ascii_only = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_only.lower())
    made = ""
    for word in words:
        if len(made) + len(word) + 1 > _SLUG_LENGTH:
            made = made or word[:_SLUG_LENGTH]
            break
        made = f"{made}-{word}" if made else word
    return made or "task"


def new_id(title: str) -> str:
    """`<slug>-<6 random Crockford base32>`; uniqueness is the exclusive creation of its directory."""
    return f"{slug(title)}-{''.join(_CROCKFORD[byte & 31] for byte in os.urandom(_SUFFIX_LENGTH))}"


def is_id(text: str) -> bool:
    """True for what `new_id` makes: safe as a file name, a container name and a ref component."""
    return len(text) <= _SLUG_LENGTH + 1 + _SUFFIX_LENGTH and _ID.fullmatch(text) is not None


def title_of_branch(branch: str, prefix: str) -> str:
    """`task/fix-the_parser` → `Fix the parser`."""
    words = re.sub(r"[-_/.]+", " ", branch.removeprefix(prefix)).strip()
    return words[:1].upper() + words[1:] if words else branch
