"""Where we are: the checkout that holds a directory, found without starting git.

Reading the three small files git itself reads costs nothing, and survives paths with
newlines, which `git rev-parse` prints ambiguously.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.values import value


@value
class Checkout:
    """`top`: the work tree. `git_dir`: its own. `common_dir`: shared by all worktrees. All resolved."""

    top: Path
    git_dir: Path
    common_dir: Path

    @property
    def is_linked(self) -> bool:
        return self.git_dir != self.common_dir

    @property
    def occupant_file(self) -> Path:
        """Holds the id of the task that owns this work tree now; the shims look for it."""
        return self.git_dir / "opencode-task"


def find(cwd: Path, environ: Mapping[str, str] = os.environ) -> Checkout:
    """The checkout around `cwd`, honouring GIT_DIR as git's hooks get it.

    Raises `TaskError`, code `not_a_repository` or `bare_repository`.
    """
    cwd = cwd.resolve()
    named = environ.get("GIT_DIR")
    if named:
        git_dir = _absolute(named, cwd)
        top = environ.get("GIT_WORK_TREE")
        holder = _top_above(cwd)
        return _own(_checkout(_absolute(top, cwd) if top else holder or cwd, git_dir))
    for directory in (cwd, *cwd.parents):
        entry = directory / ".git"
        if entry.is_dir() and _is_git_dir(entry):
            return _checkout(directory, entry)
        if entry.is_file():
            return _checkout(directory, _follow(entry))
        if _is_git_dir(directory):
            raise TaskError(
                f"{directory} is a bare repository or the inside of a .git directory: it has no files to work on",
                hint="clone it, or cd to its work tree",
                code="bare_repository",
            )
    raise TaskError(
        f"{cwd} is not in a git repository",
        hint="cd to a repository, or make one: git init",
        code="not_a_repository",
    )


def _own(checkout: Checkout) -> Checkout:
    """Refuse another repository's git directory over these files: our own git commands would find theirs."""
    entry = checkout.top / ".git"
    leads_to = _follow(entry) if entry.is_file() else entry.resolve()
    if leads_to != checkout.git_dir:
        raise TaskError(
            f"{checkout.git_dir} is not the git directory of {checkout.top}: such a pair has no tasks",
            hint="work in a checkout with its own .git: git worktree add",
            code="not_a_repository",
        )
    return checkout


def _top_above(cwd: Path) -> Path | None:
    return next((d for d in (cwd, *cwd.parents) if (d / ".git").exists()), None)


def _checkout(top: Path, git_dir: Path) -> Checkout:
    git_dir = git_dir.resolve()
    if not _is_git_dir(git_dir):
        raise TaskError(
            f"{top}/.git points to {git_dir}, which is not a git directory",
            hint="git worktree repair, in the main checkout",
            code="not_a_repository",
        )
    try:
        common = _first_line(git_dir / "commondir")
    except FileNotFoundError:
        return Checkout(top.resolve(), git_dir, git_dir)
    return Checkout(top.resolve(), git_dir, _absolute(common, git_dir))


def _is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and ((path / "objects").is_dir() or (path / "commondir").is_file())


def _follow(gitfile: Path) -> Path:
    content = _first_line(gitfile)
    if not content.startswith("gitdir: "):
        raise TaskError(f"{gitfile} is not a git file", code="not_a_repository")
    return _absolute(content.removeprefix("gitdir: "), gitfile.parent)


def _first_line(path: Path) -> str:
    """The whole file less its last line break: a path may contain others."""
    content = os.fsdecode(path.read_bytes()).removesuffix("\n").removesuffix("\r")
    if "\0" in content:
        raise TaskError(f"{path} is damaged", hint="git worktree repair, in the main checkout", code="not_a_repository")
    return content


def _absolute(path: str, start: Path) -> Path:
    return (start / path).resolve()
