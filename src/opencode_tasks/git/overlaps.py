"""Which other open tasks changed the same files, and the same lines of them.

Two changes are in the same region when both began with the very same content of a file and their lines in it overlap
or adjoin: then a merge of both asks a person. Where the content they began with differs, and for binary files and
changes of mode, only the file is said. Deleted on one side, or made on both, a file is one region. A file on one side
where the other has a folder is the same file.

A task that was begun at another one's tip is not held against it: it has that one's changes.

What was told at a task's last commit is noted beside the cache (`Layout.overlaps_told`), not in its log: it says
nothing about the task, and when it is lost the same is told once more, no worse.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from opencode_tasks.git import branch_changes, hunks, plumbing
from opencode_tasks.git.branch_changes import MOST_FILES, MOST_TASKS, BranchChanges
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.hunks import Hunk
from opencode_tasks.store import Store, notes
from opencode_tasks.values import replace, value

Kind = Literal["file", "region"]

_LARGEST_B = 512 << 10
_MOST_READ, _MOST_READ_B = 200, 8 << 20
_META = re.compile(r":([0-7]{6}) ([0-7]{6}) ([0-9a-f]{40,64}) ([0-9a-f]{40,64}) ([A-Z])")


@value
class SharedFile:
    """`lines`: what of it we changed there, first and last line as our branch has them; none for a whole file."""

    path: str
    kind: Kind
    lines: tuple[tuple[int, int], ...] = ()


@value
class Overlap:
    task: str
    title: str
    files: tuple[SharedFile, ...]


@value
class Found:
    """`cut`: sentences about what was not looked at, because there is too much of it."""

    overlaps: tuple[Overlap, ...] = ()
    cut: tuple[str, ...] = ()


def find(store: Store, checkout: Checkout, task_id: str) -> Found:
    """Of an open task; nothing for one that is closed, or whose branch or base is gone. Writes only the cache."""
    changed, is_cut = branch_changes.of_open_tasks(store, checkout, task_id)
    ours = changed.pop(task_id, None)
    if ours is None:
        return Found()
    others = [other for other in changed.values() if ours.base != other.tip and other.base != ours.tip]
    ours, others, is_unread = _with_hunks(store, checkout, ours, others)
    folders = _folders(ours)
    overlaps = [Overlap(o.id, o.title, files) for o in others if (files := tuple(_shared(ours, folders, o)))]
    cut = [f"only the {MOST_TASKS} tasks that changed last were compared"] if is_cut else []
    cut += [f"only {MOST_FILES} files of {one.id} were compared" for one in (ours, *others) if one.count > MOST_FILES]
    cut += ["of some files the lines are compared the next time"] if is_unread else []
    return Found(tuple(overlaps), tuple(cut))


def news(store: Store, task_id: str, found: Found) -> Found:
    """What of it was not told at the last commit of the task; from now on it was."""
    path = store.layout.overlaps_told(task_id)
    told = notes.read(path) or {"overlaps": {}, "cut": []}
    telling = {o.task: {f.path: f.kind for f in o.files} for o in found.overlaps}
    now = {"overlaps": telling, "cut": list(found.cut)}
    if told == now:
        return Found()
    notes.write(path, now)
    before, cut = told.get("overlaps"), told.get("cut")
    fresh = [replace(o, files=tuple(f for f in o.files if not _was_told(before, o.task, f))) for o in found.overlaps]
    return Found(
        tuple(o for o in fresh if o.files), tuple(c for c in found.cut if not isinstance(cut, list) or c not in cut)
    )


def _was_told(before: object, task_id: str, file: SharedFile) -> bool:
    files = before.get(task_id) if isinstance(before, dict) else None
    kind = files.get(file.path) if isinstance(files, dict) else None
    return kind in ("region", file.kind)


class _Meta(NamedTuple):
    """What became of a file: see gitformat-diff's raw output."""

    mode_before: str
    mode: str
    before: str
    after: str
    status: str

    @property
    def pair(self) -> str:
        return f"{self.before} {self.after}"

    @property
    def is_of_lines(self) -> bool:
        return self.status == "M" and self.before != self.after

    @property
    def is_whole(self) -> bool:
        return self.status in "ADT"


def _meta(said: str) -> _Meta | None:
    found = _META.fullmatch(said)
    return _Meta(*found.groups()) if found else None


def _shared(ours: BranchChanges, our_folders: set[str], theirs: BranchChanges) -> Iterator[SharedFile]:
    both = ours.files.keys() & theirs.files.keys()
    for path in sorted(both):
        yield _compared(path, ours, theirs)
    for path in sorted((_in_the_way(ours, _folders(theirs)) | _in_the_way(theirs, our_folders)) - both):
        yield SharedFile(path, "file")


