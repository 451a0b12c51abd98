"""pre-push: warns when a task's branch is pushed while some of its children are not done. Never blocks git."""

import os
import sys
from collections.abc import Sequence

from opencode_tasks.config_sections import Config
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store

_HEADS = "refs/heads/"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del args, config
    tied = plumbing.tasks_by_branch(checkout)
    for name in _pushed():
        branch = plumbing.head_branch(checkout) if name == "HEAD" else name.removeprefix(_HEADS)
        task_id = tied.get(branch or "")
        if task_id is None:
            continue
        unfinished = [child for child in store.get(task_id).children if store.get(child).is_open]
        if unfinished:
            shown = ", ".join(unfinished[:5]) + (", …" if len(unfinished) > 5 else "")
            sys.stderr.write(f"opencode-tasks: {len(unfinished)} children of task {task_id} are not done: {shown}\n")
    return 0


def _pushed() -> list[str]:
    """The local references: a line for each from git; from pre-commit one, in a variable."""
    one = os.environ.get("PRE_COMMIT_LOCAL_BRANCH")
    if one:
        return [one]
    return [line.split(b" ")[0].decode("utf-8", "surrogateescape") for line in sys.stdin.buffer.read().splitlines()]
