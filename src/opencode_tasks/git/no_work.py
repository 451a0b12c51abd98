"""What lies in a work tree's `.opencode` and is nobody's work: unchanged files of ours, and what OpenCode makes there.

OpenCode installs its own package into every configuration directory when there is a plugin, and makes a `.gitignore`
for that.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from opencode_tasks.config import FILE
from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.marked import read, state

_FOLDER = FILE.parent.name
_INSTALLED = frozenset({"node_modules", "package.json", "package-lock.json", "bun.lock", "bun.lockb"})
_AT_ROOT = ("opencode.jsonc", "opencode.json")
_PACKAGE = "@opencode-ai/plugin"


def of(checkout: Checkout) -> Callable[[str], bool]:
    """For paths as git lists them: folders, with all that is in them, end with a slash."""

    @cache
    def is_installed() -> bool:
        return _is_opencodes_package(checkout.top / _FOLDER)

    def is_no_work(path: str) -> bool:
        folder, _, inner = path.partition("/")
        if folder != _FOLDER:
            return path in _AT_ROOT and state(checkout.top / path) == "ours"
        if inner.split("/")[0] in _INSTALLED:
            return is_installed()
        if inner == ".gitignore":
            return _is_opencodes_ignore(checkout.top / path)
        here = checkout.top / path
        if path.endswith("/") and not here.is_symlink():
            try:
                return all(
                    is_no_work(f"{path}{p.name}{'/' * (p.is_dir() and not p.is_symlink())}") for p in here.iterdir()
                )
            except OSError:
                return False
        return state(here) == "ours"

    return is_no_work


def is_only_settings(checkout: Checkout) -> bool:
    """Whether of `.opencode` nothing is new to git but the settings that `init` wrote."""
    try:
        listed = plumbing.git(checkout, "ls-files", "--others", "--exclude-standard", "-z", "--", f"{_FOLDER}/").out
    except TaskError:
        return False
    return [path for path in listed.split("\0") if path] == [str(FILE)]


def _is_opencodes_package(folder: Path) -> bool:
    try:
        said = json.loads(read(folder / "package.json"))
    except FileNotFoundError:
        return True  # what it left when it could not reach its registry
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and list(said) == ["dependencies"] and list(said["dependencies"]) == [_PACKAGE]


def _is_opencodes_ignore(path: Path) -> bool:
    try:
        lines = read(path).decode(errors="replace").split()
    except OSError:
        return False
    return set(lines) <= {*_INSTALLED, ".gitignore"}
