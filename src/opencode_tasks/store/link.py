"""`.tasks` in a work tree: a link to the store, for people. Code never goes through it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from opencode_tasks.store import files
from opencode_tasks.store.layout import LINK, Layout

State = Literal["right", "missing", "wrong"]


def state(top: Path, layout: Layout) -> State:
    """`wrong`: something else has the name, and is left alone."""
    link = top / LINK
    if not os.path.lexists(link):
        return "missing"
    # Not Path.resolve: it raises for a link to itself.
    if link.is_symlink() and os.path.realpath(link) == os.path.realpath(layout.store):
        return "right"
    return "wrong"


def ensure(top: Path, layout: Layout) -> State:
    """Make the link when its name is free; what is true afterwards."""
    found = state(top, layout)
    if found != "missing":
        return found
    # Relative in the main checkout, so that the whole may be moved.
    inside = layout.store.is_relative_to(top)
    target = layout.store.relative_to(top) if inside else layout.store
    with files.refused_writes(top / LINK), suppress(FileExistsError):  # another process was first
        (top / LINK).symlink_to(target, target_is_directory=True)
    return state(top, layout)


def remove(top: Path, layout: Layout) -> bool:
    if state(top, layout) != "right":
        return False
    (top / LINK).unlink()
    return True
