"""Our set in every work tree of a repository, and out again.

OpenCode looks for `.opencode` no further up than the root of the work tree, so each has its own. What of it is new is
kept out of git by lines in `info/exclude`, which all of them share: it holds paths of this machine.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.git import exclude, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.marked import state
from opencode_tasks.opencode import install, launcher, root, settings
from opencode_tasks.opencode.install import Target
from opencode_tasks.opencode.present import AT_ROOT, FOLDER, RECORD
from opencode_tasks.store.layout import Layout

_OTHERS = ("/.omo/*", "!/.omo/omo.jsonc")


def target(checkout: Checkout) -> Target:
    ours = Layout(checkout.common_dir).root
    return Target(
        folder=checkout.top / FOLDER,
        record=checkout.git_dir / RECORD,
        backups=ours / "opencode",
        shell=str(launcher.path_in(ours)),
        is_own=False,
        is_tracked=_tracked(checkout),
    )


def lines(trees: Sequence[Checkout]) -> list[str]:
    """What is to be excluded: every new file of ours, but where it would hide a file of somebody else's.

    One for the settings is always among them: a worktree that is made later may need it. And what oh-my-opencode notes
    while it runs: no task has made that.
    """
    every = [*install.wanted(), *settings.NAMES]
    free = [name for name in every if not any(_hides(tree, name) for tree in trees)]
    names = {name for tree in trees for name in install.new_names(target(tree), allowed=free)}
    names |= set([name for name in settings.NAMES if name in free][:1])
    at_root = [f"/{name}" for name in AT_ROOT if not any(_hides(tree, f"../{name}") for tree in trees)]
    return [*sorted([*(_line(name) for name in names if name in free), *at_root]), *_OTHERS]


def install_in(checkout: Checkout) -> tuple[list[str], list[str]]:
    """Into this work tree; see `install.apply`. What is not excluded is not made."""
    names, at = [*install.wanted(), *settings.NAMES], target(checkout)
    missing = exclude.missing(checkout, [*(_line(name) for name in names), *(f"/{name}" for name in AT_ROOT)])
    free = [name for name in AT_ROOT if f"/{name}" not in missing]
    made = root.put(checkout.top, is_tracked=at.is_tracked, allowed=free)
    changed, notes = install.apply(at, allowed=[name for name in names if _line(name) not in missing])
    return [*changed, *(f"../{name}" for name in made)], notes


def keep_up(checkout: Checkout) -> list[str]:
    """`install_in`, beside something else that matters more: what a person should know."""
    try:
        return install_in(checkout)[1]
    except TaskError as e:
        return [f"OpenCode's configuration was left as it is: {e.message}"]


def remove_from(checkout: Checkout) -> tuple[list[str], list[str]]:
    at = target(checkout)
    gone, notes = install.remove(at)
    return [*gone, *(f"../{name}" for name in root.remove(checkout.top, is_tracked=at.is_tracked))], notes


def _line(name: str) -> str:
    return f"/{FOLDER}/{name}"


def _hides(tree: Checkout, name: str) -> bool:
    path = Path(os.path.normpath(tree.top / FOLDER / name))
    return state(path) == "foreign" and not target(tree).is_tracked(path)


def _tracked(checkout: Checkout) -> Callable[[Path], bool]:
    @cache
    def names() -> frozenset[str]:
        return frozenset(plumbing.git(checkout, "ls-files", "-z", "--", FOLDER, *AT_ROOT).out.split("\0"))

    def is_tracked(path: Path) -> bool:
        return str(path.relative_to(checkout.top)) in names()

    return is_tracked
