"""post-commit: records the commit in its task, says which other tasks changed the same files, and checks the steps of
the plan that it says it does.

Never blocks git.
"""

import sys
from collections.abc import Sequence

from opencode_tasks.config_sections import Config
from opencode_tasks.git import overlap_warning, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import switch, task_here
from opencode_tasks.git_hooks import commits
from opencode_tasks.proc import detach
from opencode_tasks.store import Store, plan_edits

ACTOR = "hook:post-commit"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del args
    branch = plumbing.head_branch(checkout)
    # Before the first commit of an orphan branch there was nothing to make its task from.
    task = task_here(store, checkout) or switch(store, checkout, config, actor=ACTOR).entered
    if branch is None or task is None:
        return 0  # in a rebase HEAD is detached: its commits are not yet the branch's
    said = commits.record(store, checkout, task, branch, actor=ACTOR)
    if config.git.overlaps:
        for line in overlap_warning.lines(store, checkout, task.id):
            sys.stderr.write(f"opencode-tasks: {line}\n")
    if config.checkpoint.automatic == "commands" and config.checkpoint.background:
        argv = (sys.executable, "-I", "-m", "opencode_tasks", "checkpoint", task.id, "--auto")
        detach(argv, cwd=checkout.top, log=store.layout.background_log)
    # The last: of a plan that cannot be edited it raises, and says so.
    if said is not None:
        plan_edits.check_by_commit(store, task.id, said, match_words=config.plan.match_words, actor=ACTOR)
    return 0
