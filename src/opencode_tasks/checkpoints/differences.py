"""What lies between two checkpoints, or a checkpoint and the files now, as a person reads it."""

from collections.abc import Sequence

from opencode_tasks.checkpoints import snapshot
from opencode_tasks.checkpoints.capture import capture
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.partial import Wanted
from opencode_tasks.checkpoints.shadow import Shadow, empty_tree
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from opencode_tasks.values import value


@value
class Changed:
    """`how`: added, deleted or changed."""

    path: str
    how: str


@value
class Differences:
    """`patch` as `git diff` writes one; what is not text in it, and what has no text, is only named."""

    files: tuple[Changed, ...]
    patch: str
    stat: str


_HOW = {"A": "added", "D": "deleted"}


def since(store: Store, task: Task, old: Checkpoint, *, ignored: Sequence[str] = ()) -> Differences:
    """Between `old` and the files now. The caller holds the task's container still."""
    with store.checkpoint_lock(task.id):
        shadow = snapshot.open_shadow(store, task, durable=False, ignored=ignored)
        now = capture(shadow)
        return _between(shadow, _of(shadow, old), Wanted(now.tree, now.extras))


def between(store: Store, task: Task, checkout: Checkout, old: Checkpoint, new: Checkpoint) -> Differences:
    """The files need not be there."""
    shadow = Shadow(store, task.id, checkout)
    return _between(shadow, _of(shadow, old), _of(shadow, new))


def _of(shadow: Shadow, checkpoint: Checkpoint) -> Wanted:
    return Wanted(checkpoint.tree, snapshot.extras_of(shadow, checkpoint))


def _between(shadow: Shadow, old: Wanted, new: Wanted) -> Differences:
    files: list[Changed] = []
    patches, stats = [], []
    roots = {"": (old.tree, new.tree)}
    for root in sorted({*old.extras.roots, *new.extras.roots}):
        one, other = old.extras.roots.get(root), new.extras.roots.get(root)
        none = empty_tree(one or other or "")
        roots[root] = (one or none, other or none)
    for root, (one, other) in roots.items():
        if one == other:
            continue
        words = shadow.paths("diff-tree", "-r", "-z", "--no-renames", "--name-status", one, other)
        found = zip(words[::2], words[1::2], strict=True)
        files += [Changed(root + path, _HOW.get(how, "changed")) for how, path in found]
        prefixes = (f"--src-prefix=a/{root}", f"--dst-prefix=b/{root}")
        shown = ("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-color")
        patches.append(_text(shadow, *shown, "-M", "-p", *prefixes, one, other))
        stats.append(_text(shadow, *shown, "--stat=100", one, other))
    more = _beside_trees(old.extras, new.extras)
    files += [Changed(path, how) for path, how, _ in more]
    told = "".join(f"{path}: {said}\n" for path, _, said in more)
    return Differences(tuple(files), "".join([*patches, told]).rstrip("\n"), "".join([*stats, told]).rstrip("\n"))


def _text(shadow: Shadow, *words: str) -> str:
    return shadow.git(*words).out_b.decode(errors="replace")


def _beside_trees(old: Extras, new: Extras) -> list[tuple[str, str, str]]:
    found = []
    for path in sorted({*old.big, *new.big}):
        one, other = old.big.get(path), new.big.get(path)
        if one != other:
            how = "added" if one is None else "deleted" if other is None else "changed"
            found.append((path, how, f"{_size(one)} → {_size(other)} bytes"))
    modes = {path: (old.modes.get(path), new.modes.get(path)) for path in sorted({*old.modes, *new.modes})}
    found += [
        (path, "changed", f"mode {_mode(one)} → {_mode(other)}") for path, (one, other) in modes.items() if one != other
    ]
    for path in sorted({*old.empty} ^ {*new.empty}):
        how = "added" if path in new.empty else "deleted"
        found.append((path, how, f"empty folder {how}"))
    return found


def _size(big: object) -> str:
    return str(big["size"]) if isinstance(big, dict) else "no"


def _mode(mode: int | None) -> str:
    return "the usual" if mode is None else f"{mode:o}"
