"""reference-transaction: a task's branch is deleted; its memory stays, and says where the branch was. Never blocks git.

Git drops the branch's configuration, and with it the tie to the task, only after this.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress

from opencode_tasks.config_sections import Config
from opencode_tasks.git import plumbing, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store

ACTOR = "hook:reference-transaction"
_HEADS = "refs/heads/"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    """Git deletes a branch in two steps, the packed reference first; what the shim has noted is told once."""
    del args, config
    if (checkout.common_dir / "logs" / "refs" / ".tmp-renamed-log").exists():
        return 0  # a rename, half way; git carries the tie along
    tips, tied = _noted(store), plumbing.tasks_by_branch(checkout)
    gone = [name for name in sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split() if name in tips]
    gone = [name for name in gone if plumbing.commit_of(checkout, name) is None]
    if gone:
        store.layout.deleting.unlink(missing_ok=True)
    for name in gone:
        branch, tip = name.removeprefix(_HEADS), tips[name]
        task_id = tied.get(branch)
        if task_id is None or plumbing.commit_of(checkout, tip) is None:
            continue
        others = [b for b, tied_id in tied.items() if tied_id == task_id and b != branch]
        if any(plumbing.commit_of(checkout, _HEADS + other) for other in others):
            continue  # `git branch -c` copied the tie
        task = workspaces.tied(store, checkout, branch) or store.get(task_id)  # it may have been renamed, unseen
        store.record(task_id, ("branch.deleted", {"branch": branch, "tip": tip}), actor=ACTOR)
        if task.is_open:
            back = f"git branch {branch} {tip[:12]} brings its branch back"
            sys.stderr.write(f"opencode-tasks: task {task_id} keeps its memory; {back}\n")
    return 0


def _noted(store: Store) -> dict[str, str]:
    """Where the branches were just before, by the name of the reference."""
    with suppress(OSError, ValueError):
        content = store.layout.deleting.read_bytes().decode("utf-8", "surrogateescape")
        return {name: tip for tip, _, name in (line.partition(" ") for line in content.splitlines())}
    return {}
