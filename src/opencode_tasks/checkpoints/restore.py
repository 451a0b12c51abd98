"""Going back to a checkpoint, with a checkpoint of the present taken first.

Invariant: delete or overwrite only what that pre-restore checkpoint holds. No `git clean`,
no `reset --hard`, no `stash`; no branch, no HEAD and no index of the user's is moved.
"""

from collections.abc import Sequence

from opencode_tasks.checkpoints import applying, journal, known, memory, partial, planning, snapshot
from opencode_tasks.checkpoints.capture import Contents, capture
from opencode_tasks.checkpoints.extras import by_root
from opencode_tasks.checkpoints.layer import Layer
from opencode_tasks.checkpoints.partial import Wanted
from opencode_tasks.checkpoints.planning import Plan
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import replace


def preview(
    store: Store, task: Task, target: Checkpoint, *, only: Sequence[str] = (), ignored: Sequence[str] = ()
) -> Plan:
    """What `restore` would do now. Changes nothing."""
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task, ignored=ignored)
        found = capture(shadow)
        wanted = partial.wanted(shadow, found, target, only)
        return planning.plan(store, task, shadow, found, wanted, target)


def restore(
    store: Store,
    task: Task,
    target: Checkpoint,
    *,
    actor: str,
    only: Sequence[str] = (),
    ignored: Sequence[str] = (),
    own: Layer | None = None,
) -> tuple[Checkpoint, Plan]:
    """The checkpoint that undoes it, and what was changed. `only`: files and folders, from the workspace's top;
    `ignored`: as for taking a checkpoint; `own`: what the container has now, for the one that undoes it.

    The caller holds the task's container still. Raises `ConflictError` when a file was
    changed meanwhile: nothing is overwritten then.
    """
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task, ignored=ignored)
        finish(store, task, shadow, actor=actor)
        return _restore(store, task, shadow, target, actor=actor, only=only, own=own)


def settle(store: Store, task: Task, *, actor: str, ignored: Sequence[str] = ()) -> str | None:
    """`finish`, for a caller that has nothing open yet. Costs one look at a file when there is nothing to do."""
    if not journal.path(store, task.id).exists():
        return None
    with store.checkpoint_lock(task.id):
        return finish(store, task, snapshot.open_shadow(store, task, ignored=ignored), actor=actor)


def finish(store: Store, task: Task, shadow: Shadow, *, actor: str) -> str | None:
    """A restore that was killed is brought to its end. The checkpoint that it went to; None: there was none.

    What it left is in a checkpoint of its own then: somebody may have worked on since.
    """
    begun = journal.read(shadow)
    if begun is None:
        return None
    target = snapshot.named(store, task, begun.to)
    _restore(store, task, shadow, target, actor=actor, only=begun.only, begun=begun)
    return target.id


def _restore(
    store: Store,
    task: Task,
    shadow: Shadow,
    target: Checkpoint,
    *,
    actor: str,
    only: Sequence[str],
    begun: journal.Begun | None = None,
    own: Layer | None = None,
) -> tuple[Checkpoint, Plan]:
    found = memory.contents(shadow)
    wanted = partial.wanted(shadow, found, target, only)
    plan = planning.plan(store, task, shadow, found, wanted, target)
    if plan.collisions:
        found = _with(shadow, found, plan.collisions)
    label = f"before restoring {target.id}" if begun is None else f"found half restored to {target.id}"
    kept = snapshot.commit(
        store, shadow, task, found, kind="pre-restore", label=label, actor=actor, own=own, spared=target.layer
    )
    undo = kept if begun is None else snapshot.named(store, task, begun.undo)
    journal.write(shadow, journal.Begun(target.id, undo.id, tuple(only)))
    try:
        applying.apply(shadow, found, wanted, plan)
    except ConflictError as e:
        journal.remove(shadow)
        raise ConflictError(
            f"The workspace changed while it was being restored:\n{e.message}",
            hint=f"what was there is in checkpoint {kept.id}; run the command again",
        ) from e
    _verify(shadow, wanted, target, undo)
    done = {
        "to": target.id,
        "undo": undo.id,
        "added": len(plan.added),
        "changed": len(plan.changed),
        "deleted": len(plan.deleted),
        "collisions": list(plan.collisions),
        **({"only": list(only)} if only else {}),
    }
    store.record(task.id, ("checkpoint.restored", done), actor=actor)
    now = known.read(shadow)
    roots = applying.looks(shadow, found, wanted, plan)
    now = replace(now, roots=roots)
    if not only:
        now = replace(now, of=target.id, trees={"": wanted.tree, **wanted.extras.roots})
    known.write(shadow, now)
    journal.remove(shadow)
    return undo, plan


def _with(shadow: Shadow, found: Contents, collisions: Sequence[str]) -> Contents:
    """With the ignored files that stand in the way."""
    trees = dict(found.extras.roots)
    tree = found.tree
    for root, paths in by_root(collisions, trees).items():
        at = shadow.inner(root) if root else shadow
        at.update([], paths)
        if root:
            trees[root] = at.write_tree()
        else:
            tree = at.write_tree()
    return replace(found, tree=tree, extras=replace(found.extras, roots=trees))


def restore_memory(
    store: Store, task: Task, target: Checkpoint, *, actor: str, ignored: Sequence[str] = ()
) -> tuple[Checkpoint, list[str]]:
    """Of plan.md and decisions.md: the checkpoint that undoes it, and which of them were changed. No other file is."""
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task, ignored=ignored)
        finish(store, task, shadow, actor=actor)
        extras = snapshot.extras_of(shadow, target)
        label = f"before restoring the memory of {target.id}"
        found = memory.contents(shadow)
        undo = snapshot.commit(store, shadow, task, found, kind="pre-restore", label=label, actor=actor)
        changed = memory.restore(store, shadow, extras, actor=actor)
        done = {"to": target.id, "undo": undo.id, "added": 0, "changed": len(changed), "deleted": 0, "memory": True}
        store.record(task.id, ("checkpoint.restored", {**done, "collisions": []}), actor=actor)
    return undo, changed


def undo_of_last(store: Store, task: Task) -> tuple[Checkpoint, bool]:
    """The pre-restore checkpoint of the newest restore, and whether it was of the memory. Raises `TaskError`."""
    restored = [e.data for e in store.history(task.id) if e.type == "checkpoint.restored"]
    if not restored:
        raise TaskError(f"Nothing was restored in task {task.id} yet", code="no_checkpoint")
    return snapshot.named(store, task, restored[-1]["undo"]), bool(restored[-1].get("memory"))


def _verify(shadow: Shadow, wanted: Wanted, target: Checkpoint, undo: Checkpoint) -> None:
    # Not the whole tree: with the target's .gitignore, files that were ignored may be so no longer.
    if applying.changed(shadow, wanted):
        journal.remove(shadow)
        raise TaskError(
            f"After restoring, the workspace is not what checkpoint {target.id} holds: something wrote to it meanwhile",
            hint=f"opencode-tasks restore-checkpoint {undo.id}, then try again",
            code="not_verified",
        )
