"""Whether checkpoints are what they say, and the task's index what lies on the disk."""

from collections.abc import Sequence
from typing import Any

from opencode_tasks.checkpoints import known, layer, snapshot
from opencode_tasks.checkpoints.capture import capture
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import TaskError
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import replace


def objects(store: Store, checkout: Checkout, task_id: str, found: Sequence[Checkpoint]) -> list[str]:
    """What is missing or damaged of these checkpoints, in words."""
    shadow = Shadow(store, task_id, checkout)
    problems = []
    for one in found:
        ref = shadow.git("rev-parse", "--verify", "--quiet", shadow.ref(one.number), check=False).out.strip()
        if ref != one.commit:
            problems.append(f"{one.id}: its ref is {'not there' if not ref else 'at something else'}")
    checked = shadow.git("fsck", "--no-dangling", "--no-progress", "--full", check=False)
    if checked.code != 0:
        problems += [f"git: {line}" for line in (checked.out + checked.err).splitlines() if line.strip()]
    bigs: dict[str, Any] = layer.as_big(found)
    for one in found:
        try:
            bigs |= {kept["digest"]: kept for kept in snapshot.extras_of(shadow, one).big.values()}
        except TaskError as e:
            problems.append(f"{one.id}: {e.message}")
    if bigs:
        from opencode_tasks.checkpoints import big

        problems += big.problems(shadow, list(bigs.values()))
    return problems


def workspace(store: Store, task: Task) -> list[str]:
    """Reads every file again. What the index had wrong is right at the next checkpoint.

    The caller holds the task's container still.
    """
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task)
        tree = capture(shadow).tree
        paths = shadow.paths("ls-files", "-z")
        kept, shadow.index = shadow.index, shadow.place / "cold"
        try:
            shadow.git("read-tree", "--empty")
            shadow.update([], paths)
            cold = shadow.write_tree()
            words = ("diff-tree", "-r", "-z", "--no-renames", "--name-only")
            wrong = shadow.paths(*words, tree, cold) if cold != tree else []
        finally:
            shadow.index.unlink(missing_ok=True)
            shadow.index = kept
        if wrong:
            shadow.index.unlink()
            known.write(shadow, replace(known.read(shadow), roots={}))
        return [f"{path}: the index of the checkpoints had it wrong; the next one has it right" for path in wrong]
