"""post-merge: records a merge on a task's branch, and the tasks whose branches are merged in now. Never blocks git."""

import sys
from collections.abc import Sequence

from opencode_tasks.config_sections import Config
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import task_here
from opencode_tasks.git_hooks import commits
from opencode_tasks.store import Store

ACTOR = "hook:post-merge"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del config
    branch, head = plumbing.head_branch(checkout), plumbing.head_commit(checkout)
    if branch is None or head is None or args[:1] == ["1"]:
        return 0  # of a squash there is no commit yet
    here = task_here(store, checkout)
    if here is not None:
        commits.record(store, checkout, here, branch, actor=ACTOR)
    arrived = set(plumbing.merged_branches(checkout, "HEAD", but_not="ORIG_HEAD"))
    for name, task_id in plumbing.tasks_by_branch(checkout).items():
        if name not in arrived or name == branch:
            continue
        task = store.get(task_id)
        tip = plumbing.commit_of(checkout, f"refs/heads/{name}")
        if task.is_open and tip != task.base.commit:
            merged = {"branch": name, "tip": tip, "into": branch, "head": head}
            store.record(task_id, ("branch.merged", merged), actor=ACTOR)
            next_step = f"when it is done: opencode-tasks complete-task {task_id}"
            sys.stderr.write(f"opencode-tasks: task {task_id} is merged into {branch}; {next_step}\n")
    return 0
