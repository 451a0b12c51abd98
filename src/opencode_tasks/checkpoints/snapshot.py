"""Taking a checkpoint: tracked and untracked files as they are, ignored ones left out."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from opencode_tasks.checkpoints.shadow import Shadow, pathspec_input
from opencode_tasks.errors import TaskError
from opencode_tasks.events import Event, dumps
from opencode_tasks.git import discovery, plumbing, sparse
from opencode_tasks.store import Store, files
from opencode_tasks.task import Task
from opencode_tasks.values import value

Kind = Literal["manual", "auto", "pre-restore", "milestone"]


@value
class Skipped:
    path: str
    reason: str


@value
class Checkpoint:
    """`changed`: paths that differ from the checkpoint before. `head` and `branch` are only noted.

    `sparse`: a sparse checkout left tracked files out, of which this says nothing.
    """

    id: str
    kind: str
    label: str
    created_at: str
    changed: int
    commit: str
    tree: str
    head: str | None
    branch: str | None
    memory_rev: int
    skipped: tuple[Skipped, ...] = ()
    sparse: bool = False


@dataclass
class Walk:
    """What differs between the index and the disk."""

    gone: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def take(store: Store, task: Task, *, kind: Kind, label: str, actor: str) -> tuple[Checkpoint, bool]:
    """The checkpoint, and whether it is new: without a label, an unchanged workspace gives the last one.

    The caller holds the task's container still.
    """
    with store.checkpoint_lock():
        shadow = open_shadow(store, task)
        tree, skipped = capture(shadow)
        last = listed(store, task.id)[-1:]
        if last and last[0].tree == tree and not label:
            return last[0], False
        return commit(store, shadow, task, tree, skipped, kind=kind, label=label, actor=actor), True


def open_shadow(store: Store, task: Task) -> Shadow:
    workspace = Path(task.workspace.path)
    if not workspace.is_dir():
        raise TaskError(f"The workspace of {task.id} is gone: {workspace}", code="workspace")
    shadow = Shadow(store, task.id, discovery.find(workspace, {}))
    shadow.ensure()
    return shadow


def capture(shadow: Shadow) -> tuple[str, tuple[Skipped, ...]]:
    """Bring the task's index to what is on disk; the tree it makes."""
    differing = changed_on_disk(shadow)
    untracked = shadow.paths("ls-files", "--others", "--exclude-standard", "-z")
    walk = look(shadow.workspace, [*differing, *untracked, *_tracked_though_ignored(shadow)])
    update(shadow, walk.gone, walk.present)
    return shadow.git("write-tree").out.strip(), tuple(walk.skipped)


def changed_on_disk(shadow: Shadow) -> list[str]:
    """What is not as the task's index has it. Not what a sparse checkout has taken away since: it was not deleted."""
    found = shadow.paths("diff-files", "--name-only", "-z", "--ignore-submodules=all")
    left_out = sparse.left_out(shadow.source) if found else frozenset()
    return [path for path in found if path not in left_out or os.path.lexists(shadow.workspace / path)]


