"""Takes back what a `git checkout` did to the files before a signal ended it.

Git removes its lock then and leaves HEAD where it was, but not the files: some are already those of the other
commit, some are gone, one may be half written. Of the index it has written all or nothing.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store.files import is_real
from opencode_tasks.values import value


@value
class Before:
    """What a checkout is going to touch, as bytes paths relative to the work tree. `entries`: lines of the index."""

    entries: Mapping[bytes, bytes]
    clean: frozenset[bytes]
    absent: frozenset[bytes]


def before(checkout: Checkout, target: str) -> Before:
    """Look at the files that differ between HEAD and the commit `target`.

    Raises `CommandError` from git.
    """
    names = _names(checkout, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "HEAD", target)
    changed = set(_names(checkout, "diff-files", "-z", "--name-only", "--ignore-submodules=all"))
    tracked = _entries(checkout)
    return Before(
        entries={name: tracked.get(name, b"") for name in names},
        clean=frozenset(name for name in names if name in tracked and name not in changed),
        absent=frozenset(name for name in names if name not in tracked and not _there(checkout, name)),
    )


def take_back(checkout: Checkout, was: Before) -> None:
    """The index is as it was; files that were as it has them are so again; files that were not there are gone."""
    now = _entries(checkout)
    lines = [line or b"0 %040d\t%s" % (0, name) for name, line in was.entries.items() if now.get(name, b"") != line]
    if lines:
        plumbing.git(checkout, "update-index", "-z", "--index-info", stdin_b=b"\0".join(lines) + b"\0")
    for name in sorted(was.absent):
        if _there(checkout, name):
            path = _path(checkout, name)
            with suppress(OSError):  # a folder, or gone meanwhile: not what git wrote
                path.unlink()
                os.removedirs(path.parent)
    named = b"\0".join(sorted(was.clean))
    if named:
        plumbing.git(checkout, "checkout-index", "--force", "-z", "--stdin", stdin_b=named + b"\0")


def _names(checkout: Checkout, *words: str) -> list[bytes]:
    return [name for name in plumbing.git(checkout, *words).out_b.split(b"\0") if name]


def _entries(checkout: Checkout) -> dict[bytes, bytes]:
    """Lines as `update-index --index-info` takes them. One that is unmerged is not among them."""
    lines = _names(checkout, "ls-files", "--stage", "-z")
    return {line.partition(b"\t")[2]: line for line in lines if line.partition(b"\t")[0].endswith(b" 0")}


def _there(checkout: Checkout, name: bytes) -> bool:
    """Itself, not something that a link on the way leads to."""
    path = _path(checkout, name)
    return os.path.lexists(path) and is_real(path.parent)


def _path(checkout: Checkout, name: bytes) -> Path:
    return checkout.top / os.fsdecode(name)
