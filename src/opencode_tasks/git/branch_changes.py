"""Which files the branches of open tasks changed, from git's objects alone; as far as known, from what was noted down.

A branch's changes are those since it parted from its base: from the merge base with the base branch, or, where that is
gone, with the commit it began at, to its tip. What is not committed is left out: git would read the work tree through
filters that the repository names, and an agent can write there. Renames are a deletion and an addition.

However many tasks there are, it takes one process for the tips, one for the ties, and two for all the tasks together
whose tip or base moved. No process runs a program of the repository or reaches for a remote.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.hunks import Hunk
from opencode_tasks.store import Store, notes
from opencode_tasks.task import Task, is_id
from opencode_tasks.values import names_of, replace, value

MOST_TASKS, MOST_FILES = 200, 1000
_MOST_LOOKED_AT = 5 * MOST_TASKS
OBJECTS_ONLY = ("-c", "protocol.allow=never", "--no-replace-objects")
DIFF = ("diff-tree", "--stdin", "--always", "-r", "--no-renames", "--no-ext-diff", "--no-textconv")
NO_SUBMODULES = "--ignore-submodules=all"
_SHA = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_HEADER = re.compile(rb"[0-9a-f]{40,64}")

T = TypeVar("T")


@value
class BranchChanges:
    """Of one task. `tip`, `onto`: what was compared, `onto` being the tip of its base branch or the commit it began at;
    `base`: where they part, empty when they do not. `files`: path to what `git diff-tree --raw` says of it.
    `count`: how many files there are, in `files` or not. `hunks`: of those pairs of blobs that somebody had to know.
    `stamp`: of the task's own file when title, branch and base were read.
    """

    id: str
    stamp: tuple[int, ...]
    is_open: bool
    title: str
    branch: str
    base_branch: str
    base_commit: str
    tip: str = ""
    onto: str = ""
    base: str = ""
    count: int = 0
    files: dict[str, str] = {}  # noqa: RUF012 (never changed in place)
    hunks: dict[str, list[Hunk] | None] = {}  # noqa: RUF012

    @property
    def key(self) -> str:
        """How `git diff-tree --stdin` is asked for it."""
        return f"{self.tip} {self.base}"


def of_open_tasks(store: Store, checkout: Checkout, first: str) -> tuple[dict[str, BranchChanges], bool]:
    """By id, `first` first and then those that changed last, and whether there are more than were looked at.

    Empty when `first` is not open or the only one: there is nothing to compare. Left out: a task whose branch or base
    is gone, and one that cannot be read.
    """
    ties = {branch: i for branch, i in plumbing.tasks_by_branch(checkout).items() if is_id(i)}
    if not set(ties.values()) - {first}:
        return {}, False
    tips = _tips(checkout)
    ties = {branch: i for branch, i in ties.items() if branch in tips}
    stamps = {i: stamp for i in set(ties.values()) if (stamp := _stamp(store, i)) is not None}
    order = sorted(stamps, key=lambda i: (i == first, stamps[i][-1]), reverse=True)
    looked_at, is_cut = _looked_at(store, [(i, stamps[i]) for i in order], ties, tips)
    if len(looked_at) < 2 or looked_at[0][1].id != first:
        return {}, False
    fresh = [now for known, now in looked_at if known is now]
    stale = [(known, now) for known, now in looked_at if known is not now]
    if stale:
        fresh += _brought_up_to_date(store, checkout, stale)
        _forget(store, set(stamps))
    found = {one.id: one for one in fresh if one.base}
    return {i: found[i] for i in order if i in found}, is_cut


def _looked_at(
    store: Store, order: Sequence[tuple[str, tuple[int, ...]]], ties: dict[str, str], tips: dict[str, str]
) -> tuple[list[tuple[BranchChanges, BranchChanges]], bool]:
    """Open tasks as known, each with the tips of now (the same object: none moved), and whether there are more."""
    found: list[tuple[BranchChanges, BranchChanges]] = []
    for task_id, stamp in order[:_MOST_LOOKED_AT]:
        noted, known = _known(store, task_id, stamp)
        if known is None:
            continue
        branch = _branch(known, ties)
        tip, onto = tips.get(branch or "", ""), tips.get(known.base_branch, known.base_commit)
        is_moved = known.is_open and (tip, onto) != (known.tip, known.onto)
        if known != noted and not is_moved:
            note(store, known)
        if not known.is_open or not tip:
            continue
        if len(found) > MOST_TASKS:
            return found, True
        found.append((known, replace(known, tip=tip, onto=onto) if is_moved else known))
    return found, len(order) > _MOST_LOOKED_AT


def note(store: Store, known: BranchChanges) -> None:
    notes.write(store.layout.changed(known.id), vars(known))


def each(things: Sequence[T], at_once: Callable[[Sequence[T]], None]) -> list[T]:
    """`at_once` for all of them, or, where git refuses, for one after the other; those that it refuses alone."""
    with suppress(TaskError, ValueError):
        at_once(things)
        return []
    refused = []
    for one in things:
        try:
            at_once([one])
        except (TaskError, ValueError):
            refused.append(one)
    return refused


def _tips(checkout: Checkout) -> dict[str, str]:
    listed = plumbing.git(checkout, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads/").out
    pairs = (line.partition(" ") for line in listed.split("\n") if line)
    return {branch: tip for tip, _, branch in pairs}


def _branch(known: BranchChanges, ties: dict[str, str]) -> str | None:
    """A renamed one by its new name; not the copy that `git branch -c` made, tie and all."""
    if ties.get(known.branch) == known.id:
        return known.branch
    return next((branch for branch, task_id in ties.items() if task_id == known.id), None)


def _known(store: Store, task_id: str, stamp: tuple[int, ...]) -> tuple[BranchChanges | None, BranchChanges | None]:
    """As noted, and the same with title, branch and base as they are now; None for a task that cannot be read."""
    noted = _noted(store, task_id)
    if noted is not None and noted.stamp == stamp:
        return noted, noted
    try:
        task = store.get(task_id)
    except TaskError:
        return noted, None
    facts = {**_facts(task), "stamp": stamp}
    return noted, replace(noted, **facts) if noted else BranchChanges(task_id, **facts)


def _facts(task: Task) -> dict[str, Any]:
    return {
        "is_open": task.is_open,
        "title": task.title,
        "branch": task.branch,
        "base_branch": task.base.branch or "",
        "base_commit": task.base.commit if _SHA.fullmatch(task.base.commit) else "",
    }


def _stamp(store: Store, task_id: str) -> tuple[int, ...] | None:
    """Changes with every event of the task, the time last."""
    try:
        found = store.layout.state(task_id).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _noted(store: Store, task_id: str) -> BranchChanges | None:
    found = notes.read(store.layout.changed(task_id))
    if found is None or found.keys() != set(names_of(BranchChanges)) or found["id"] != task_id:
        return None
    texts = ("title", "branch", "base_branch", "base_commit", "tip", "onto", "base")
    files, hunks, stamp = found["files"], found["hunks"], found["stamp"]
    is_sound = (
        all(isinstance(found[name], str) for name in texts)
        and isinstance(found["is_open"], bool)
        and isinstance(found["count"], int)
        and isinstance(stamp, list)
        and isinstance(files, dict)
        and set(map(type, files.values())) <= {str}
        and isinstance(hunks, dict)
        and all(_are_hunks(one) for one in hunks.values())
    )
    return BranchChanges(**{**found, "stamp": tuple(stamp)}) if is_sound else None


def _are_hunks(found: object) -> bool:
    return found is None or (
        isinstance(found, list)
        and all(isinstance(h, list) and len(h) == 4 and all(isinstance(n, int) for n in h) for h in found)
    )


def _brought_up_to_date(
    store: Store, checkout: Checkout, stale: Sequence[tuple[BranchChanges, BranchChanges]]
) -> list[BranchChanges]:
    """`stale`: as noted, and with the tips of now.

    Whatever git does not have any more is noted as without a base, and not asked for until a tip moves again.
    """
    bases: dict[str, str] = {}
    each([one for _, one in stale if one.onto], lambda some: bases.update(_bases(checkout, some)))
    made = {one.id: replace(one, base=bases.get(one.id, "")) for _, one in stale}
    moved = [made[old.id] for old, _ in stale if made[old.id].base and made[old.id].key != old.key]

    def compare(some: Sequence[BranchChanges]) -> None:
        for one, files in zip(some, _files(checkout, some), strict=True):
            kept = dict(sorted(files.items())[:MOST_FILES])
            pairs = {" ".join(meta.split(" ")[2:4]) for meta in kept.values()}
            hunks = {pair: found for pair, found in one.hunks.items() if pair in pairs}
            made[one.id] = replace(one, files=kept, count=len(files), hunks=hunks)

    for refused in each(moved, compare) if moved else ():
        made[refused.id] = replace(refused, base="")
    for one in made.values():
        note(store, one)
    return list(made.values())


def _bases(checkout: Checkout, some: Sequence[BranchChanges]) -> Iterator[tuple[str, str]]:
    """Id and merge base. `A...B` is answered with the two commits and every `^base`."""
    asked = (f"{one.onto}...{one.tip}" for one in some)
    lines = plumbing.git(checkout, *OBJECTS_ONLY, "rev-parse", *asked).out.split()
    starts = [at for at, line in enumerate(lines) if not line.startswith("^")][::2]
    for one, at in zip(some, starts, strict=True):
        if len(lines) > at + 2 and lines[at + 2].startswith("^"):
            yield one.id, lines[at + 2][1:]


def _files(checkout: Checkout, some: Sequence[BranchChanges]) -> list[dict[str, str]]:
    asked_b = "".join(f"{one.key}\n" for one in some).encode()
    flags = (*DIFF, "-z", "--raw", "--no-abbrev", NO_SUBMODULES)
    parts = plumbing.git(checkout, *OBJECTS_ONLY, *flags, stdin_b=asked_b).out_b.split(b"\0")
    found: list[dict[str, str]] = []
    rest = iter(parts)
    for part in rest:
        if _HEADER.fullmatch(part):
            found.append({})
        elif part.startswith(b":"):
            found[-1][next(rest).decode(errors="surrogateescape")] = part.decode()
    if len(found) != len(some):
        raise TaskError("git does not have every commit", hint="git fsck", code="git")
    return found


def _forget(store: Store, ids: Iterable[str]) -> None:
    """Notes of tasks that have no branch any more."""
    known = set(ids)
    with suppress(OSError):
        for path in list(store.layout.changed("x").parent.iterdir()):
            if is_id(path.stem) and path.stem not in known:
                path.unlink(missing_ok=True)