def _compared(path: str, ours: BranchChanges, theirs: BranchChanges) -> SharedFile:
    our, their = _meta(ours.files[path]), _meta(theirs.files[path])
    if our is None or their is None or our.before != their.before:
        return SharedFile(path, "file")
    if our.is_whole or their.is_whole:
        return SharedFile(path, "region")
    our_hunks, their_hunks = ours.hunks.get(our.pair), theirs.hunks.get(their.pair)
    if not our_hunks or not their_hunks:
        return SharedFile(path, "file")
    touching = hunks.touching(our_hunks, their_hunks)
    return SharedFile(path, "region" if touching else "file", tuple(map(_lines, touching)))


def _lines(hunk: Hunk) -> tuple[int, int]:
    start, count = hunk[2:]
    return (start, start + count - 1) if count else (max(1, start), max(1, start))


def _folders(changed: BranchChanges) -> set[str]:
    """Every folder with a file that is there."""
    found: set[str] = set()
    for path, said in changed.files.items():
        if "/" in path and not _is_gone(said):
            parts = path.split("/")
            found.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return found


def _in_the_way(files: BranchChanges, folders: set[str]) -> set[str]:
    """Files of the one that are folders of the other."""
    return {path for path in files.files.keys() & folders if not _is_gone(files.files[path])}


def _is_gone(said: str) -> bool:
    return said.endswith(" D")


def _with_hunks(
    store: Store, checkout: Checkout, ours: BranchChanges, others: Sequence[BranchChanges]
) -> tuple[BranchChanges, list[BranchChanges], bool]:
    """Both, with the hunks of the files whose lines have to be compared, and whether some are left for the next time.

    Two more processes, when a file is new among them.
    """
    wanted: dict[str, dict[str, str]] = {}
    for other in others:
        for path in ours.files.keys() & other.files.keys():
            our, their = _meta(ours.files[path]), _meta(other.files[path])
            if our and their and our.before == their.before and our.is_of_lines and their.is_of_lines:
                for one, meta in ((ours, our), (other, their)):
                    if meta.pair not in one.hunks:
                        wanted.setdefault(one.id, {})[path] = meta.pair
    asked = [one for one in (ours, *others) if one.id in wanted]
    known, is_cut = _read(checkout, asked, sorted({path for paths in wanted.values() for path in paths}))
    made = {one.id: one for one in (ours, *others)}
    for one in asked:
        new = {pair: known[pair] for pair in wanted[one.id].values() if pair in known}
        made[one.id] = replace(one, hunks={**one.hunks, **new})
        branch_changes.note(store, made[one.id])
    return made[ours.id], [made[other.id] for other in others], is_cut


def _read(
    checkout: Checkout, asked: Sequence[BranchChanges], paths: Sequence[str]
) -> tuple[dict[str, list[Hunk] | None], bool]:
    """Pairs of blobs to the hunks between them, and whether some of `paths` are left out.

    Large files count as binary. Git's own bound is off where attributes, which the repository has, say that a file
    is text; what its patch takes is therefore known before.
    """
    if not asked:
        return {}, False
    metas = {path: [m for one in asked if path in one.files and (m := _meta(one.files[path]))] for path in paths}
    sizes = _sizes(checkout, {blob for several in metas.values() for m in several for blob in (m.before, m.after)})
    found: dict[str, list[Hunk] | None] = {}
    chosen: list[str] = []
    left_b, is_cut = _MOST_READ_B, False
    for path, several in metas.items():
        each_b = [sizes.get(blob, _LARGEST_B) for m in several for blob in (m.before, m.after)]
        if max(each_b) >= _LARGEST_B:
            found.update({m.pair: None for m in several})
        elif sum(each_b) > left_b or len(chosen) == _MOST_READ:
            is_cut = True
        else:
            chosen.append(path)
            left_b -= sum(each_b)
    if chosen:
        branch_changes.each(asked, lambda some: found.update(_hunks(checkout, some, chosen)))
    return found, is_cut


def _sizes(checkout: Checkout, blobs: set[str]) -> dict[str, int]:
    """Of those that are here."""
    asked_b = "".join(f"{blob}\n" for blob in sorted(blobs)).encode()
    flags = (*branch_changes.OBJECTS_ONLY, "cat-file", "--batch-check=%(objectname) %(objectsize)")
    lines = plumbing.git(checkout, *flags, check=False, stdin_b=asked_b).out.split("\n")
    found = {sha: int(size) for sha, _, size in (line.partition(" ") for line in lines) if size.isdigit()}
    return found | {blob: 0 for blob in blobs if not blob.strip("0")}


def _hunks(checkout: Checkout, some: Sequence[BranchChanges], paths: Sequence[str]) -> dict[str, list[Hunk] | None]:
    asked_b = "".join(f"{one.key}\n" for one in some).encode()
    flags = (*branch_changes.DIFF, "--patch", "--unified=0", "--full-index", branch_changes.NO_SUBMODULES)
    literally = ("--literal-pathspecs", *branch_changes.OBJECTS_ONLY)
    return hunks.parsed(plumbing.git(checkout, *literally, *flags, "--", *paths, stdin_b=asked_b).out_b)
