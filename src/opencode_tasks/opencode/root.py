"""OpenCode's two configuration files at the root of a work tree, where nobody has them: kept without any setting.

OpenCode obeys them, and starts on the host what they name. One that is there is read-only in a container; one that is
not there an agent could make.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from opencode_tasks.marked import marked, state
from opencode_tasks.opencode.present import AT_ROOT
from opencode_tasks.store import files

_CONTENT = """\
// Kept by opencode-tasks, so that no agent can write one: OpenCode runs what stands in here, on your machine.
// Your own settings are welcome. git is told not to look at this file: git add -f commits it.
{
  "$schema": "https://opencode.ai/config.json"
}
"""


def content() -> bytes:
    return marked(_CONTENT.encode(), ".jsonc")


def put(top: Path, *, is_tracked: Callable[[Path], bool], allowed: Collection[str]) -> list[str]:
    """The names that were made. Only of `allowed`, which git is told to leave alone."""
    made = [name for name in AT_ROOT if name in allowed and not is_tracked(top / name) and _is_due(top / name)]
    with files.refused_writes(top):
        for name in made:
            files.replace(top / name, content())
    return made


def _is_due(path: Path) -> bool:
    found = state(path)
    return found == "missing" or (found == "ours" and path.read_bytes() != content())


def remove(top: Path, *, is_tracked: Callable[[Path], bool]) -> list[str]:
    gone = [name for name in AT_ROOT if state(top / name) == "ours" and not is_tracked(top / name)]
    for name in gone:
        (top / name).unlink()
    return gone