def _tracked_though_ignored(shadow: Shadow) -> list[str]:
    """What the user added with --force: theirs to keep, whatever .gitignore says."""
    listed = plumbing.git(shadow.source, "ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    return [os.fsdecode(p) for p in listed.out_b.split(b"\0") if p]


def update(shadow: Shadow, gone: list[str], present: list[str]) -> None:
    if gone:
        shadow.git("update-index", "-z", "--force-remove", "--stdin", stdin_b=pathspec_input(gone))
    if present:
        shadow.git("update-index", "-z", "--add", "--remove", "--replace", "--stdin", stdin_b=pathspec_input(present))


def look(workspace: Path, paths: list[str]) -> Walk:
    """Sort `paths` by what lies there, never following a link on the way."""
    walk = Walk()
    real_dirs: dict[str, bool] = {"": True}
    for path in paths:
        if path.endswith("/"):
            walk.skipped.append(Skipped(path, "a repository of its own"))
            continue
        if ".git" in path.lower().split("/"):
            walk.skipped.append(Skipped(path, "git keeps no file of this name"))
            continue
        if not _below_real_dirs(workspace, path, real_dirs):
            walk.gone.append(path)
            continue
        try:
            mode = (workspace / path).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            walk.gone.append(path)
            continue
        if stat.S_ISDIR(mode):
            walk.gone.append(path)
        elif not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            walk.skipped.append(Skipped(path, "not a file: a pipe, socket or device"))
        elif stat.S_ISREG(mode) and not os.access(workspace / path, os.R_OK):
            walk.skipped.append(Skipped(path, "no permission to read it"))
        else:
            walk.present.append(path)
    return walk


def _below_real_dirs(workspace: Path, path: str, known: dict[str, bool]) -> bool:
    parent = path.rpartition("/")[0]
    if parent not in known:
        try:
            is_dir = stat.S_ISDIR((workspace / parent).lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_dir = False
        known[parent] = is_dir and _below_real_dirs(workspace, parent, known)
    return known[parent]


def commit(
    store: Store,
    shadow: Shadow,
    task: Task,
    tree: str,
    skipped: tuple[Skipped, ...],
    *,
    kind: Kind,
    label: str,
    actor: str,
) -> Checkpoint:
    """Give `tree` an id, a ref of its own and a place in the log, in this order: a kill loses no content."""
    before = shadow.numbers()
    number = max([*before, task.checkpoints.count], default=0) + 1
    changed = _differences(shadow, before[-1] if before else None, tree)
    commit_id = shadow.git("commit-tree", tree, "-m", f"c{number} {label or kind}").out.strip()
    shadow.git("update-ref", shadow.ref(number), commit_id, "0" * len(commit_id))
    source = discovery.find(shadow.workspace, {})
    data: dict[str, Any] = {
        "id": f"c{number}",
        "kind": kind,
        "label": label,
        "changed": changed,
        "commit": commit_id,
        "tree": tree,
        "head": plumbing.head_commit(source),
        "branch": plumbing.head_branch(source),
        "memory_rev": task.rev,
        "skipped": [vars(s) for s in skipped],
        **({"sparse": True} if sparse.left_out(source) else {}),
    }
    now = store.record(task.id, ("checkpoint.created", data), actor=actor)
    made = _of_data(data, now.updated_at)
    path = store.layout.checkpoint(task.id, made.id)
    path.parent.mkdir(exist_ok=True)
    files.replace(path, (dumps({**data, "created_at": made.created_at}) + "\n").encode())
    return made


def listed(store: Store, task_id: str) -> list[Checkpoint]:
    """Every checkpoint of the task, oldest first, as the log has them."""
    return [_of_event(e) for e in store.history(task_id) if e.type == "checkpoint.created"]


def named(store: Store, task: Task, text: str) -> Checkpoint:
    """By id (`c3`, `3`), by `latest`, or by label (the newest that has it). Raises `TaskError`."""
    found = listed(store, task.id)
    wanted = f"c{text}" if text.isdigit() else text
    for checkpoint in reversed(found):
        if wanted in (checkpoint.id, checkpoint.label) or wanted == "latest":
            return checkpoint
    there = ", ".join(c.id for c in found[-10:])
    raise TaskError(
        f"Task {task.id} has no checkpoint {text!r}",
        hint=f"the newest are {there}" if there else "opencode-tasks checkpoint",
        code="no_checkpoint",
    )


def _differences(shadow: Shadow, before: int | None, tree: str) -> int:
    if before is None:
        return len(shadow.paths("ls-tree", "-r", "-z", "--name-only", tree))
    return len(shadow.paths("diff-tree", "-r", "-z", "--no-renames", "--name-only", shadow.ref(before), tree))


def _of_event(event: Event) -> Checkpoint:
    return _of_data(event.data, event.ts)


def _of_data(data: Any, created_at: str) -> Checkpoint:
    skipped = tuple(Skipped(**s) for s in data["skipped"])
    plain = {k: v for k, v in data.items() if k != "skipped"}
    return Checkpoint(**plain, created_at=created_at, skipped=skipped)
