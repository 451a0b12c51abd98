"""What a restore will change, found before it changes anything."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.checkpoints.capture import Contents
from opencode_tasks.checkpoints.extras import Extras, is_newer, root_of
from opencode_tasks.checkpoints.partial import Wanted
from opencode_tasks.checkpoints.shadow import Shadow, empty_tree, pathspec_input
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.proc import CommandError
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import value


@value
class Plan:
    """What restoring changes: paths by kind. `collisions` are ignored files in the way, kept by the undo.

    `left` are files that the checkpoint has not, but its own .gitignore files ignore, or a sparse checkout had left
    out: it never said they were not there. `crossing` are files in the way that a repository inside has now and had not
    then, or the other way round: git does not know one's files by the other's index.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    collisions: tuple[str, ...]
    left: tuple[str, ...]
    crossing: tuple[str, ...]
    head_moved: bool


@dataclass
class _Kinds:
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def join(self, was: Set[str]) -> None:
        """What is added, and was there, is changed."""
        both = {*self.added} & was
        self.changed += [path for path in self.added if path in both]
        self.added = [path for path in self.added if path not in both]
        self.gone = [path for path in self.gone if path not in both]


def plan(store: Store, task: Task, shadow: Shadow, found: Contents, wanted: Wanted, target: Checkpoint) -> Plan:
    """Raises `TaskError` (code `collision`) when something is in the way that no checkpoint can keep."""
    kinds, left, collisions, crossing = _Kinds(), set[str](), dict[str, None](), dict[str, None]()
    made_after: set[str] | None = None
    for root, tree in {"": wanted.tree, **wanted.extras.roots}.items():
        at = shadow.inner(root) if root else shadow
        now = (found.extras.roots.get(root) or empty_tree(tree)) if root else found.tree
        one = _differences(at, now, tree) if now != tree else _Kinds()
        _add_big(one, root, found.extras, wanted.extras)
        if one.gone:
            if made_after is None:
                made_after = _made_after(store, task, shadow, target)
            stay = _left(at, tree, one.gone, one.added)
            stay |= _out_of_sight(at, target, one.gone) if not root else set()
            left |= {root + path for path in stay} - made_after
        obstacles = (obstacle for added in one.added for obstacle in _obstacles(shadow, root + added))
        for path, mode in obstacles:
            owner = root_of(path, found.extras.roots)
            if owner != root:
                crossing[path] = None
            if not _is_held(shadow.of(owner), path[len(owner) :], found.extras):
                collisions[_keepable(path, mode)] = None
        kinds.added += [root + path for path in one.added]
        kinds.changed += [root + path for path in one.changed]
        kinds.gone += [root + path for path in one.gone]
    left -= {*kinds.added}
    kinds.join({*crossing, *kinds.gone})
    kinds.changed += _other_modes(kinds, found.extras, wanted.extras)
    return Plan(
        added=tuple(kinds.added),
        changed=tuple(kinds.changed),
        deleted=tuple(path for path in kinds.gone if path not in left),
        collisions=tuple(collisions),
        left=tuple(path for path in kinds.gone if path in left),
        crossing=tuple(crossing),
        head_moved=target.head is not None and target.head != plumbing.head_commit(shadow.source),
    )


def _differences(shadow: Shadow, now: str, tree: str) -> _Kinds:
    words = shadow.paths("diff-tree", "-r", "-z", "--no-renames", "--name-status", now, tree)
    kinds = _Kinds()
    for kind, path in zip(words[::2], words[1::2], strict=True):
        (kinds.added if kind == "A" else kinds.gone if kind == "D" else kinds.changed).append(path)
    return kinds


def _add_big(kinds: _Kinds, root: str, found: Extras, wanted: Extras) -> None:
    """Big files, which no tree has; one that became big or small is changed."""
    for path in sorted({*found.big, *wanted.big}):
        if root_of(path, wanted.roots) != root:
            continue
        inside, was, will = path[len(root) :], found.big.get(path), wanted.big.get(path)
        if was == will:
            continue
        if was is not None and will is not None:
            kinds.changed.append(inside)
        elif will is not None and inside in kinds.gone:
            kinds.gone.remove(inside)
            kinds.changed.append(inside)
        elif was is not None and inside in kinds.added:
            kinds.added.remove(inside)
            kinds.changed.append(inside)
        elif will is not None:
            kinds.added.append(inside)
        elif not is_newer(path, found, wanted):
            kinds.gone.append(inside)


