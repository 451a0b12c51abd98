"""Where a command was called, and the task it speaks of."""

from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from opencode_tasks.config import Config, load
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import current_task
from opencode_tasks.store import Store
from opencode_tasks.store.registry import login
from opencode_tasks.task import Task


@dataclass(frozen=True)
class Here:
    checkout: Checkout
    store: Store
    config: Config

    @property
    def actor(self) -> str:
        return f"user:{login()}"

    @property
    def main(self) -> Checkout:
        """The main checkout: where the branches are looked at, whatever worktree we stand in."""
        top = self.checkout.common_dir.parent if self.checkout.is_linked else self.checkout.top
        return Checkout(top, self.checkout.common_dir, self.checkout.common_dir)

    def task(self, named: str | None) -> Task:
        """The task with this id, prefix of an id or branch; without a name that of the branch here."""
        self.store.require()
        return self.store.resolve(named) if named else current_task(self.store, self.checkout)


def find(cwd: Path | None = None) -> Here:
    """Raises `TaskError` outside a checkout, and for settings that cannot be read."""
    try:
        cwd = cwd or Path.cwd()
    except FileNotFoundError as e:
        raise TaskError("The current directory is gone", hint="cd to an existing directory") from e
    checkout = discovery.find(cwd)
    return Here(checkout, Store(checkout.common_dir), load(checkout.top))


def ready() -> Here:
    """`find`, where `init` has been run."""
    here = find()
    here.store.require()
    return here


def add_task(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="id, unique beginning of an id, or branch (default: the branch here)")


def workspace_of(here: Here, task: Task) -> Checkout | None:
    """The work tree that has the task's branch checked out now."""
    path = Path(task.workspace.path)
    if not path.is_dir():
        return None
    try:
        checkout = discovery.find(path, {})
    except TaskError:
        return None
    same = checkout.common_dir == here.checkout.common_dir
    return checkout if same and plumbing.occupying_branch(checkout) == task.branch else None
