"""Where a command was called: what is known without the memory of the tasks, which is twenty modules to load."""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import forget_git_env
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import LEASE
from opencode_tasks.values import value

if TYPE_CHECKING:  # not every command needs the settings, and reading TOML takes as long as git does
    from opencode_tasks.config_sections import Config


@value
class Place:
    checkout: Checkout

    @property
    def layout(self) -> Layout:
        return Layout(self.checkout.common_dir)

    @cached_property
    def config(self) -> "Config":
        """Raises `TaskError` for settings that cannot be read."""
        from opencode_tasks import config
        from opencode_tasks.store import settings

        return config.load(self.checkout.top, through=settings.through(self.layout))

    @property
    def main(self) -> Checkout:
        """The main checkout: where the branches are looked at, whatever worktree we stand in."""
        top, common = self.checkout.top, self.checkout.common_dir
        if self.checkout.is_linked:
            top = common.parent if common.name == ".git" else common  # worktrees of a bare repository
        return Checkout(top, common, common)


def find(cwd: Path | None = None) -> Place:
    """Raises `TaskError` outside a checkout."""
    try:
        cwd = cwd or Path.cwd()
    except FileNotFoundError as e:
        raise TaskError("The current directory is gone", hint="cd to an existing directory") from e
    checkout = discovery.find(cwd)
    forget_git_env()
    return Place(checkout)


def ready() -> Place:
    """`find`, where `init` has been run. Raises whatever is wrong with the lease that we are to write under."""
    found = find()
    if not found.layout.store.is_dir() or found.layout.any_transaction() or os.environ.get(LEASE):
        from opencode_tasks.commands import here

        store = here.opened(found, hot=True).store
        store.require()
        store.recover()
    return found
