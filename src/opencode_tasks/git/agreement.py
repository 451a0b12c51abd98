"""What git has beside what the store says: statuses brought in line, and worktrees that belong to no task."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, plumbing, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.task import Task, is_id
from opencode_tasks.values import value

# `git worktree add` and the making of its task are two steps, with a checkout of any size between them.
_YOUNG_S = 600.0


@value
class Leftover:
    """A worktree where tasks have theirs, of a task that is not there. `holds`: what would be lost with it."""

    path: Path
    task: str
    holds: str


def agree(store: Store, checkout: Checkout, config: Config, *, actor: str) -> list[tuple[Task, str]]:
    """Tasks whose status or place was not what is checked out, each with a sentence. Nothing is deleted."""
    done: list[tuple[Task, str]] = []
    known, ties = set(store.ids()), plumbing.tasks_by_branch(checkout)
    for top in workspaces.work_trees(checkout):
        with suppress(TaskError):
            done += _in_tree(store, discovery.find(top, {}), config, known, ties, actor)
    for running in [task for task in store.all() if task.status == "running"]:
        task = workspaces.settled(store, checkout, running)
        if workspaces.holds(task, Path(task.workspace.path), checkout) is None:
            reason = "its branch is checked out nowhere"
            with suppress(TaskError):  # closed meanwhile
                done.append((store.ensure_status(task.id, "paused", reason=reason, actor=actor), f"paused: {reason}"))
    return done


def _in_tree(
    store: Store, tree: Checkout, config: Config, known: set[str], ties: dict[str, str], actor: str
) -> Iterator[tuple[Task, str]]:
    branch = plumbing.occupying_branch(tree)
    owner = ties.get(branch) if branch is not None else None
    if owner is not None and owner not in known:
        return  # its memory is gone: whether it is to have a new one is for a person to say
    if owner == workspaces.occupant(tree) and (owner is None or store.get(owner).status != "paused"):
        return
    before = {i: store.get(i).status for i in (owner, workspaces.occupant(tree)) if i in known}
    switched = workspaces.switch(store, tree, config, actor=actor)
    for task in (switched.left, switched.entered):
        if task is not None and before.get(task.id) != task.status:
            yield task, f"{task.status}: {branch or 'a commit'} is checked out in {tree.top}"


def leftovers(store: Store, checkout: Checkout, config: Config) -> list[Leftover]:
    """Never one that somebody may be making right now."""
    from opencode_tasks.git import repository

    main = checkout.common_dir.parent if checkout.common_dir.name == ".git" else checkout.common_dir
    known, ties, found = set(store.ids()), plumbing.tasks_by_branch(checkout), []
    for top in workspaces.work_trees(checkout):
        wanted = config.workspace.worktrees.format(repository=main.name, id=top.name)
        if not is_id(top.name) or top != Path(os.path.normpath(main / wanted)) or top == main:
            continue
        try:
            tree = discovery.find(top, {})
        except TaskError:
            continue
        owner = ties.get(plumbing.occupying_branch(tree) or "")
        if store.layout.task(top.name).exists() or owner in known or time.time() - _touched_at(tree) < _YOUNG_S:
            continue
        paths = {"uncommitted": repository.uncommitted(tree), "ignored": repository.ignored(tree)}
        held = [f"{len(names)} {kind} path(s)" for kind, names in paths.items() if names]
        found.append(Leftover(top, top.name, " and ".join(held)))
    return found


def _touched_at(tree: Checkout) -> float:
    """By whoever makes it: our own `git status` touches the git directory, too."""
    told = [tree.top, *(tree.git_dir / name for name in ("HEAD", "gitdir", "index.lock"))]
    return max(path.stat().st_mtime for path in told if path.exists())
