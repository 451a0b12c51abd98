"""A base branch moves to what was merged, and with it the files of the work trees that have it checked out.

Git's own order: files and index first, the branch last, by compare and swap. What is about to happen is written down
before, so that whoever finds a process killed in between finishes it or takes it back.
"""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.events import dumps
from opencode_tasks.git import discovery, interrupted, plumbing, repository, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.proc import CommandError, Completed, clean_git_env, run
from opencode_tasks.store import Store, files
from opencode_tasks.store.locks import locked
from opencode_tasks.values import names_of, value

_OPERATIONS = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick",
    "BISECT_LOG": "bisect",
}


@value
class Landing:
    """`into` goes from `old` to `new`, which has all of `branch` at `tip`. `trees`: where `into` is checked out."""

    task: str
    branch: str
    tip: str
    into: str
    old: str
    new: str
    how: str
    trees: tuple[str, ...] = ()


class MovedError(TaskError):
    """One of the branches is not where it was when they were merged. Nothing was changed."""

    code = "conflict"


def operation(checkout: Checkout) -> str | None:
    """What git is in the middle of there, as `git <it> --abort` names it."""
    return next((name for sign, name in _OPERATIONS.items() if os.path.lexists(checkout.git_dir / sign)), None)


def holders(checkout: Checkout, branch: str) -> list[Checkout]:
    """The work trees that have `branch` checked out. Raises `TaskError` (code `in_use`) for one out of reach."""
    tops = workspaces.work_trees(checkout)
    found = [tree for top in tops if plumbing.occupying_branch(tree := discovery.find(top, {})) == branch]
    reached = {discovery.find(top, {}).git_dir for top in tops}
    for git_dir in plumbing.worktrees(checkout)[1:]:
        if (
            git_dir.resolve() not in reached
            and plumbing.occupying_branch(Checkout(git_dir, git_dir, git_dir)) == branch
        ):
            raise TaskError(
                f"{branch} is checked out in a work tree that is not there ({git_dir})",
                hint="bring it back; or, when it is gone for good: git worktree prune",
                code="in_use",
            )
    return found


def require_free(tree: Checkout, old: str, new: str) -> None:
    """Raises `TaskError` where going from `old` to `new` would not leave alone what is not committed there."""
    under_way = operation(tree)
    if under_way:
        raise TaskError(
            f"A {under_way} is not finished in {tree.top}",
            hint=f"finish it, or: git {under_way} --abort",
            code="in_use",
        )
    _git(tree, "update-index", "-q", "--refresh", check=False)
    words = _names(tree, "diff-tree", "-r", "-z", "--name-status", "--no-renames", old, new)
    kinds = dict(zip(words[1::2], words[::2], strict=True))
    changed = {
        *_names(tree, "diff-index", "--cached", "-z", "--name-only", "--ignore-submodules=all", "HEAD"),
        *_names(tree, "diff-files", "-z", "--name-only", "--ignore-submodules=all"),
    }
    lost = sorted({*(changed & set(kinds)), *_in_the_way(tree, [path for path, kind in kinds.items() if kind == "A"])})
    if lost:
        raise TaskError(
            f"{tree.top} has work that the merge would overwrite:\n  {repository.some(lost)}",
            hint="commit it or move it away, then run the command again",
            code="unsaved_work",
        )


def _in_the_way(tree: Checkout, added: Sequence[str]) -> Iterator[str]:
    """Files that git does not track, ignored ones too, where one of `added` has to go."""
    if not added:
        return
    tracked = set(_names(tree, "ls-files", "-z"))
    for path in added:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            there = "/".join(parts[:depth])
            try:
                mode = os.lstat(tree.top / there).st_mode
            except (FileNotFoundError, NotADirectoryError):
                break
            if not stat.S_ISDIR(mode):
                if there not in tracked:
                    yield there
                break
            if depth == len(parts):
                for folder, _, names in os.walk(tree.top / there):
                    inside = (os.path.relpath(os.path.join(folder, name), tree.top) for name in names)  # noqa: PTH118
                    yield from (name for name in inside if name not in tracked)


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """One landing at a time; whoever holds this and finds one written down has found a dead one's."""
    with locked(store.layout.lock("merging"), timeout_s=60):
        yield


def land(store: Store, checkout: Checkout, landing: Landing) -> None:
    """All of it or nothing. Under `alone`. What is written down stays until `forget`.

    Raises `MovedError`, or `TaskError` where uncommitted work is in the way.
    """
    trees = [discovery.find(Path(top), {}) for top in landing.trees]
    for tree in trees:
        require_free(tree, landing.old, landing.new)
    _write_down(store, landing)
    moved: list[tuple[Checkout, interrupted.Before]] = []
    try:
        for tree in trees:
            moved.append((tree, interrupted.before(tree, landing.new)))
            _follow(tree, landing.old, landing.new)
        _swap(trees[0] if trees else checkout, landing)
    except BaseException:
        if plumbing.commit_of(checkout, f"refs/heads/{landing.into}") != landing.new:
            for tree, was in moved:
                interrupted.take_back(tree, was)
            forget(store, landing.task)
        raise


