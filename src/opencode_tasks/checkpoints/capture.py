"""Bringing a task's indexes to what is on the disk: tracked and untracked files as they are, ignored ones left out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opencode_tasks.checkpoints import known, seeding, walk
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.known import KnownRoot
from opencode_tasks.checkpoints.shadow import Shadow, empty_tree, words_of
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
        was, held = before.root(at.path), before.trees.get(at.path)
        nested = _root(at, was, held, found, thorough=thorough, may_seed=may_seed)
        for path in nested:
            if len(found.trees) + len(todo) > MOST_ROOTS:
                found.skipped.append(Skipped(at.path + path, f"one of more than {MOST_ROOTS} repositories"))
            elif walk.is_real_folder(at.workspace, path):
                todo.append(at.inner(at.path + path))
    return found


def _root(
    shadow: Shadow, before: KnownRoot, held: str | None, found: _Found, *, thorough: bool, may_seed: bool
) -> list[str]:
    """The repositories inside, from the root. `held`: the tree in the checkpoint that the files come from."""
    tracked, has_all = seeding.seed(shadow) if may_seed and not shadow.path else ([], False)
    differing, new, more = _listed(shadow)
    converted = seeding.converted(shadow, tracked, new.files) if tracked else []
    unheld = _unheld(shadow, before.tree, held)
    theirs = None if shadow.path else files.stamp(shadow.source.git_dir / "index")
    forced = _tracked_though_ignored(shadow) if theirs is not None and theirs != before.theirs and not has_all else []
    doubtful = [*before.big, *_other_modes(shadow, before)]
    paths = [*differing, *converted, *unheld, *new.files, *forced, *doubtful, *more]
    seen = walk.look(shadow.workspace, list(dict.fromkeys(paths)))
    indexed, again = {*differing, *converted}, {*unheld}
    gone = [*seen.gone, *(path for path in seen.big if path in indexed), *converted]
    gone += [path for path in seen.present if path in again]
    shadow.update(gone, seen.present)
    stamp = files.stamp(shadow.index)
    tree = before.tree if before.tree == held and not gone and not seen.present and stamp == before.index else None
    if tree is None:
        tree = shadow.write_tree()
        stamp = files.stamp(shadow.index)
    modes = _modes(shadow, before, seen, tracked)
    young = walk.young(shadow.workspace, [*before.young, *seen.present])
    big = {path: _kept(shadow, path, looks, before.big.get(path)) for path, looks in seen.big.items()}
    special = [*new.special, *(walk.specials(shadow) if thorough else ())]
    _note(found, shadow.path, KnownRoot(stamp, theirs, tree, modes, big, young), seen, special)
    found.empty += [shadow.path + path for path in new.empty]
    found.touched += len({*gone, *seen.present})
    found.size_b += seen.size_b + sum(looks[-1] for path, looks in seen.big.items() if path not in before.big)
    return new.nested


def _listed(shadow: Shadow) -> tuple[list[str], walk.Untracked, list[str]]:
    """What differs from the index, what it has not, and those of the ignored files that are kept, too."""
    commands = [_CHANGED, _NEW]
    if shadow.ignored:
        patterns = [f":(glob){pattern}" for pattern in shadow.ignored]
        commands.append(("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *patterns))
    differing, listed, *more = shadow.together(*commands)
    differing = _there(shadow, differing)
    # Git does not list a folder where it knows a file.
    folders = [f"{path}/" for path in differing if walk.is_real_folder(shadow.workspace, path)]
    return differing, walk.untracked(shadow, [*listed, *folders]), [path for paths in more for path in paths]


def _unheld(shadow: Shadow, tree: str | None, held: str | None) -> list[str]:
    """What differs from the checkpoint since the last look, of which none was made: `upkeep` may be about to throw its
    objects away, unless they are written again.
    """
    if tree is None or tree == held:
        return []
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-only", "--diff-filter=d")
    return _there(shadow, shadow.paths(*words, held or empty_tree(tree), tree))


def _other_modes(shadow: Shadow, before: KnownRoot) -> list[str]:
    """Files with another mode than was known. Git does not see that of young ones."""
    doubtful = dict.fromkeys([*before.modes, *before.young])
    modes = walk.modes_of(shadow.workspace, doubtful)
    return [path for path in doubtful if modes.get(path) != before.modes.get(path)]


def _note(found: _Found, root: str, now: KnownRoot, seen: Walk, special: list[str]) -> None:
    found.trees[root] = str(now.tree)
    found.roots[root] = vars(now)
    found.modes |= {root + path: mode for path, mode in now.modes.items()}
    found.big |= {root + path: kept for path, (_, kept) in now.big.items()}
    named = {one.path for one in seen.skipped}
    found.skipped += [Skipped(root + one.path, one.reason) for one in seen.skipped]
    found.skipped += [Skipped(root + path, walk.SPECIAL) for path in dict.fromkeys(special) if path not in named]


def _there(shadow: Shadow, differing: list[str]) -> list[str]:
    """Without what a sparse checkout has taken away since: it was not deleted."""
    left_out = sparse.left_out(shadow.source) if differing and not shadow.path else frozenset()
    return [path for path in differing if path not in left_out or os.path.lexists(shadow.workspace / path)]


def changed_on_disk(shadow: Shadow) -> list[str]:
    """What is not as the task's index has it."""
    return _there(shadow, shadow.paths(*_CHANGED))


def _tracked_though_ignored(shadow: Shadow) -> list[str]:
    """What the user added with --force: theirs to keep, whatever .gitignore says. Nothing where their index is broken:
    whoever mends that may want their files back.
    """
    words = ("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    listed = plumbing.git(shadow.source, *words, check=False)
    return words_of(listed) if listed.code == 0 else []


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
