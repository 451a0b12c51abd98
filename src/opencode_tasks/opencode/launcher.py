"""`tasksh` as it lies on this disk: the asset, with the interpreter and the folders of this installation in it."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from opencode_tasks import assets
from opencode_tasks.marked import marked, state
from opencode_tasks.store import files

NAME = "tasksh"  # by the names of shells that it knows, OpenCode gives other arguments
NEEDED = (
    *("opencode_tasks", "blake3", "docker", "filelock", "git", "jsonlines", "markdown_it", "yaml", "pyfastcdc", "rich"),
    *("tomli_w", "tree_sitter", "tree_sitter_bash", "zstandard"),
)
_FOLDERS = re.compile(rb"^FOLDERS = \[\]", re.MULTILINE)
_LONGEST_LINE_B = 127  # of `#!`, by Linux before 5.1


def path_in(root: Path) -> Path:
    return root / "bin" / NAME


def content(python: str, folders: Sequence[str]) -> bytes:
    asset_b = (assets.root() / "opencode_hooks" / NAME).read_bytes()
    code_b = _FOLDERS.sub(lambda _: b"FOLDERS = " + ascii(list(folders)).encode(), asset_b)
    first_b = b"#!" + os.fsencode(python) + b" -IS\n"
    if len(first_b) <= _LONGEST_LINE_B and len(first_b.split()) == 2:
        return marked(first_b + code_b, "")
    # A line that the kernel would cut: the shell starts what it cannot name.
    call_b = os.fsencode(f"exec {shlex.quote(python)} -IS -c {shlex.quote(code_b.decode())} ") + b'"$@"\n'
    return marked(b"#!/bin/sh\n" + call_b, "")


def folders() -> list[str]:
    """Those on our own path that hold us and what we need, in its order."""
    found = {os.path.dirname(os.path.dirname(place)) for name in NEEDED if (place := _place(name))}  # noqa: PTH120
    return list(dict.fromkeys(folder for folder in map(os.path.abspath, sys.path) if folder in found))


def _place(name: str) -> str | None:
    """The file that would be loaded, of a package; of a module beside packages, as if it were one."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return spec.origin if spec.submodule_search_locations else os.path.join(spec.origin, "")  # noqa: PTH118


def install(root: Path, python: str = sys.executable) -> bool:
    """Whether there was anything to do."""
    path, content_b = path_in(root), content(python, folders())
    if is_current(root, python) and path.read_bytes() == content_b:
        return False
    with files.refused_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content_b)
        path.chmod(0o755)
    return True


def is_current(root: Path, python: str = sys.executable) -> bool:
    path = path_in(root)
    if state(path) != "ours" or not os.access(path, os.X_OK):
        return False
    return path.read_bytes() == content(python, folders())


def remove(root: Path) -> bool:
    path = path_in(root)
    if state(path) in ("missing", "foreign"):
        return False
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()
    return True