def _follow(tree: Checkout, old: str, new: str) -> None:
    done = _git(tree, "read-tree", "-m", "-u", old, new, check=False)
    if done.code != 0:
        raise TaskError(
            f"The files of {tree.top} could not follow: {done.err.strip()}",
            hint="mend what git says, then run the command again; nothing was changed",
            code="in_use",
        )


def _swap(checkout: Checkout, landing: Landing) -> None:
    steps = (
        "start",
        f"verify refs/heads/{landing.branch} {landing.tip}",
        f"update refs/heads/{landing.into} {landing.new} {landing.old}",
        "prepare",
        "commit",
        "",
    )
    why = f"complete-task: {landing.how} {landing.branch}"
    try:
        _git(checkout, "update-ref", "-m", why, "--stdin", stdin_b="\n".join(steps).encode(errors="surrogateescape"))
    except CommandError as e:
        tips = {landing.into: landing.old, landing.branch: landing.tip}
        if any(plumbing.commit_of(checkout, f"refs/heads/{name}") != tip for name, tip in tips.items()):
            raise MovedError(f"{landing.into} or {landing.branch} moved meanwhile", hint="run the command again") from e
        raise


def settle(store: Store, checkout: Checkout) -> Iterator[tuple[Landing, bool]]:
    """What killed processes left, each with whether it came through; else it is taken back. Under `alone`.

    The caller has recorded one when it asks for the next. Raises `TaskError` where files cannot go back.
    """
    for landing in pending(store):
        now = plumbing.commit_of(checkout, f"refs/heads/{landing.into}")
        came_through = now is not None and (now == landing.new or plumbing.is_ancestor(checkout, landing.new, now))
        if now == landing.old:
            for tree in holders(checkout, landing.into):
                _take_back(tree, landing)
        yield landing, came_through
        forget(store, landing.task)


def pending(store: Store) -> list[Landing]:
    """Written down and not forgotten: of somebody killed, or under way."""
    found = (_read(path) for path in sorted(store.layout.merging("x").parent.glob("*.json")))
    return [one for one in found if one is not None]


def _take_back(tree: Checkout, landing: Landing) -> None:
    """Git writes the index last: it has it all or nothing. Then go files that are to the byte what git wrote."""
    _git(tree, "update-index", "-q", "--refresh", check=False)
    words = _names(tree, "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", landing.old, landing.new)
    changed = dict(zip(words[1::2], words[::2], strict=True))
    if not changed.keys().isdisjoint(_names(tree, "diff-index", "--cached", "-z", "--name-only", landing.old)):
        done = _git(tree, "read-tree", "-m", "-u", landing.new, landing.old, check=False)
        if done.code != 0:
            raise TaskError(
                f"A merge of {landing.branch} into {landing.into} was interrupted, and the files of {tree.top} cannot "
                f"go back by themselves: {done.err.strip()}",
                hint="move away what git names, or the lock it names when no git runs; then run the command again",
                code="in_use",
            )
    for path, about in changed.items():
        blob = about.split()[3]
        if set(blob) == {"0"} or _blob_at(tree, path) != blob:
            continue
        if about.endswith("A"):
            (tree.top / path).unlink()
        else:
            _git(tree, "checkout-index", "--force", "-z", "--stdin", stdin_b=os.fsencode(path) + b"\0")


def _blob_at(tree: Checkout, path: str) -> str:
    """What git would make of an ordinary file there."""
    try:
        if not stat.S_ISREG(os.lstat(tree.top / path).st_mode) or not files.is_real((tree.top / path).parent):
            return ""
    except OSError:
        return ""
    return _git(tree, "hash-object", "--", path, check=False).out.strip()


def forget(store: Store, task_id: str) -> None:
    store.layout.merging(task_id).unlink(missing_ok=True)


def _write_down(store: Store, landing: Landing) -> None:
    path = store.layout.merging(landing.task)
    with files.refused_writes(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    files.replace(path, dumps(vars(landing)).encode(), durable=True)


def _read(path: Path) -> Landing | None:
    """None for what is none of ours, or torn: then nothing was done yet."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_bytes())
        if found.keys() == set(names_of(Landing)) and all(isinstance(found[t], str) for t in names_of(Landing)[:-1]):
            return Landing(**{**found, "trees": tuple(map(str, found["trees"]))})
    return None


def _names(tree: Checkout, *words: str) -> list[str]:
    return [os.fsdecode(name) for name in _git(tree, *words).out_b.split(b"\0") if name]


def _git(tree: Checkout, *args: str, check: bool = True, stdin_b: bytes = b"") -> Completed:
    argv = ("git", *QUIET, "-c", "submodule.recurse=false", *args)
    return run(argv, cwd=tree.top, env=clean_git_env(), check=check, stdin_b=stdin_b, timeout_s=3600)
