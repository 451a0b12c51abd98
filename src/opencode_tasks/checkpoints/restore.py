"""Going back to a checkpoint, with a checkpoint of the present taken first.

Invariant: delete or overwrite only what that pre-restore checkpoint holds. No `git clean`,
no `reset --hard`, no `stash`; no branch, no HEAD and no index of the user's is moved.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.checkpoints.shadow import Shadow, pathspec_input
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.proc import CommandError
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import value


@value
class Plan:
    """What restoring changes: paths by kind. `collisions` are ignored files in the way, kept by the undo.

    `left` are files that the checkpoint has not, but its own .gitignore files ignore, or a sparse checkout had left
    out: it never said they were not there.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    collisions: tuple[str, ...]
    left: tuple[str, ...]
    head_moved: bool


def preview(store: Store, task: Task, target: Checkpoint) -> Plan:
    """What `restore` would do now. Changes nothing."""
    with store.checkpoint_lock():
        shadow = snapshot.open_shadow(store, task)
        kept = shadow.index.with_suffix(".preview")
        here, shadow.index = shadow.index, kept
        try:
            if here.exists():
                # With its time: git compares it with the files' to know what changed within the same second.
                shutil.copy2(here, kept)
            tree, _ = snapshot.capture(shadow)
            return _plan(store, task, shadow, tree, target)
        finally:
            kept.unlink(missing_ok=True)


def restore(store: Store, task: Task, target: Checkpoint, *, actor: str) -> tuple[Checkpoint, Plan]:
    """The checkpoint that undoes it, and what was changed.

    The caller holds the task's container still. Raises `ConflictError` when a file was
    changed meanwhile: nothing is overwritten then.
    """
    with store.checkpoint_lock():
        shadow = snapshot.open_shadow(store, task)
        tree, skipped = snapshot.capture(shadow)
        plan = _plan(store, task, shadow, tree, target)
        if plan.collisions:
            snapshot.update(shadow, [], list(plan.collisions))
            tree = shadow.git("write-tree").out.strip()
        label = f"before restoring {target.id}"
        undo = snapshot.commit(store, shadow, task, tree, skipped, kind="pre-restore", label=label, actor=actor)
        snapshot.update(shadow, list(plan.left), [])
        start = shadow.git("write-tree").out.strip()
        try:
            shadow.git("read-tree", "-m", "-u", start, target.tree)
        except CommandError as e:
            raise ConflictError(
                f"The workspace changed while it was being restored:\n{e.done.err.strip()}",
                hint=f"what was there is in checkpoint {undo.id}; run the command again",
            ) from e
        _verify(shadow, target, undo)
        done = {
            "to": target.id,
            "undo": undo.id,
            "added": len(plan.added),
            "changed": len(plan.changed),
            "deleted": len(plan.deleted),
            "collisions": list(plan.collisions),
        }
        store.record(task.id, ("checkpoint.restored", done), actor=actor)
    return undo, plan


def undo_of_last(store: Store, task: Task) -> Checkpoint:
    """The pre-restore checkpoint of the newest restore. Raises `TaskError`."""
    restored = [e.data["undo"] for e in store.history(task.id) if e.type == "checkpoint.restored"]
    if not restored:
        raise TaskError(f"Nothing was restored in task {task.id} yet", code="no_checkpoint")
    return snapshot.named(store, task, restored[-1])


def _plan(store: Store, task: Task, shadow: Shadow, tree: str, target: Checkpoint) -> Plan:
    words = shadow.paths("diff-tree", "-r", "-z", "--no-renames", "--name-status", tree, target.tree)
    kinds = list(zip(words[::2], words[1::2], strict=True))
    added = tuple(path for kind, path in kinds if kind == "A")
    gone = [path for kind, path in kinds if kind == "D"]
    left = _left(shadow, target, gone, added) - _made_after(store, task, shadow, target) if gone else set()
    left |= _out_of_sight(shadow, target, gone)
    return Plan(
        added=added,
        changed=tuple(path for kind, path in kinds if kind not in "AD"),
        deleted=tuple(path for path in gone if path not in left),
        collisions=tuple(dict.fromkeys(c for path in added for c in _collisions(shadow, path))),
        left=tuple(path for path in gone if path in left),
        head_moved=target.head is not None and target.head != _head(shadow),
    )


