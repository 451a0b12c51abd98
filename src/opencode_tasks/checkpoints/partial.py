"""What a restore of some paths only wants: the checkpoint there, and everywhere else what is there now."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.checkpoints.capture import Contents
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

T = TypeVar("T")


@value
class Wanted:
    """What the workspace is to be."""

    tree: str
    extras: Extras


def wanted(shadow: Shadow, found: Contents, target: Checkpoint, only: Sequence[str]) -> Wanted:
    """Raises `TaskError` (code `no_file`) for a path of `only` that neither has."""
    extras = snapshot.extras_of(shadow, target)
    if not only:
        return Wanted(target.tree, extras)
    for path in only:
        _require_there(shadow, found, target, extras, path)
    now = found.extras
    roots = dict(now.roots)
    for root, tree in extras.roots.items():
        if _is_below(root.rstrip("/"), only):
            roots[root] = tree
        elif root in roots:
            inside = [path[len(root) :] for path in only if path.startswith(root)]
            roots[root] = _mixed(shadow.inner(root), roots[root], tree, inside)
    return Wanted(
        _mixed(shadow, found.tree, target.tree, only),
        Extras(
            roots,
            _map(now.big, extras.big, only),
            _map(now.modes, extras.modes, only),
            tuple(sorted(_either(now.empty, extras.empty, only))),
        ),
    )


def _is_below(path: str, only: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in only)


def _either(now: Iterable[str], then: Iterable[str], only: Sequence[str]) -> list[str]:
    outside = [path for path in now if not _is_below(path.rstrip("/"), only)]
    return outside + [path for path in then if _is_below(path.rstrip("/"), only)]


def _map(now: Mapping[str, T], then: Mapping[str, T], only: Sequence[str]) -> dict[str, T]:
    outside = {path: held for path, held in now.items() if not _is_below(path, only)}
    return outside | {path: held for path, held in then.items() if _is_below(path, only)}


def _mixed(shadow: Shadow, now: str, then: str, only: Sequence[str]) -> str:
    """The tree `now`, with these paths of the tree `then`."""
    if not only:
        return now
    kept, shadow.index = shadow.index, shadow.place / "mixing"
    try:
        shadow.git("read-tree", now)
        listed = "--literal-pathspecs", "ls-files", "-z", "--", *only
        shadow.update(shadow.paths(*listed), [])
        entries_b = shadow.git("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", then, "--", *only).out_b
        shadow.git("update-index", "--replace", "-z", "--index-info", stdin_b=entries_b)
        return shadow.write_tree()
    finally:
        shadow.index.unlink(missing_ok=True)
        shadow.index = kept


def _require_there(shadow: Shadow, found: Contents, target: Checkpoint, extras: Extras, path: str) -> None:
    for tree, more in ((target.tree, extras), (found.tree, found.extras)):
        others = (*more.big, *(root.rstrip("/") for root in more.roots), *(folder.rstrip("/") for folder in more.empty))
        if any(_is_below(other, [path]) for other in others) or any(path.startswith(root) for root in more.roots):
            return
        if shadow.paths("--literal-pathspecs", "ls-tree", "-z", "--full-tree", tree, "--", path):
            return
    raise TaskError(
        f"Neither checkpoint {target.id} nor the workspace has {path}",
        hint=f"opencode-tasks diff {target.id}",
        code="no_file",
    )
