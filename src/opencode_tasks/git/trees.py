"""What a commit holds, straight from git's objects: no work tree, no filters, no attributes, no replacements."""

import posixpath
from collections.abc import Iterator, Sequence

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.values import value

LINK = "120000"
SUBMODULE = "160000"
EXECUTABLE = "100755"


@value
class Entry:
    """`mode` as git writes it; `path` from the folder that was asked for. A folder or submodule has no size."""

    mode: str
    sha: str
    size_bytes: int
    path: str

    @property
    def is_file(self) -> bool:
        return self.mode.startswith("100")


def entry(checkout: Checkout, commit: str, path: str) -> Entry | None:
    """What stands at `path`, which leads through no link."""
    return first(checkout, commit, [path])


def first(checkout: Checkout, commit: str, paths: Sequence[str]) -> Entry | None:
    """The first of `paths` that the commit has. Raises `TaskError` (code `no_revision`) when it is not here itself."""
    try:
        found = {one.path: one for one in _listed(checkout, "--full-tree", commit, "--", *paths)}
    except TaskError as e:
        raise TaskError(
            f"Commit {commit[:9]} is not here", hint="git fetch it, or: git fsck", code="no_revision"
        ) from e
    return next((found[path] for path in paths if path in found), None)


def entries(checkout: Checkout, commit: str, folder: str) -> list[Entry]:
    """Every file, link and submodule below `folder` (empty: the root). Raises `TaskError` when there is none."""
    try:
        return _listed(checkout, "-r", f"{commit}:{folder}")
    except TaskError as e:
        raise TaskError(f"{folder or 'The root'} is no folder of commit {commit[:9]}", code="no_revision") from e


def contents(checkout: Checkout, found: Sequence[Entry]) -> Iterator[bytes]:
    """Of files and links, in their order. Few are in memory at a time."""
    batch: list[Entry] = []
    for one in found:
        if batch and sum(e.size_bytes for e in batch) + one.size_bytes > _BATCH_BYTES:
            yield from _contents(checkout, batch)
            batch = []
        batch.append(one)
    if batch:
        yield from _contents(checkout, batch)


_BATCH_BYTES = 16 << 20


def _contents(checkout: Checkout, batch: Sequence[Entry]) -> Iterator[bytes]:
    asked_b = "".join(f"{e.sha}\n" for e in batch).encode()
    out_b = plumbing.git(checkout, _AS_IS, "cat-file", "--batch", stdin_b=asked_b).out_b
    at = 0
    for one in batch:
        end = out_b.index(b"\n", at)
        if out_b[at:end] != f"{one.sha} blob {one.size_bytes}".encode():
            raise TaskError(f"git does not have {one.path} ({one.sha})", hint="git fsck", code="git")
        at = end + 1 + one.size_bytes + 1
        yield out_b[end + 1 : at - 1]


def _listed(checkout: Checkout, *args: str) -> list[Entry]:
    out = plumbing.git(checkout, _AS_IS, "ls-tree", "-z", "--long", *args).out
    found = []
    for line in out.split("\0"):
        if line:
            about, _, path = line.partition("\t")
            mode, _, sha, size = about.split()
            found.append(Entry(mode, sha, int(size) if size.isdigit() else 0, path))
    return found


_AS_IS = "--no-replace-objects"


def leaves(path: str, target: str) -> bool:
    """Whether a link at `path` may lead out of the tree. A `..` behind a name is one too many: that may be a link."""
    climbs = [part for part in target.split("/") if part not in ("", ".")]
    while climbs and climbs[0] == "..":
        climbs.pop(0)
    up = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return target.startswith("/") or ".." in climbs or up == ".." or up.startswith("../")
