"""The Task value, its states, its id and its branch name. Pure: values in, values out."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from opencode_tasks.errors import TaskError

Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
ContainerState = Literal["none", "created", "running", "paused", "stopped", "lost"]
WorkspaceKind = Literal["in-place", "worktree"]

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


@dataclass(frozen=True)
class Base:
    """Where the branch began: the branch it will return to (if known) and the commit."""

    branch: str | None
    commit: str


@dataclass(frozen=True)
class Workspace:
    kind: WorkspaceKind
    path: str


@dataclass(frozen=True)
class Container:
    """The last thing we did with the task's container, or why we could not. The engine knows how it is now."""

    state: ContainerState = "none"
    id: str | None = None
    name: str | None = None
    image: str | None = None
    engine: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Tally:
    """How many there have been, and the newest."""

    count: int = 0
    last: str | None = None


@dataclass(frozen=True)
class Task:
    id: str
    title: str
    branch: str
    base: Base
    status: Status
    workspace: Workspace
    created_at: str
    updated_at: str
    rev: int
    image: str | None = None
    agents: tuple[str, ...] = ()
    parent: str | None = None
    children: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    container: Container = field(default_factory=Container)
    checkpoints: Tally = field(default_factory=Tally)
    commits: Tally = field(default_factory=Tally)
    blocked: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


def check_transition(task: Task, to: Status) -> None:
    """Raises `TaskError` (code `transition`) with what is possible instead."""
    possible = TRANSITIONS[task.status]
    if to in possible:
        return
    ways = ", ".join(possible) if possible else "nothing: it is closed"
    raise TaskError(
        f"Task {task.id} is {task.status} and cannot become {to}",
        hint=f"possible from {task.status}: {ways}",
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
    import secrets

    return f"{slug(title)}-{''.join(secrets.choice(_CROCKFORD) for _ in range(_SUFFIX_LENGTH))}"


def is_id(text: str) -> bool:
    """True for what `new_id` makes: safe as a file name, a container name and a ref component."""
    return len(text) <= _SLUG_LENGTH + 1 + _SUFFIX_LENGTH and _ID.fullmatch(text) is not None


def title_of_branch(branch: str, prefix: str) -> str:
    """`task/fix-the_parser` → `Fix the parser`."""
    words = re.sub(r"[-_/.]+", " ", branch.removeprefix(prefix)).strip()
    return words[:1].upper() + words[1:] if words else branch
