"""What commands tell of a commit's `devcontainer.json`."""

from contextlib import suppress

from opencode_tasks.commands.here import Here
from opencode_tasks.containers import devcontainer
from opencode_tasks.errors import TaskError
from opencode_tasks.git import trees
from opencode_tasks.values import value


@value
class Known:
    """`path` empty: the commit has none."""

    path: str
    is_used: bool

    @property
    def told(self) -> str:
        if not self.path:
            return ""
        return f"{self.path}, " + ("used" if self.is_used else "not used: container.devcontainer = true")


def known(at: Here, commit: str, image: str | None) -> Known:
    """`image`: the task's own. Costs one git. A commit that is not here has none."""
    path = ""
    with suppress(TaskError):
        found = trees.first(at.checkout, commit, devcontainer.PATHS)
        path = found.path if found else ""
    return Known(path, bool(path) and devcontainer.is_used(image, setting=at.config.container.devcontainer))


def said(at: Here, commit: str, workspace: str) -> list[str]:
    """Its warnings, and why it is refused if it is. Raises `TaskError` for a file that is none."""
    from opencode_tasks.containers import project

    found = project.read(at.checkout, at.config, commit, workspace=workspace, owner="")
    return [] if found is None else [*found.warnings, *(f"REFUSED: {refusal}" for refusal in found.refusals)]


def require(at: Here, commit: str, workspace: str) -> None:
    """Raises `TaskError` unless the commit has one that can be used."""
    from opencode_tasks.containers import project

    found = project.read(at.checkout, at.config, commit, workspace=workspace, owner="")
    if found is None:
        raise project.missing(commit)
    found.required()
