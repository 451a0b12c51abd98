"""prepare-commit-msg: the `Task-Id:` trailer for a message that is there already (-m, -F, merge, amend).

Never blocks git.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import handover
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import switch
from opencode_tasks.git_hooks import trailer
from opencode_tasks.store import Store

ACTOR = "hook:prepare-commit-msg"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    # The branch may have been checked out while hooks were off.
    done = switch(store, checkout, config, actor=ACTOR)
    for note in handover.after(store, checkout, config, done.left, done.entered if done.created else None):
        sys.stderr.write(f"opencode-tasks: {note}\n")
    task = done.entered
    if task is not None:
        is_template = args[1:2] == ["template"]
        trailer.remember_template(checkout, Path(args[0]) if is_template else None)
        if not is_template:
            trailer.add(checkout, Path(args[0]), task.id)
    return 0
