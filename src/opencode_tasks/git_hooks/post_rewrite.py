"""post-rewrite: which commits a rebase has made of which. Never blocks git."""

import sys
from collections.abc import Sequence

from opencode_tasks.config_sections import Config
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import task_here
from opencode_tasks.git_hooks import commits
from opencode_tasks.store import Store

ACTOR = "hook:post-rewrite"
_MOST = 1000


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    """Several commits may have become one. Of more than a thousand the last ones are told."""
    del config
    task, head, branch = task_here(store, checkout), plumbing.head_commit(checkout), plumbing.head_branch(checkout)
    if task is None or head is None or branch is None:
        return 0
    said = sys.stdin.buffer.read().decode(errors="replace")
    pairs = [words[:2] for line in said.splitlines() if len(words := line.split()) > 1]
    if not pairs and task.commits.last is not None:
        pairs = commits.guessed(checkout, task.commits.last, head)  # whoever carries the hook did not pass them on
    if not pairs:
        return 0
    data = {"by": args[0], "branch": branch, "head": head, "rewritten": pairs[-_MOST:]}
    store.record(task.id, ("commit.rewritten", data), actor=ACTOR)
    return 0
