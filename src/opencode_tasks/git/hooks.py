"""Installing our shims where git looks for hooks, over whatever stood there, and the exact inverse.

A file of ours is known by its ID line. A foreign hook is renamed beside ours, which always
calls it; renaming keeps its bytes, mode and links for the day of `remove`.
"""

import os
import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from opencode_tasks import assets
from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from opencode_tasks.values import value

SHARED = "opencode-tasks.sh"
BEFORE = ".before-opencode-tasks"
_ID_B = b"# opencode-tasks hook v"
_PYTHON_LINE = re.compile(rb"^python='python3'.*$", re.MULTILINE)
_OWN_DIR = "hooks"
# Of tools that write their hooks over whatever is there: lefthook, husky, and the part that all of husky's share.
_MARKS_B = (b"call_lefthook", b"husky", b'. "$(dirname "$0")/h"')
_SET_ASIDE = ".old"
"""How lefthook renames what it found, which it does not call."""

State = Literal["current", "outdated", "chained", "missing"]


@value
class Installed:
    """What `remove` must know: the directory, and whether we made it or set `core.hooksPath` to it."""

    directory: str
    made_directory: bool
    set_hooks_path: bool


def names() -> list[str]:
    """The hooks we have shims for."""
    return sorted(p.name for p in (assets.root() / "git_hooks").iterdir() if p.suffix == "")


def install(checkout: Checkout, python: str, own_root: Path, *, without: Collection[str] = ()) -> Installed:
    """Put every shim in place, and none of `without`; running it again changes nothing.

    `own_root`: our folder, for the case that `core.hooksPath` is set for all repositories of
    the user: then this one gets a directory of its own, whose hooks call those.
    """
    setting = plumbing.hooks_path_setting(checkout)
    directory, borrowed = plumbing.hooks_dir(checkout), None
    own = own_root / _OWN_DIR
    if setting is not None and setting[0] not in ("local", "worktree"):
        borrowed, directory = directory, own
    if directory.exists() and not directory.is_dir():
        raise TaskError(
            f"Git looks for hooks in {directory}, which is no directory: core.hooksPath switches them off",
            hint="git config --show-origin --get-all core.hooksPath; name a directory there, then run init again",
            code="hooks",
        )
    made = not directory.is_dir()
    with files.refused_writes(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if borrowed is not None:
            _borrow(borrowed, directory)
        for name in (SHARED, *names()):
            if name in without:
                _remove_one(directory, name)
            else:
                _install_one(directory, name, _content(name, python))
    if borrowed is not None:
        plumbing.git(checkout, "config", "--local", "core.hooksPath", str(directory))
    return Installed(str(directory), made, directory == own)


def remove(checkout: Checkout, installed: Installed) -> list[str]:
    """Take every shim away and put back what stood there; the names of what was removed."""
    directory = Path(installed.directory)
    removed = []
    with files.refused_writes(directory):
        for name in (*names(), SHARED):
            removed += _remove_one(directory, name)
        if installed.set_hooks_path:
            for path in directory.iterdir():
                if path.is_symlink():
                    path.unlink()
            plumbing.git(checkout, "config", "--local", "--unset", "core.hooksPath", check=False)
        if installed.made_directory and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
    return removed


def _remove_one(directory: Path, name: str) -> list[str]:
    before, removed = directory / f"{name}{BEFORE}", []
    # Ours may have been renamed by another tool that calls it now, as pre-commit does.
    for path in (directory / name, *directory.glob(f"{name}.*")):
        if _is_ours(path):
            path.unlink()
            removed.append(path.name)
            if os.path.lexists(before) and path.suffix != _SET_ASIDE:
                before.rename(path)
    if _is_successor(directory / name, before):
        before.unlink()
    return removed


def states(directory: Path, python: str, *, without: Collection[str] = ()) -> dict[str, State]:
    """How each file of ours is. `chained`: another tool stands in front and calls ours."""
    wanted = [name for name in (SHARED, *names()) if name not in without]
    return {name: _state(directory, name, _content(name, python)) for name in wanted}


def _state(directory: Path, name: str, content_b: bytes) -> State:
    path = directory / name
    if _is_ours(path):
        same = path.read_bytes() == content_b and (name == SHARED or os.access(path, os.X_OK))
        return "current" if same else "outdated"
    if path.exists() and any(_is_ours(p) for p in directory.glob(f"{name}.*") if p.suffix != _SET_ASIDE):
        return "chained"
    return "missing"


def _install_one(directory: Path, name: str, content_b: bytes) -> None:
    path, before = directory / name, directory / f"{name}{BEFORE}"
    state = _state(directory, name, content_b)
    if state in ("current", "chained"):
        return
    if os.path.lexists(path) and state == "missing":
        if os.path.lexists(before) and not _is_successor(path, before):
            raise TaskError(
                f"Both {path} and {before} exist and neither is ours",
                hint=f"decide which one is to run, and move the other out of {directory}",
                code="hooks",
            )
        path.rename(before)
    if _is_ours(aside := directory / f"{name}{_SET_ASIDE}"):
        aside.unlink()
    files.replace(path, content_b)
    path.chmod(0o644 if name == SHARED else 0o755)


def _content(name: str, python: str) -> bytes:
    content_b = (assets.root() / "git_hooks" / name).read_bytes()
    line_b = b"python=" + os.fsencode(shlex.quote(python))
    return _PYTHON_LINE.sub(lambda _: line_b, content_b)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return _ID_B in f.read(200)
    except (OSError, ValueError):
        return False


def _is_successor(path: Path, before: Path) -> bool:
    """Whether a tool has put its hook in ours' place again, having been there before us."""
    try:
        new_b, old_b = path.read_bytes(), before.read_bytes()
    except OSError:
        return False
    return not _is_ours(path) and (new_b == old_b or any(mark in new_b and mark in old_b for mark in _MARKS_B))


def _borrow(theirs: Path, directory: Path) -> None:
    ours = set(names())
    for hook in theirs.iterdir() if theirs.is_dir() else ():
        link = directory / (f"{hook.name}{BEFORE}" if hook.name in ours else hook.name)
        if not os.path.lexists(link):
            link.symlink_to(hook.resolve())
