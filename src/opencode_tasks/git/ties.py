"""Which branches carry a task's id, as git's configuration says, remembered for as long as that file says the same.

Asking git takes as long as all else that a command does before it begins. Files that `config` takes in do not count
for git either, when it is asked for `--local`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from opencode_tasks.store import notes
from opencode_tasks.store.layout import Layout

Ties = dict[str, str]


def read(common_dir: Path, ask: Callable[[], Ties]) -> Ties:
    """What `ask` gives, or gave for the very same content of `config`."""
    return notes.of_content(Layout(common_dir).ties, common_dir / "config", ask)


@contextmanager
def added(common_dir: Path, key: str, branch: str, task_id: str) -> Iterator[None]:
    """While git writes one more tie. When that is all that it wrote, nobody needs to ask it again."""
    note, config = Layout(common_dir).ties, common_dir / "config"
    before_b = notes.content(config)
    yield
    if before_b is None or any(c in branch for c in '"\\\n'):
        return
    known = notes.noted(note, before_b)
    after_b = before_b + os.fsencode(f'[branch "{branch}"]\n\t{key} = {task_id}\n')
    if known is not None and notes.content(config) == after_b:
        notes.note_down(note, after_b, {**known, branch: task_id})
