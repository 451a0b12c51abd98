"""Which branches carry a task's id, as git's configuration says, remembered for as long as that file is the same.

Asking git takes as long as all else that a command does before it begins. Files that `config` takes in do not count
for git either, when it is asked for `--local`.
"""

from collections.abc import Callable
from pathlib import Path

from opencode_tasks.store import notes
from opencode_tasks.store.layout import Layout

Ties = dict[str, str]


def read(common_dir: Path, ask: Callable[[], Ties]) -> Ties:
    """What `ask` gives, or gave for the very same `config`."""
    return notes.of_file(Layout(common_dir).ties, common_dir / "config", ask)
