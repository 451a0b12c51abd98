"""The task's branch moved to a commit that came from its container, and the index with it. No file is touched.

The container works in the same files, so they are as the new commit has them already. Branch and index are two files:
what is to happen is written down first, and who finds that finishes it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.proc import clean_git_env, run
from opencode_tasks.store import files
from opencode_tasks.values import value

Outcome = Literal["moved", "there", "behind", "diverged", "busy", "staged", "gone"]
"""`behind`: our branch has the commit, and more. `staged`: what is staged here differs from it in the same file.
`busy`: a rebase or another git is at it.
"""
_TRIES = 5


class _BusyError(Exception):
    """Another git has the index, for now."""


@value
class _Copy:
    """Of the index: None where there is none. `of`: what the index looked like when it was copied."""

    path: Path
    of: list[int] | None


def advance(checkout: Checkout, branch: str, tip: str, journal: Path, *, rewrite: bool = False) -> tuple[Outcome, str]:
    """What happened, and where the branch was. `rewrite`: also where that is no fast-forward. `journal`: a file."""
    finish(checkout, branch, journal)
    outcome: Outcome | None = None
    was = ""
    for _ in range(_TRIES):
        was = plumbing.commit_of(checkout, f"refs/heads/{branch}") or ""
        outcome = _without_moving(checkout, branch, was, tip, rewrite=rewrite)
        if outcome is not None:
            break
        try:
            with _new_index(checkout, was, tip) as new:
                if new is None:
                    outcome = "staged"
                elif _move(checkout, branch, was, tip, new, journal):
                    outcome = "moved"
        except _BusyError:
            outcome = "busy"
        if outcome is not None:
            break
    return outcome or "busy", was


def _without_moving(checkout: Checkout, branch: str, was: str, tip: str, *, rewrite: bool) -> Outcome | None:
    """Why the branch is not moved; None: it can be."""
    if not was:
        return "gone"
    if was == tip:
        return "there"
    if plumbing.is_ancestor(checkout, tip, was):
        return "behind"
    if not rewrite and not plumbing.is_ancestor(checkout, was, tip):
        return "diverged"
    return None if plumbing.head_branch(checkout) == branch else "busy"


@contextmanager
def _new_index(checkout: Checkout, was: str, tip: str) -> Iterator[_Copy | None]:
    """A copy of the index, with what differs between the two commits. None: it cannot be brought along."""
    index, new = checkout.git_dir / "index", checkout.git_dir / f"index.opencode-{os.getpid()}"
    try:
        of = files.stamp(index)
        if of is None:
            yield _Copy(new, None)
            return
        with files.refused_writes(new):
            shutil.copy2(index, new)  # with its time, by which git tells which files may have changed since
        env = clean_git_env({"GIT_INDEX_FILE": str(new), "GIT_OPTIONAL_LOCKS": "0"})
        words = ("git", *QUIET, "--no-replace-objects", "read-tree", "-i", "-m", was, tip)
        done = run(words, cwd=checkout.top, env=env, check=False)
        yield _Copy(new, of) if done.code == 0 else None
    finally:
        for left in (new, new.with_name(f"{new.name}.lock")):
            with suppress(OSError):
                left.unlink()


def _move(checkout: Checkout, branch: str, was: str, tip: str, new: _Copy, journal: Path) -> bool:
    """False: index or branch changed since they were looked at."""
    index, lock = checkout.git_dir / "index", checkout.git_dir / "index.lock"
    note = {"branch": branch, "was": was, "tip": tip, "lock": files.stamp(new.path)}
    files.replace(journal, json.dumps(note).encode(), durable=True)
    try:
        os.link(new.path, lock) if new.of else lock.touch(exist_ok=False)
    except FileExistsError as e:
        journal.unlink()
        raise _BusyError from e
    try:
        if files.stamp(index) != new.of:
            return False
        reason = ("-m", "opencode-tasks: commits of the container")
        moved = plumbing.git(checkout, "update-ref", *reason, f"refs/heads/{branch}", tip, was, check=False)
        if moved.code == 0 and new.of:
            lock.replace(index)
        return moved.code == 0
    finally:
        lock.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)


def finish(checkout: Checkout, branch: str, journal: Path) -> None:
    """What a killed process began: the index follows where the branch has moved; else nothing has happened."""
    for left in checkout.git_dir.glob("index.opencode-*"):
        left.unlink(missing_ok=True)
    try:
        note = json.loads(journal.read_bytes())
        was, tip, lock_was = str(note["was"]), str(note["tip"]), note["lock"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        journal.unlink()
        return
    lock = checkout.git_dir / "index.lock"
    is_ours = lock_was is not None and files.stamp(lock) == lock_was
    has_moved = plumbing.commit_of(checkout, f"refs/heads/{branch}") == tip and note.get("branch") == branch
    if is_ours and has_moved:
        lock.replace(checkout.git_dir / "index")
    elif is_ours:
        lock.unlink()
    elif has_moved and not lock.exists():
        with _new_index(checkout, was, tip) as new, suppress(FileExistsError):
            if new is not None and new.of:
                os.link(new.path, lock)
                lock.replace(checkout.git_dir / "index")
    journal.unlink(missing_ok=True)
