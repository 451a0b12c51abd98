"""Sparse checkouts: tracked files that are not on the disk because nobody wants them there."""

import os

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout


def left_out(checkout: Checkout) -> frozenset[str]:
    """The paths that git passes over (`skip-worktree`). Costs one look at a file where there are none."""
    if not (checkout.git_dir / "info" / "sparse-checkout").exists():
        return frozenset()
    listed = plumbing.git(checkout, "ls-files", "-t", "-z").out_b.split(b"\0")
    return frozenset(os.fsdecode(entry[2:]) for entry in listed if entry.startswith(b"S "))
