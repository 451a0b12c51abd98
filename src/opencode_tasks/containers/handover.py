"""What a change of branch means for containers, without importing docker-py.

The task that left is frozen before we return. The one that entered is brought up by a
process of its own, which nobody waits for.
"""

import sys
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import direct
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import detach
from opencode_tasks.store import Store
from opencode_tasks.task import Container, Task

ACTOR = "hook:post-checkout"


def after(store: Store, checkout: Checkout, config: Config, left: Task | None, entered: Task | None) -> list[str]:
    """Notes for the person: only what needs doing."""
    notes: list[str] = []
    if left is not None:
        notes += _freeze(store, checkout, left)
    if entered is not None and entered.is_open and config.container.autostart:
        follow_later(store, checkout, entered.id)
    return notes


def follow_later(store: Store, checkout: Checkout, task_id: str) -> None:
    """Bring the task's container to where its status wants it, in the background."""
    argv = (sys.executable, "-I", "-m", "opencode_tasks", "reconcile", task_id)
    detach(argv, cwd=checkout.top, log=store.layout.background_log)


def quick_later(store: Store, top: Path) -> None:
    """`agreement.quick`, in the background."""
    argv = (sys.executable, "-I", "-m", "opencode_tasks", "reconcile", "--quick")
    detach(argv, cwd=top, log=store.layout.background_log)


def _freeze(store: Store, checkout: Checkout, left: Task) -> list[str]:
    """`left` is recorded as paused already, so whoever starts its container right now will pause it."""
    known = left.container
    if known.engine is None or known.name is None or known.state in ("none", "stopped"):
        return []
    outcome = direct.pause(known.engine, known.name)
    if outcome in ("done", "already"):
        store.record(left.id, ("container.changed", {**vars(known), "state": "paused"}), actor=ACTOR)
    elif outcome == "refused" or (outcome == "unreachable" and _may_run(known)):
        follow_later(store, checkout, left.id)
        why = f"the container of {left.id} could not be paused (engine {known.engine}: {outcome})"
        return [f"{why}; it is tried again in the background. Check: opencode-tasks reconcile {left.id}"]
    return []


def _may_run(known: Container) -> bool:
    """An engine elsewhere has to be asked through docker-py; a dead one here may have left processes."""
    return known.engine is not None and (not known.engine.startswith("unix://") or direct.has_processes(known.id))
