"""The files of a worktree that is about to go, in one more checkpoint: what git ignores too, unless it is too much."""

import os

from opencode_tasks.checkpoints import memory, snapshot, walk
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.git import plumbing, repository, submodule_trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import replace

MOST_FILES = 20_000
MOST_BYTES = 256 << 20


def unkeepable(workspace: Checkout) -> tuple[str, ...]:
    """What is not committed and no checkpoint takes: repositories of their own, what only submodules have, files that
    may not be read.
    """
    listed = plumbing.git(workspace, "ls-files", "--others", "--modified", "--exclude-standard", "-z").out_b
    paths = [os.fsdecode(path) for path in dict.fromkeys(listed.split(b"\0")) if path]
    skipped = (one.path for one in walk.look(workspace.top, paths).skipped)
    return (*skipped, *submodule_trees.uncommitted(workspace))


def keep(store: Store, task: Task, workspace: Checkout, *, actor: str) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint, and which of the ignored paths are not in it. The caller holds the task's container still."""
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task)
        found = memory.contents(shadow, thorough=True)
        kept, left = _affordable(workspace)
        seen = walk.look(workspace.top, kept)
        if seen.present:
            shadow.update([], seen.present)
            found = replace(found, tree=shadow.write_tree(), skipped=(*found.skipped, *seen.skipped))
        made = snapshot.commit(store, shadow, task, found, kind="milestone", label="before cleanup-task", actor=actor)
    return made, (*left, *(one.path for one in seen.skipped))


def _affordable(workspace: Checkout) -> tuple[list[str], tuple[str, ...]]:
    """Of what git ignores, the smaller things first: their files, and the rest by name."""
    left = list(submodule_trees.ignored(workspace))  # no checkpoint goes in there
    units = [unit for unit in repository.ignored(workspace) if unit not in left]
    listed = plumbing.git(workspace, "ls-files", "--others", "--ignored", "--exclude-standard", "-z").out_b
    sizes: dict[str, list[tuple[str, int]]] = {unit: [] for unit in units}
    for path in (os.fsdecode(name) for name in listed.split(b"\0") if name):
        unit = next((u for u in _above(path) if u in sizes), None)
        if unit is not None:
            sizes[unit].append((path, _size(workspace, path)))
    kept: list[str] = []
    used = 0
    for unit, found in sorted(sizes.items(), key=lambda one: sum(size for _, size in one[1])):
        size = sum(size for _, size in found)
        if len(kept) + len(found) > MOST_FILES or used + size > MOST_BYTES:
            left.append(unit)
            continue
        kept += [path for path, _ in found]
        used += size
    return kept, tuple(left)


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return [path, *("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))]


def _size(workspace: Checkout, path: str) -> int:
    try:
        return os.lstat(workspace.top / path).st_size
    except OSError:
        return 0
