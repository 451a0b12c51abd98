"""Worktrees that somebody took away: `git worktree remove`, `prune`, or plainly `rm -rf`. No hook tells of that."""

import os
from pathlib import Path

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.task import Task

REASON = "its worktree is gone"


def is_gone(task: Task) -> bool:
    """Whether the task had a worktree, and nothing that may lie there now is one."""
    return task.workspace.kind == "worktree" and not os.path.lexists(f"{task.workspace.path}/.git")


def pointer(git_dir: Path) -> Path | None:
    """The `.git` of the worktree with this git directory. None where git's record of it is damaged."""
    try:
        said = os.fsdecode((git_dir / "gitdir").read_bytes().removesuffix(b"\n"))
    except OSError:
        return None
    return git_dir / said if said and "\0" not in said else None  # relative with worktree.useRelativePaths


def way_back(checkout: Checkout, task: Task) -> str:
    """What gives the task its files again, to be typed in the main checkout."""
    import shlex

    if not is_gone(task):
        return f"git checkout {task.branch}"
    path, steps = Path(task.workspace.path), []
    known = [g for g in plumbing.worktrees(checkout)[1:] if pointer(g) == path / ".git"]
    if plumbing.commit_of(checkout, f"refs/heads/{task.branch}") is None:
        steps.append(("git", "branch", task.branch, task.commits.last or task.base.commit))
    if any((git_dir / "locked").exists() for git_dir in known):
        steps.append(("git", "worktree", "unlock", str(path)))
    # Where git has not noticed yet, it has to be told that what it knows of the path does not count.
    force = ("--force",) if known else ()
    steps.append(("git", "worktree", "add", *force, str(path), task.branch))
    return " && ".join(shlex.join(step) for step in steps)
