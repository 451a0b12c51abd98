"""pre-commit: refuses a commit on a branch that the settings keep commits from, under a lease that is lost, or of
what no commit may have: anything in `.tasks`, and for an agent what programs on the host obey.

A person is told of the latter and goes on. `git commit --no-verify` leaves it out.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from opencode_tasks.config_sections import OBEYED, Config
from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing, staged, trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import task_here
from opencode_tasks.store import Store, leases
from opencode_tasks.task import LEASE

_MOST = 5
REFUSED = 10
"""The exit code by which the shim knows a refusal from a Python that could not do its work."""


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del args
    branch = plumbing.head_branch(checkout)
    refusals = [] if branch is None else list(of_branch(branch, config))
    refusals += of_lease(store, checkout)
    refused, noted = of_paths(staged.entries(checkout), config)
    refusals += [*refused, *(noted if leases.agent_here() else [])]
    for line in _some(refusals, "refused: ") if refusals else _some(noted, ""):
        sys.stderr.write(f"opencode-tasks: {line}\n")
    return REFUSED if refusals else 0


def of_branch(branch: str, config: Config) -> Iterator[str]:
    """Why nothing is committed on a branch of this name."""
    if branch in config.branch.protected:
        next_step = f"git switch -c {config.branch.prefix}<name> takes your work along"
        yield f"{branch} is protected (branch.protected); {next_step}"
    elif config.branch.pattern and not re.fullmatch(config.branch.pattern, branch):
        yield f"{branch} does not match branch.pattern {config.branch.pattern!r}; git branch -m <name> renames it"


def of_lease(store: Store, checkout: Checkout) -> list[str]:
    """Whoever commits under a lease must still hold it."""
    try:
        under = leases.given(os.environ.get(LEASE, ""))
        task = task_here(store, checkout)
        if under is not None and task is not None and under[0] == task.id:
            leases.require_held(task, under[1])
    except TaskError as e:
        return [f"{e.message}; {e.hint}"]
    return []


def of_paths(entries: Sequence[staged.Entry], config: Config) -> tuple[list[str], list[str]]:
    """What no commit may have, and what a person should look at."""
    refused, noted = [], []
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.parts[0].lower() == ".tasks":
            refused.append(f"{entry.shown} is the tasks' memory; git rm -r --cached .tasks")
        elif entry.is_gitlink:
            noted.append(f"{entry.shown} is a repository of its own: only the number of its commit is kept")
        elif entry.leads is not None and trees.leaves(entry.path, entry.leads):
            noted.append(f"{entry.shown} is a link that leads out of the repository")
        elif any(path.is_relative_to(name) for name in (*OBEYED, *config.container.protected)):
            noted.append(f"{entry.shown}: programs on your machine do what it says; look at it: git diff --cached")
    return refused, noted


def _some(lines: Sequence[str], prefix: str) -> Iterator[str]:
    yield from (f"{prefix}{line}" for line in lines[:_MOST])
    if len(lines) > _MOST:
        yield f"{prefix}and {len(lines) - _MOST} more like these"
