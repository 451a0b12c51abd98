"""Making a workspace what it is wanted to be. All that can refuse does so before anything is written."""

import os
import stat
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, TypeVar

from opencode_tasks.checkpoints import extras, walk
from opencode_tasks.checkpoints.capture import Contents, changed_on_disk
from opencode_tasks.checkpoints.known import KnownRoot
from opencode_tasks.checkpoints.partial import Wanted
from opencode_tasks.checkpoints.planning import Plan
from opencode_tasks.checkpoints.shadow import Shadow, empty_tree, pathspec_input
from opencode_tasks.errors import ConflictError
from opencode_tasks.proc import CommandError
from opencode_tasks.store import files
from opencode_tasks.values import value

T = TypeVar("T")


@value
class _Step:
    """One root of the workspace, from tree to tree."""

    shadow: Shadow
    start: str
    tree: str


def apply(shadow: Shadow, found: Contents, wanted: Wanted, plan: Plan) -> None:
    """Raises `ConflictError` when the workspace is not what was found; nothing is written then."""
    steps = _steps(shadow, found, wanted, plan)
    other = {*plan.deleted, *plan.changed}
    big_gone = [path for path in found.extras.big if path not in wanted.extras.big and path in other]
    for path in big_gone:
        _require_unchanged(shadow, found, path)
    _require_as_indexed(shadow, found, plan.crossing)
    try:
        for path in (*big_gone, *plan.crossing):  # first: git must not find them in its way
            _unlink(shadow, path)
        for path in plan.crossing:
            _remove_folder(shadow, path.rpartition("/")[0], ())
        for step in steps if len(steps) > 1 else ():
            _read_tree(step, "-n")
        for step in steps:
            if step.shadow.path:
                _make_folder(shadow, step.shadow.path)
            _read_tree(step)
    except ConflictError:
        _put_back(shadow, found, big_gone, plan.crossing)
        raise
    for path, kept in wanted.extras.big.items():
        if found.extras.big.get(path) != kept:
            _write_big(shadow, found, path, kept)
    others = _usual(shadow, {*found.extras.modes} & {*plan.changed} - {*wanted.extras.modes})
    _chmod(shadow, wanted, {**wanted.extras.modes, **others})
    filled = {*found.extras.empty} - {*wanted.extras.empty}
    for path in (one for one in filled if not extras.is_newer(one, found.extras, wanted.extras)):
        _remove_folder(shadow, path, wanted.extras.empty)
    for path in wanted.extras.empty:
        _make_folder(shadow, path)


def changed(shadow: Shadow, wanted: Wanted) -> list[str]:
    """What is not as it was wanted, after all was written."""
    roots = [shadow, *(shadow.inner(root) for root in wanted.extras.roots)]
    return [at.path + path for at in roots for path in changed_on_disk(at)]


def looks(shadow: Shadow, found: Contents, wanted: Wanted, plan: Plan) -> dict[str, Any]:
    """What is known of every root after all was written, as `Contents.roots`."""
    trees = {"": wanted.tree, **wanted.extras.roots}
    roots = {root: known for root, known in found.roots.items() if root not in trees}
    for root, tree in trees.items():
        at = shadow.inner(root) if root else shadow

        def own(held: Mapping[str, T], root: str = root) -> dict[str, T]:
            return {path[len(root) :]: one for path, one in held.items() if extras.root_of(path, trees) == root}

        big = {}
        for path, kept in own(wanted.extras.big).items():
            with suppress(OSError):
                big[path] = [walk.stamp((at.workspace / path).lstat()), kept]
        # What was left is asked for again: it may be tracked.
        before = found.roots.get(root, {})
        written = own(dict.fromkeys([*plan.added, *plan.changed]))
        young = walk.young(at.workspace, [*before.get("young", ()), *written])
        theirs = None if plan.left else before.get("theirs")
        roots[root] = vars(KnownRoot(files.stamp(at.index), theirs, tree, own(wanted.extras.modes), big, young))
    return roots


def _steps(shadow: Shadow, found: Contents, wanted: Wanted, plan: Plan) -> list[_Step]:
    steps = []
    for root, tree in {"": wanted.tree, **wanted.extras.roots}.items():
        at = shadow.inner(root) if root else shadow
        now = (found.extras.roots.get(root) or empty_tree(tree)) if root else found.tree
        if root and root not in found.extras.roots:
            at.index.unlink(missing_ok=True)
        left = [path[len(root) :] for path in plan.left if path.startswith(root)]
        if left:
            at.update(left, [])
            now = at.write_tree()
        if now != tree:
            steps.append(_Step(at, now, tree))
    return steps


