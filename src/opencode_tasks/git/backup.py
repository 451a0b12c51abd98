"""A branch that is about to be deleted is kept twice: by a reference that no push and no fetch takes along, and in a
bundle beside it. And the way back.
"""

import os
from contextlib import suppress
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.branch_changes import OBJECTS_ONLY
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import CommandError
from opencode_tasks.store import files
from opencode_tasks.task import Task

_ALL = "refs/opencode-tasks/"


def ref(task_id: str) -> str:
    return f"{_ALL}backup/{task_id}"


def keep(main: Checkout, task: Task, tip: str, folder: Path) -> None:
    """Both, in `folder`, which exists. Raises `TaskError` where one of them cannot be made."""
    plumbing.git(main, "update-ref", ref(task.id), tip)
    known = [task.base.commit, f"refs/heads/{task.base.branch}" if task.base.branch else ""]
    there = [commit for name in known if name and (commit := plumbing.commit_of(main, name))]
    path = folder / bundle_name(tip)
    if path.exists() or plumbing.git(main, "rev-list", "--max-count=1", tip, "--not", *there).out == "":
        return  # what the base has is kept by the base
    temp = path.with_suffix(".tmp")
    with files.refused_writes(path):
        words = ("bundle", "create", "--quiet", str(temp), ref(task.id), "--not", *there)
        plumbing.git(main, *OBJECTS_ONLY, *words)
        fd = os.open(temp, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        temp.replace(path)
        files.sync_dir(folder)


def bundle_name(tip: str) -> str:
    return f"{tip}.bundle"


def section(main: Checkout, branch: str) -> tuple[tuple[str, str], ...]:
    """What git's configuration says of the branch: key and value, the tie to its task among them."""
    begin = f"branch.{branch}."
    listed = plumbing.git(main, "config", "--local", "--no-includes", "-z", "--list").out.split("\0")
    found = [entry.partition("\n")[::2] for entry in listed if entry.startswith(begin)]
    return tuple((key.removeprefix(begin), said) for key, said in found if "." not in key.removeprefix(begin))


def bring_back(
    main: Checkout, task_id: str, branch: str, tip: str, config: tuple[tuple[str, str], ...], folder: Path
) -> None:
    """The branch at `tip`, and its section. Doing it twice is doing it once.

    Raises `TaskError` when the branch is another's by now, or the commits are nowhere any more.
    """
    now = plumbing.commit_of(main, f"refs/heads/{branch}")
    owner = plumbing.task_of_branch(main, branch)
    if now is not None and (now != tip or owner not in (None, task_id)):
        raise TaskError(
            f"There is another branch {branch} by now", hint=f"git branch NAME {ref(task_id)}", code="branch_exists"
        )
    if plumbing.commit_of(main, tip) is None:
        _unbundle(main, tip, folder)
    if now is None:
        plumbing.git(main, "update-ref", "-m", "cleanup-task --undo", f"refs/heads/{branch}", tip, "0" * len(tip))
    there = section(main, branch)
    for key, said in config:
        if (key, said) not in there:
            plumbing.git(main, "config", "--local", "--add", f"branch.{branch}.{key}", said)
    if not any(key == "opencodetask" for key, _ in config):
        plumbing.tie_branch(main, branch, task_id)


def _unbundle(main: Checkout, tip: str, folder: Path) -> None:
    path = folder / bundle_name(tip)
    try:
        plumbing.git(main, "bundle", "unbundle", str(path))
    except CommandError as e:
        raise TaskError(
            f"Commit {tip[:9]} is gone, and {path} does not give it back: {e.done.err.strip()}",
            hint="git fsck --lost-found",
            code="no_revision",
        ) from e


def drop(main: Checkout, task_id: str) -> None:
    plumbing.git(main, "update-ref", "-d", ref(task_id))
    with suppress(OSError):  # git leaves the folder; others may have something in it
        (main.common_dir / "refs" / "opencode-tasks").rmdir()


def drop_all(main: Checkout) -> None:
    """Every reference of ours, whatever for."""
    for name in plumbing.git(main, "for-each-ref", "--format=%(refname)", _ALL).out.split():
        plumbing.git(main, "update-ref", "-d", name)
    drop(main, "none")
