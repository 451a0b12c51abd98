"""Bringing a task's indexes to what is on the disk: tracked and untracked files as they are, ignored ones left out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opencode_tasks.checkpoints import known, seeding, walk
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.known import KnownRoot
from opencode_tasks.checkpoints.shadow import Shadow, words_of
from opencode_tasks.checkpoints.walk import Skipped, Walk
from opencode_tasks.git import plumbing, sparse
from opencode_tasks.proc import CommandError
from opencode_tasks.store import files
from opencode_tasks.values import replace, value

MOST_ROOTS = 200
_CHANGED = ("diff-files", "--name-only", "-z", "--ignore-submodules=all")
_NEW = ("ls-files", "--others", "--exclude-standard", "--directory", "-z")


@value
class Contents:
    """What a checkpoint taken now holds. `size_b`: of the files that were read, `touched` how many were, or are gone.
    `roots`: what to know of them.
    """

    tree: str
    extras: Extras
    skipped: tuple[Skipped, ...]
    size_b: int
    touched: int
    roots: Mapping[str, Any]


@dataclass
class _Found:
    """What one look after the other adds up to; paths from the workspace's top."""

    trees: dict[str, str] = field(default_factory=dict)
    big: dict[str, Any] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    size_b: int = 0
    touched: int = 0
    roots: dict[str, Any] = field(default_factory=dict)


def capture(shadow: Shadow, *, thorough: bool = False) -> Contents:
    """`thorough`: name pipes and sockets wherever they lie.

    An index that git does not understand, or that names what is gone, is made anew.
    """
    before = known.read(shadow)
    is_new = not shadow.index.exists()
    try:
        found = _capture(shadow, before, thorough=thorough, may_seed=is_new)
    except CommandError:
        for index in (shadow.index, *shadow.place.glob("root-*")):
            index.unlink(missing_ok=True)
        before = replace(before, roots={})
        found = _capture(shadow, before, thorough=thorough, may_seed=False)
    if found.roots != before.roots:
        known.write(shadow, replace(before, roots=found.roots))
    extras = Extras(
        {path: tree for path, tree in found.trees.items() if path}, found.big, found.modes, tuple(sorted(found.empty))
    )
    return Contents(found.trees[""], extras, tuple(found.skipped), found.size_b, found.touched, found.roots)


def _capture(shadow: Shadow, before: known.Known, *, thorough: bool, may_seed: bool) -> _Found:
    found, todo = _Found(), [shadow]
    while todo:
        at = todo.pop()
        nested = _root(at, before.root(at.path), found, thorough=thorough, may_seed=may_seed)
        for path in nested:
            if len(found.trees) + len(todo) > MOST_ROOTS:
                found.skipped.append(Skipped(at.path + path, f"one of more than {MOST_ROOTS} repositories"))
            elif walk.is_below_real_dirs(at.workspace, f"{path}x", {"": True}):
                todo.append(at.inner(at.path + path))
    return found


def _root(shadow: Shadow, before: KnownRoot, found: _Found, *, thorough: bool, may_seed: bool) -> list[str]:
    """The repositories inside, from the root."""
    tracked, has_all = seeding.seed(shadow) if may_seed and not shadow.path else ([], False)
    commands = [_CHANGED, _NEW]
    if shadow.ignored:
        patterns = [f":(glob){pattern}" for pattern in shadow.ignored]
        commands.append(("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *patterns))
    differing, listed, *wanted = shadow.together(*commands)
    differing = _there(shadow, differing)
    # Git does not list a folder where it knows a file.
    folders = [f"{path}/" for path in differing if walk.is_below_real_dirs(shadow.workspace, f"{path}/x", {"": True})]
    new = walk.untracked(shadow, [*listed, *folders])
    read_again = seeding.converted(shadow, tracked, new.files) if tracked else []
    theirs = None if shadow.path else files.stamp(shadow.source.git_dir / "index")
    forced = _tracked_though_ignored(shadow) if theirs is not None and theirs != before.theirs and not has_all else []
    doubtful = dict.fromkeys([*before.modes, *before.young])
    modes = walk.modes_of(shadow.workspace, doubtful)
    other_modes = [path for path in doubtful if modes.get(path) != before.modes.get(path)]
    known_before = [*before.big, *other_modes]
    paths = [*differing, *read_again, *new.files, *forced, *known_before, *(path for more in wanted for path in more)]
    seen = walk.look(shadow.workspace, list(dict.fromkeys(paths)))
    indexed = {*differing, *read_again}
    gone = [*seen.gone, *(path for path in seen.big if path in indexed), *read_again]
    shadow.update(gone, seen.present)
    stamp = files.stamp(shadow.index)
    tree = before.tree if before.tree and not gone and not seen.present and stamp == before.index else None
    if tree is None:
        tree = shadow.write_tree()
        stamp = files.stamp(shadow.index)
    modes = _modes(shadow, before, seen, tracked)
    young = walk.young(shadow.workspace, [*before.young, *seen.present])
    big = {path: _kept(shadow, path, looks, before.big.get(path)) for path, looks in seen.big.items()}
    found.trees[shadow.path] = tree
    found.roots[shadow.path] = vars(KnownRoot(stamp, theirs, tree, modes, big, young))
    found.modes |= {shadow.path + path: mode for path, mode in modes.items()}
    found.big |= {shadow.path + path: kept for path, (_, kept) in big.items()}
    found.empty += [shadow.path + path for path in new.empty]
    found.touched += len(gone) + len(seen.present)
    found.size_b += seen.size_b + sum(looks[-1] for path, looks in seen.big.items() if path not in before.big)
    named = {one.path for one in seen.skipped}
    special = dict.fromkeys([*new.special, *(walk.specials(shadow) if thorough else ())])
    found.skipped += [Skipped(shadow.path + one.path, one.reason) for one in seen.skipped]
    found.skipped += [Skipped(shadow.path + path, walk.SPECIAL) for path in special if path not in named]
    return new.nested


def _there(shadow: Shadow, differing: list[str]) -> list[str]:
    """Without what a sparse checkout has taken away since: it was not deleted."""
    left_out = sparse.left_out(shadow.source) if differing and not shadow.path else frozenset()
    return [path for path in differing if path not in left_out or os.path.lexists(shadow.workspace / path)]


def changed_on_disk(shadow: Shadow) -> list[str]:
    """What is not as the task's index has it."""
    return _there(shadow, shadow.paths(*_CHANGED))


def _tracked_though_ignored(shadow: Shadow) -> list[str]:
    """What the user added with --force: theirs to keep, whatever .gitignore says."""
    words = ("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    return words_of(plumbing.git(shadow.source, *words))


def _modes(shadow: Shadow, before: KnownRoot, seen: Walk, tracked: list[str]) -> dict[str, int]:
    if tracked:
        return walk.modes_of(shadow.workspace, tracked) | seen.modes
    looked_at = {*seen.gone, *seen.present, *seen.big}
    return {path: mode for path, mode in before.modes.items() if path not in looked_at} | seen.modes


def _kept(shadow: Shadow, path: str, looks: list[int], before: Any) -> list[Any]:
    if before and before[0] == looks:
        return list(before)
    from opencode_tasks.checkpoints import big

    return [looks, big.put(shadow, path, before[1] if before else None)]
