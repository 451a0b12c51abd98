"""Whether our set is in a work tree: a look at three files, for what runs often."""

import json
import os
from pathlib import Path
from typing import Any

from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from opencode_tasks.store.layout import FOLDER as ROOT

FOLDER = ".opencode"
PLUGIN = "plugins/opencode-tasks.js"
AT_ROOT = ("opencode.jsonc", "opencode.json")
RECORD = "opencode-tasks.json"
"""In the git directory of each work tree: it goes when that goes."""


def is_set_up(checkout: Checkout) -> bool:
    """Whether `init` wanted it in this repository."""
    return os.path.lexists(checkout.common_dir / ROOT / "bin")


def is_known(checkout: Checkout) -> bool:
    """Whether this work tree has ever had it."""
    return os.path.lexists(checkout.git_dir / RECORD)


def is_untouched(checkout: Checkout) -> bool:
    """Whether the plugin and the file with `shell` are as we left them."""
    try:
        record = json.loads((checkout.git_dir / RECORD).read_bytes())
        return bool(record["stamps"] == stamps(checkout.top / FOLDER, record))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep_up(checkout: Checkout, *, thorough: bool = False) -> list[str]:
    """Bring it into a work tree that never had it, and say what a person should know.

    `thorough`: also where it was touched since, as a checkout does that writes over what git ignores.
    """
    if not is_set_up(checkout) or (is_untouched(checkout) if thorough else is_known(checkout)):
        return []
    from opencode_tasks.opencode import project

    return project.keep_up(checkout)


def stamps(folder: Path, record: dict[str, Any]) -> list[list[int] | None]:
    paths = [folder / name for name in (PLUGIN, record["config"])]
    paths += [folder.parent / name for name in AT_ROOT]
    return [None if (seen := files.stamp(path)) is None else seen[1:] for path in paths]  # a copy has another inode
