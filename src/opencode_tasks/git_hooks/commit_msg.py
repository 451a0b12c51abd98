"""commit-msg: the `Task-Id:` trailer for a message that was written in an editor just now.

Never blocks git.
"""

from collections.abc import Sequence
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import task_here
from opencode_tasks.git_hooks import trailer
from opencode_tasks.store import Store


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del config
    task = task_here(store, checkout)
    if task is not None and not trailer.is_untouched_template(checkout, Path(args[0])):
        trailer.add(checkout, Path(args[0]), task.id)
    return 0
