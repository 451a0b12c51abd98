"""Programs that files go through on their way to the disk, such as git-lfs: why a checkout ended at one of them."""

import os
import re

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files

_MOST_READ_B = 256 * 1024
_LFS = b"filter=lfs"


def in_the_way(checkout: Checkout, start: str, *, has_failed: bool) -> tuple[str, str] | None:
    """The filter without which the files of `start` are not written, and the next step.

    Before git has failed: only one whose program is not there. Git takes a file away before it asks for the new one.
    """
    import shutil

    required = _settings(checkout, r"^filter\..*\.required$")
    needed = [key.split(".", 1)[1].removesuffix(".required") for key, said in required.items() if said != "false"]
    listed = ("ls-tree", "--full-tree") if has_failed else ("diff-tree", "--no-renames", "HEAD")
    used = _used(checkout, *listed, "-r", "-z", "--name-only", start) if needed else set()
    for name in [name for name in needed if name in used]:
        said = _settings(checkout, rf"^filter\.{re.escape(name)}\.(process|smudge)$")
        needs = f"Files go through filter {name} (filter.{name}.required)"
        program = _program(said.get(f"filter.{name}.process") or said.get(f"filter.{name}.smudge") or "")
        pointers = "; GIT_LFS_SKIP_SMUDGE=1 in front of it leaves the pointers" if name == "lfs" else ""
        if shutil.which(program) is None:
            return (
                f"{needs}, and there is no {program or 'program for it'}",
                f"install {program or name}, then run the command again{pointers}; nothing was changed",
            )
        if not has_failed:
            continue
        return (
            f"{needs}, and {program} failed; its own words are above",
            f"have {program} get what it lacks, then run the command again{pointers}; nothing was changed",
        )
    return None


def only_pointers(checkout: Checkout) -> str:
    """A note for whoever has files of git-lfs, and no git-lfs: git is content with that. Else empty."""
    try:
        fd = files.open_without_links(f"{checkout.top}/.gitattributes", os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as f:
            has_any = _LFS in f.read(_MOST_READ_B)
    except OSError:
        return ""
    if not has_any or _settings(checkout, r"^filter\.lfs\.(process|smudge)$"):
        return ""
    return "files kept by git-lfs are only pointers here; to have them: git lfs install --local && git lfs pull"


def _used(checkout: Checkout, *words: str) -> set[str]:
    """The filters of the paths that a command of git lists, as far as the attributes here say so."""
    paths_b = plumbing.git(checkout, *words).out_b
    told = plumbing.git(checkout, "check-attr", "-z", "--stdin", "filter", stdin_b=paths_b).out
    return set(told.split("\0")[2::3])


def _settings(checkout: Checkout, pattern: str) -> dict[str, str]:
    entries = plumbing.git(checkout, "config", "-z", "--get-regexp", pattern, check=False).out.split("\0")
    return {key: said for key, _, said in (entry.partition("\n") for entry in entries) if key}


def _program(command: str) -> str:
    """The first word of what the shell is given."""
    import shlex

    try:
        return next(iter(shlex.split(command)), "")
    except ValueError:
        return command.partition(" ")[0]