def _other_modes(kinds: _Kinds, found: Extras, wanted: Extras) -> list[str]:
    """Files of which nothing but the mode changes."""
    known = {*kinds.added, *kinds.changed, *kinds.gone}
    both = sorted({*found.modes, *wanted.modes} - known)
    return [
        path
        for path in both
        if found.modes.get(path) != wanted.modes.get(path)
        and (path in wanted.modes or not is_newer(path, found, wanted))
    ]


def _left(shadow: Shadow, tree: str, gone: list[str], added: Sequence[str]) -> set[str]:
    """Those of `gone` that are ignored in `tree` and not in the way of what it adds."""
    there = set(added)
    folders = {parent for path in added for parent in _parents(path)}
    return {
        path for path in _ignored_at(shadow, tree, gone) if path not in folders and there.isdisjoint(_parents(path))
    }


def _out_of_sight(shadow: Shadow, target: Checkpoint, gone: list[str]) -> set[str]:
    """Those of `gone` that the commit had, while a sparse checkout may have kept them from the disk."""
    if not (target.sparse and target.head):
        return set()
    words = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", target.head)
    listed = plumbing.git(shadow.source, *words, check=False).out_b.split(b"\0")
    return {os.fsdecode(path) for path in listed} & set(gone)


def _made_after(store: Store, task: Task, shadow: Shadow, undo: Checkpoint) -> set[str]:
    """What the restore that `undo` undoes has put there: it was not there before, ignored or not."""
    for event in store.history(task.id):
        if event.type == "checkpoint.restored" and event.data["undo"] == undo.id:
            restored = snapshot.named(store, task, event.data["to"])
            extras = snapshot.extras_of(shadow, restored)
            words = ("ls-tree", "-r", "-z", "--name-only")
            roots = {"": restored.tree, **extras.roots}.items()
            return {root + path for root, tree in roots for path in shadow.paths(*words, tree)} | {*extras.big}
    return set()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _ignored_at(shadow: Shadow, tree: str, paths: list[str]) -> set[str]:
    with tempfile.TemporaryDirectory(dir=shadow.dir, prefix="rules-") as folder:
        words = ("diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", empty_tree(tree), tree)
        listed = shadow.paths(*words, "--", ":(glob)**/.gitignore")
        for described, path in zip(listed[::2], listed[1::2], strict=True):
            _, mode, _, blob, _ = described.split(" ")
            if mode != "120000":  # git follows no link of this name
                rules = Path(folder, path)
                rules.parent.mkdir(parents=True, exist_ok=True)
                rules.write_bytes(shadow.git("cat-file", "blob", blob).out_b)
        # `./`, or a leading colon would be read as pathspec magic.
        asked_b = pathspec_input([f"./{path}" for path in paths])
        options = (f"--work-tree={folder}", "check-ignore", "--no-index", "-z", "--stdin")
        found = shadow.git(*options, stdin_b=asked_b, check=False)
    if found.code not in (0, 1):
        raise CommandError(found)
    return {os.fsdecode(word).removeprefix("./") for word in found.out_b.split(b"\0") if word}


def _obstacles(shadow: Shadow, path: str) -> Iterator[tuple[str, int]]:
    """Files on the disk, and their modes, where restoring must write `path`."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        candidate = "/".join(parts[:depth])
        on_disk = shadow.workspace / candidate
        try:
            mode = on_disk.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISDIR(mode):
            yield candidate, mode
            return
    yield from _files_below(shadow.workspace, on_disk)


def _files_below(top: Path, directory: Path) -> Iterator[tuple[str, int]]:
    for folder, names, file_names in os.walk(directory):
        if ".git" in (*names, *file_names):
            raise TaskError(
                f"{folder} is a repository of its own and stands where the checkpoint has a file",
                hint="move it out of the way, then restore again",
                code="collision",
            )
        for name in (*file_names, *(n for n in names if (Path(folder) / n).is_symlink())):
            full = Path(folder) / name
            yield str(full.relative_to(top)), full.lstat().st_mode


def _is_held(shadow: Shadow, path: str, held: Extras) -> bool:
    """Whether the index, brought up to the disk just now, has it."""
    if shadow.path + path in held.big:
        return True
    return bool(shadow.paths("--literal-pathspecs", "ls-files", "-z", "--cached", "--", path))


def _keepable(path: str, mode: int) -> str:
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return path
    raise TaskError(
        f"{path} is a pipe, socket or device and stands where the checkpoint has a file",
        hint="move it out of the way, then restore again",
        code="collision",
    )
