"""Where a command was called, and the task it speaks of."""

from argparse import ArgumentParser
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, memory, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import forget_git_env
from opencode_tasks.store import Store
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.registry import login
from opencode_tasks.task import Task
from opencode_tasks.values import value

if TYPE_CHECKING:  # not every command needs the settings, and reading TOML takes as long as git does
    from opencode_tasks.config import Config


@value
class Here:
    checkout: Checkout
    store: Store

    @cached_property
    def config(self) -> "Config":
        """Raises `TaskError` for settings that cannot be read."""
        from opencode_tasks import config

        return config.load(self.checkout.top)

    @property
    def actor(self) -> str:
        return f"user:{login()}"

    @property
    def main(self) -> Checkout:
        """The main checkout: where the branches are looked at, whatever worktree we stand in."""
        top, common = self.checkout.top, self.checkout.common_dir
        if self.checkout.is_linked:
            top = common.parent if common.name == ".git" else common  # worktrees of a bare repository
        return Checkout(top, common, common)

    def task(self, named: str | None) -> Task:
        """The task with this id, prefix of an id or branch; without a name that of the branch here."""
        self.store.require()
        if not named:
            found = workspaces.current_task(self.store, self.checkout)
        else:
            found = workspaces.tied(self.store, self.checkout, named) or self.store.resolve(named)
        return workspaces.settled(self.store, self.checkout, found)


def find(cwd: Path | None = None) -> Here:
    """Raises `TaskError` outside a checkout."""
    try:
        cwd = cwd or Path.cwd()
    except FileNotFoundError as e:
        raise TaskError("The current directory is gone", hint="cd to an existing directory") from e
    checkout = discovery.find(cwd)
    forget_git_env()
    store = Store(checkout.common_dir, versions=memory.versions(Layout(checkout.common_dir)))
    _opened.append(store)
    return Here(checkout, store)


_opened: list[Store] = []


def close() -> None:
    """At the end of the process: what was written goes into the store's history."""
    while _opened:
        memory.commit_if_due(_opened.pop())


def ready() -> Here:
    """`find`, where `init` has been run."""
    here = find()
    here.store.require()
    return here


def add_task(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="id, unique beginning of an id, or branch (default: the branch here)")


def add_expected_rev(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--expected-rev", type=int, metavar="REV", help="refuse unless the task is at this revision: `rev` of its document"
    )


def workspace_of(here: Here, task: Task) -> Checkout | None:
    """The work tree that has the task's branch checked out now."""
    return workspaces.holds(task, Path(task.workspace.path), here.checkout)
