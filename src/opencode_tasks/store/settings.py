"""The settings' file, remembered as it was read: to read TOML takes as long as git does."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencode_tasks.store import notes
from opencode_tasks.store.layout import Layout

if TYPE_CHECKING:
    from opencode_tasks.config import Through


def through(layout: Layout) -> "Through":
    """One file is remembered: the one that was read last."""

    def read(path: Path, parse: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return notes.of_file(layout.settings, path, parse)

    return read
