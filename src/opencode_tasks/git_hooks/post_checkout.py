"""post-checkout: a new `task/…` branch becomes a task, a known one is resumed, the one left is paused.

Never blocks git. Never waits for Docker, but for one: the container of a task that loses
its work tree is frozen before git returns, so that it cannot write into the next one's files.
"""

import sys
from collections.abc import Sequence

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import handover
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.workspaces import Switch, switch
from opencode_tasks.opencode import present
from opencode_tasks.store import Store, link

ACTOR = "hook:post-checkout"


def main(args: Sequence[str], store: Store, checkout: Checkout, config: Config) -> int:
    del args
    done = switch(store, checkout, config, actor=ACTOR)
    if done.entered is not None:
        link.ensure(checkout.top, store.layout)  # a worktree made by hand has none yet
    notes = handover.after(store, checkout, config, done.left, None)
    notes += present.keep_up(checkout, thorough=True)
    if done.entered is not None and config.workspace.submodules and (checkout.top / ".gitmodules").exists():
        from opencode_tasks.git import submodule_trees

        # Between the two containers: nobody exchanges a folder for a link while git writes there.
        notes += submodule_trees.prepare(checkout).lines
    notes += handover.after(store, checkout, config, None, done.entered)
    for line in (*done.notes, *notes, *_created(done)):
        sys.stderr.write(f"opencode-tasks: {line}\n")
    return 0


def _created(done: Switch) -> tuple[str, ...]:
    if not done.created or done.entered is None:
        return ()
    return (f"task {done.entered.id} created",)