def _read_tree(step: _Step, *more: str) -> None:
    if not step.shadow.workspace.is_dir():
        return  # a repository inside that is gone: nothing is in the way
    try:
        step.shadow.git("read-tree", "-m", "-u", *more, step.start, step.tree)
    except CommandError as e:
        raise ConflictError(e.done.err.strip()) from e


def _write_big(shadow: Shadow, found: Contents, path: str, kept: Mapping[str, Any]) -> None:
    from opencode_tasks.checkpoints import big

    _make_folder(shadow, path.rpartition("/")[0])
    big.restore(shadow, path, kept, found.extras.big.get(path))


def _require_unchanged(shadow: Shadow, found: Contents, path: str) -> None:
    root = extras.root_of(path, found.roots)
    looked, _ = found.roots[root]["big"][path[len(root) :]]
    if walk.stamp((shadow.workspace / path).lstat()) != looked:
        raise ConflictError(f"{path} was changed")


def _require_as_indexed(shadow: Shadow, found: Contents, paths: Sequence[str]) -> None:
    for root, inside in extras.by_root(paths, found.extras.roots).items():
        for path in {*inside} & {*changed_on_disk(shadow.of(root))}:
            raise ConflictError(f"{root}{path} was changed")


def _put_back(shadow: Shadow, found: Contents, big: Sequence[str], small: Sequence[str]) -> None:
    """What was there and is gone, of those."""
    for path in big:
        if not os.path.lexists(shadow.workspace / path):
            _write_big(shadow, found, path, found.extras.big[path])
    for root, inside in extras.by_root(small, found.extras.roots).items():
        # It leaves alone what is there.
        words = ("checkout-index", "--quiet", "-z", "--stdin")
        shadow.of(root).git(*words, stdin_b=pathspec_input(inside), check=False)
    for path in small:
        if path in found.extras.modes:
            _has_new_mode(shadow, path, found.extras.modes[path])


def _parent(shadow: Shadow, path: str) -> tuple[int, str]:
    """A descriptor of the folder, which no link leads to, and the name in it."""
    folder, _, name = path.rpartition("/")
    flags = os.O_RDONLY | os.O_DIRECTORY
    top = os.open(shadow.workspace, flags | os.O_CLOEXEC)
    try:
        return files.open_without_links(folder or ".", flags, at=top), name
    finally:
        os.close(top)


def _unlink(shadow: Shadow, path: str) -> None:
    fd, name = _parent(shadow, path)
    try:
        os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _remove_folder(shadow: Shadow, path: str, wanted: Sequence[str]) -> None:
    """With those above it that have nothing else in them."""
    while path and path not in wanted:
        with suppress(OSError):
            fd, name = _parent(shadow, path.rstrip("/"))
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError:  # something is in it by now
                return
            finally:
                os.close(fd)
        path = path.rstrip("/").rpartition("/")[0]
        path += "/" if path else ""


def _make_folder(shadow: Shadow, path: str) -> None:
    """With those above it. Raises `ConflictError` where a link or a file stands in the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(shadow.workspace, flags)
    try:
        for part in filter(None, path.split("/")):
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            try:
                inner = os.open(part, flags, dir_fd=fd)
            except (NotADirectoryError, OSError) as e:
                raise ConflictError(f"{path} cannot be made: {part} is no folder") from e
            os.close(fd)
            fd = inner
    finally:
        os.close(fd)


def _chmod(shadow: Shadow, wanted: Wanted, modes: Mapping[str, int]) -> None:
    new = [path for path, mode in modes.items() if _has_new_mode(shadow, path, mode)]
    small = (path for path in new if path not in wanted.extras.big)
    for root, paths in extras.by_root(small, wanted.extras.roots).items():  # the index knows a file by its times
        (shadow.inner(root) if root else shadow).update([], paths)


def _has_new_mode(shadow: Shadow, path: str, mode: int) -> bool:
    """Of a file that no link leads to."""
    with suppress(OSError):
        folder, name = _parent(shadow, path)
        try:
            fd = os.open(name, _LOOK, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            seen = os.fstat(fd).st_mode
            if stat.S_ISREG(seen) and seen & 0o777 != mode:
                os.fchmod(fd, mode & 0o777)
                return True
        finally:
            os.close(fd)
    return False


_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _usual(shadow: Shadow, paths: Set[str]) -> dict[str, int]:
    plain, executable = walk.usual_modes()
    modes = {}
    for path in sorted(paths):
        with suppress(OSError):
            modes[path] = executable if (shadow.workspace / path).lstat().st_mode & 0o100 else plain
    return modes