def _left(shadow: Shadow, target: Checkpoint, gone: list[str], added: tuple[str, ...]) -> set[str]:
    """Those of `gone` that are ignored at `target` and not in the way of what it adds."""
    there = set(added)
    folders = {parent for path in added for parent in _parents(path)}
    return {
        path for path in _ignored_at(shadow, target, gone) if path not in folders and there.isdisjoint(_parents(path))
    }


def _out_of_sight(shadow: Shadow, target: Checkpoint, gone: list[str]) -> set[str]:
    """Those of `gone` that the commit had, while a sparse checkout may have kept them from the disk."""
    if not (target.sparse and target.head and gone):
        return set()
    words = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", target.head)
    listed = plumbing.git(shadow.source, *words, check=False).out_b.split(b"\0")
    return {os.fsdecode(path) for path in listed} & set(gone)


def _made_after(store: Store, task: Task, shadow: Shadow, undo: Checkpoint) -> set[str]:
    """What the restore that `undo` undoes has put there: it was not there before, ignored or not."""
    for event in store.history(task.id):
        if event.type == "checkpoint.restored" and event.data["undo"] == undo.id:
            restored = snapshot.named(store, task, event.data["to"])
            return set(shadow.paths("ls-tree", "-r", "-z", "--name-only", restored.tree))
    return set()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _ignored_at(shadow: Shadow, target: Checkpoint, paths: list[str]) -> set[str]:
    with tempfile.TemporaryDirectory(dir=shadow.dir, prefix="rules-") as folder:
        for entry in shadow.paths("ls-tree", "-r", "-z", target.tree):
            described, _, path = entry.partition("\t")
            mode, _, blob = described.split(" ")
            # Git follows no link of this name.
            if path.rpartition("/")[2] == ".gitignore" and mode != "120000":
                rules = Path(folder, path)
                rules.parent.mkdir(parents=True, exist_ok=True)
                rules.write_bytes(shadow.git("cat-file", "blob", blob).out_b)
        # `./`, or a leading colon would be read as pathspec magic.
        words = pathspec_input([f"./{path}" for path in paths])
        options = (f"--work-tree={folder}", "check-ignore", "--no-index", "-z", "--stdin")
        found = shadow.git(*options, stdin_b=words, check=False)
    if found.code not in (0, 1):
        raise CommandError(found)
    return {os.fsdecode(word).removeprefix("./") for word in found.out_b.split(b"\0") if word}


def _head(shadow: Shadow) -> str | None:
    from opencode_tasks.git import discovery, plumbing

    return plumbing.head_commit(discovery.find(shadow.workspace, {}))


def _collisions(shadow: Shadow, path: str) -> Iterator[str]:
    """Files on disk, in no checkpoint (they are ignored), where restoring must write `path`."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        candidate = "/".join(parts[:depth])
        on_disk = shadow.workspace / candidate
        try:
            mode = on_disk.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(mode):
            if depth == len(parts):
                yield from _files_below(shadow, on_disk)
            continue
        if not _is_held(shadow, candidate):
            yield _keepable(candidate, mode)
        return


def _files_below(shadow: Shadow, directory: Path) -> Iterator[str]:
    for folder, names, file_names in os.walk(directory):
        if ".git" in (*names, *file_names):
            raise TaskError(
                f"{folder} is a repository of its own and stands where the checkpoint has a file",
                hint="move it out of the way, then restore again",
                code="collision",
            )
        for name in (*file_names, *(n for n in names if (Path(folder) / n).is_symlink())):
            full = Path(folder) / name
            inside = str(full.relative_to(shadow.workspace))
            if not _is_held(shadow, inside):
                yield _keepable(inside, full.lstat().st_mode)


def _is_held(shadow: Shadow, path: str) -> bool:
    """Whether the index, brought up to the disk just now, has it."""
    return bool(shadow.paths("--literal-pathspecs", "ls-files", "-z", "--cached", "--", path))


def _keepable(path: str, mode: int) -> str:
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return path
    raise TaskError(
        f"{path} is a pipe, socket or device and stands where the checkpoint has a file",
        hint="move it out of the way, then restore again",
        code="collision",
    )


def _verify(shadow: Shadow, target: Checkpoint, undo: Checkpoint) -> None:
    # Not the whole tree: with the target's .gitignore, files that were ignored may be so no longer.
    if snapshot.changed_on_disk(shadow):
        raise TaskError(
            f"After restoring, the workspace is not what checkpoint {target.id} holds: something wrote to it meanwhile",
            hint=f"opencode-tasks restore-checkpoint {undo.id}, then try again",
            code="not_verified",
        )
