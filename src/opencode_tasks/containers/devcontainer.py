"""What a `devcontainer.json` says, as values. Pure; `devcontainer_file` reads one."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

PATHS = (".devcontainer/devcontainer.json", ".devcontainer.json")
IMAGE = "devcontainer"
"""As a task's image: what `create-task --devcontainer` says."""

CREATE_STAGES = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
START_STAGES = ("postStartCommand", "postAttachCommand")


@value
class Facts:
    """What variables stand for. `approved`: what a person lets commands have of the host: theirs, and its name there.

    Such a variable is given to each command, and is never part of the container.
    """

    path: str
    workspace: str
    id: str
    approved: Collection[tuple[str, str]]


@value
class Build:
    """Paths from the repository's root; `context` empty is the root itself."""

    dockerfile: str
    context: str
    args: Mapping[str, str]
    target: str


@value
class Command:
    stage: str
    argv: tuple[str, ...]


@value
class DevContainer:
    """`image` and `build`: at most one is set. `environment` is for the container, `remote` may refer to it.

    `remote`: None takes a variable away. `volumes`: name in the file, and path. Warnings and refusals are sentences.
    """

    path: str
    image: str = ""
    build: Build | None = None
    environment: Mapping[str, str] = {}
    remote: Mapping[str, str | None] = {}
    volumes: tuple[tuple[str, str], ...] = ()
    commands: tuple[Command, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    def required(self) -> "DevContainer":
        """Itself. Raises `TaskError` (code `devcontainer`) when something in it is refused."""
        if self.refusals:
            raise TaskError(
                f"{self.path} is refused:\n  " + "\n  ".join(self.refusals),
                hint="take that out of it and commit, then make a task from there; or go without it: "
                "container.devcontainer = false",
                code="devcontainer",
            )
        return self


def is_used(image: str | None, *, setting: bool) -> bool:
    """`image`: the task's own, which goes before the setting."""
    return image == IMAGE or (not image and setting)


VARIABLE = re.compile(
    r"\$\{(localEnv|env|containerEnv|(?:local|container)WorkspaceFolder(?:Basename)?|devcontainerId)"
    r"(?::([^:}]*))?(?::([^}]*))?\}"
)


def resolved(text: str, environment: Mapping[str, str]) -> str:
    """`${containerEnv:NAME}` and `${containerEnv:NAME:default}` put in."""
    return VARIABLE.sub(
        lambda f: environment.get(f[2]) or f[3] or "" if f[1] == "containerEnv" else f[0],
        text,
    )


def mount_parts(said: Any) -> Mapping[str, Any]:
    """Both forms: `source=…,target=…,type=…`, and an object. What the engine reads otherwise is not understood."""
    if isinstance(said, dict):
        return said
    parts = {}
    for part in said.split(",") if isinstance(said, str) else ():
        name, _, one = part.partition("=")
        parts[{"src": "source", "dst": "target", "destination": "target"}.get(name.strip(), name.strip())] = one
    return parts
