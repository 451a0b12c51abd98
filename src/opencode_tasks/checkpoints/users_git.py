"""What of the user's own git a checkpoint goes by: which files are ignored, and which are converted."""

import json
import os
from contextlib import suppress
from pathlib import Path

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files


def exclude(source: Checkout) -> bytes:
    """The patterns of the project's `info/exclude`, and our own."""
    try:
        own = (source.common_dir / "info" / "exclude").read_bytes()
    except FileNotFoundError:
        own = b""
    return own + b"\n/.tasks\n"


def settings(source: Checkout) -> dict[str, str]:
    """Of the user's, what says which files are ignored and which are converted."""
    words = (
        "config",
        "-z",
        "--type=path",
        "--get-regexp",
        r"^(core\.(excludesfile|attributesfile|autocrlf|eol)|extensions\.objectformat)$",
    )
    found = plumbing.git(source, *words, check=False)
    pairs = (entry.partition("\n") for entry in found.out.split("\0") if entry)
    return {key: value for key, _, value in pairs}


def settings_at(kept: Path, source: Checkout) -> dict[str, str]:
    """`settings`, as long as the files that git reads them from look as they did."""
    home = Path.home()
    named = (os.environ.get(name) for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"))
    places = (
        *(source.common_dir / "config", source.git_dir / "config.worktree", Path("/etc/gitconfig")),
        *(home / ".gitconfig", Path(personal("config")), *(Path(name) for name in named if name)),
    )
    looks = [[str(place), files.stamp(place)] for place in places]
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_bytes())
        if known["looks"] == looks:
            return {str(key): str(value) for key, value in known["said"].items()}
    said = settings(source)
    if not any(_includes_others(place) for place in places):
        files.replace(kept, json.dumps({"looks": looks, "said": said}).encode())
    return said


def _includes_others(path: Path) -> bool:
    """What those say may change without this file."""
    try:
        return b"include" in path.read_bytes().lower()
    except OSError:
        return False


def personal(name: str) -> str:
    """A file of git's for everything that this person does."""
    return f"{os.environ.get('XDG_CONFIG_HOME') or str(Path.home() / '.config')}/git/{name}"
