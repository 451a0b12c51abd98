"""Ignored files that come along into a new worktree: what `.worktreeinclude` of the main checkout names.

Git says which files are meant, and that they are ignored on both sides. They are read and written by
directory descriptors, for an agent may be at work in the main checkout, and a branch may have a link where the
main checkout has a folder.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from opencode_tasks.store.layout import LINK
from opencode_tasks.values import value

FILE = ".worktreeinclude"
MOST_FILES = 20_000
MOST_BYTES = 1 << 30
_LARGEST_LIST_B = 64 * 1024
_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK  # a FIFO would wait for its writer


@value
class Brought:
    """`paths` came along, `left` did not: each with the reason."""

    paths: tuple[str, ...] = ()
    size_bytes: int = 0
    left: tuple[str, ...] = ()


def bring(main: Checkout, new: Checkout, tell: Callable[[int, int], None] = lambda *_: None) -> Brought:
    """Copy them. Never over something that is there, never more than `MOST_FILES` and `MOST_BYTES`: then nothing.

    Raises `TaskError` when the disk is full.
    """
    if not os.path.lexists(main.top / FILE) or new.top == main.top:
        return Brought()
    patterns_b = _patterns(main.top / FILE)
    if patterns_b is None:
        return Brought(left=(f"everything: {FILE} is no ordinary file of at most {_LARGEST_LIST_B // 1024} KiB",))
    named = _named(main, patterns_b)
    safe = [path for path in named if not _leads_away(new.top, path)]
    both = set(_ignored(new, safe))
    left = [f"{path}: git does not ignore it in the worktree" for path in named if path not in both]
    wanted, size_bytes = _measured(main.top, [path for path in named if path in both])
    if len(wanted) > MOST_FILES or size_bytes > MOST_BYTES:
        said = f"{len(wanted)} files with {size_bytes >> 20} MiB"
        most = f"more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB do not come along"
        return Brought(left=(f"everything: {FILE} names {said}, and {most}: narrow its patterns", *left))
    return _copied(main.top, new.top, wanted, left, tell)


def differing(main: Checkout, worktree: Checkout) -> tuple[str, ...]:
    """What git ignores in the worktree, file by file, less what is `no_work` or the same in the main checkout."""
    from opencode_tasks.git import no_work, submodule_trees

    is_no_work = no_work.of(worktree)
    listed = plumbing.git(worktree, "ls-files", "--others", "--ignored", "--exclude-standard", "-z").out.split("\0")
    with _Folder(main.top) as ours, _Folder(worktree.top) as theirs:
        own = (p for p in listed if p and p != LINK and not is_no_work(p) and not _is_same(ours, theirs, p))
        return (*own, *submodule_trees.ignored(worktree))


def _patterns(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as f:
            content_b = f.read(_LARGEST_LIST_B + 1) if stat.S_ISREG(os.fstat(f.fileno()).st_mode) else None
    except OSError:
        return None
    return None if content_b is None or len(content_b) > _LARGEST_LIST_B else content_b


def _named(main: Checkout, patterns_b: bytes) -> list[str]:
    """Nothing of a nested repository, which git lists as a folder, and not our own link."""
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(prefix="worktreeinclude.") as listed:  # what was looked at is what git reads
        listed.write(patterns_b)
        listed.flush()
        words = ("ls-files", "--others", "--ignored", f"--exclude-from={listed.name}", "-z")
        found = plumbing.git(main, *words).out.split("\0")
    return _ignored(main, [p for p in found if p and not p.endswith("/") and p.split("/")[0] not in (LINK, ".git")])


def _ignored(checkout: Checkout, paths: Iterable[str]) -> list[str]:
    stdin_b = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not stdin_b:
        return []
    done = plumbing.git(checkout, "check-ignore", "-z", "--stdin", stdin_b=stdin_b, check=False)
    if done.code not in (0, 1):
        raise TaskError(
            f"git cannot tell what it ignores in {checkout.top}: {done.err.strip()}",
            hint=f"git -C {checkout.top} check-ignore -v FILE",
            code="git",
        )
    return [path for path in done.out.split("\0") if path]


def _leads_away(top: Path, path: str) -> bool:
    """Whether there is a link above it: git refuses such a path, and so do we."""
    return any((top / parent).is_symlink() for parent in Path(path).parents)


def _measured(top: Path, paths: list[str]) -> tuple[list[str], int]:
    size_bytes, wanted = 0, []
    for path in paths:
        with suppress(OSError):  # gone meanwhile
            size_bytes += (top / path).lstat().st_size
            wanted.append(path)
    return wanted, size_bytes


def _copied(
    source: Path, target: Path, wanted: list[str], left: list[str], tell: Callable[[int, int], None]
) -> Brought:
    done, size_bytes = [], 0
    with _Folder(source) as ours, _Folder(target) as theirs, files.refused_writes(target):
        for number, path in enumerate(wanted):
            tell(number, len(wanted))
            try:
                size_bytes += _copy(ours, theirs, path, MOST_BYTES - size_bytes)
                done.append(path)
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                left.append(f"{path}: {e.strerror}")
    return Brought(tuple(done), size_bytes, tuple(left))


class _Folder:
    """A directory and those below it, opened without following links; the last one stays open for its neighbours."""

    def __init__(self, top: Path) -> None:
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._at, self._fd = "", os.dup(self._top)

    def __enter__(self) -> "_Folder":
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self._fd)
        os.close(self._top)

    def above(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """The folder of `path`, and the name in it. Raises `OSError`."""
        folder, _, name = path.rpartition("/")
        if folder != self._at:
            fd = self._entered(folder, make=make)
            os.close(self._fd)
            self._at, self._fd = folder, fd
        return self._fd, name

    def _entered(self, folder: str, *, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        parts = folder.split("/") if folder else []
        if make:
            for depth in range(1, len(parts) + 1):
                at = files.open_without_links("/".join(parts[: depth - 1]), flags, at=self._top)
                with suppress(FileExistsError):
                    os.mkdir(parts[depth - 1], dir_fd=at)
                os.close(at)
        return files.open_without_links(folder, flags, at=self._top)


def _copy(ours: _Folder, theirs: _Folder, path: str, most_bytes: int) -> int:
    at, name = ours.above(path)
    kind = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    if stat.S_ISLNK(kind):
        to, _ = theirs.above(path, make=True)
        os.symlink(os.readlink(name, dir_fd=at), name, dir_fd=to)
        return 0
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "no file and no link")
    source = os.open(name, _READ | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        seen = os.fstat(source)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > most_bytes:
            raise OSError(errno.EFBIG, "it grew meanwhile")
        to, _ = theirs.above(path, make=True)
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=to)
        try:
            _pour(source, target, seen.st_size)
            os.fchmod(target, seen.st_mode & 0o777)
            os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        except BaseException:
            os.unlink(name, dir_fd=to)
            raise
        finally:
            os.close(target)
        return seen.st_size
    finally:
        os.close(source)


def _pour(source: int, target: int, size_bytes: int) -> None:
    """No more than it had when we looked. Where the file system can, the two share their blocks."""
    left = size_bytes
    with suppress(AttributeError, OSError):  # a system, or a pair of file systems, that cannot
        while left and (done := os.copy_file_range(source, target, left)):
            left -= done
    while left and (chunk := os.read(source, min(left, _CHUNK))):
        files.write_all(target, chunk)
        left -= len(chunk)


def _is_same(ours: _Folder, theirs: _Folder, path: str) -> bool:
    try:
        (at, name), (to, _) = ours.above(path), theirs.above(path)
        one, other = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (at, to))
        if stat.S_ISLNK(one.st_mode) and stat.S_ISLNK(other.st_mode):
            return os.readlink(name, dir_fd=at) == os.readlink(name, dir_fd=to)
        if not (stat.S_ISREG(one.st_mode) and stat.S_ISREG(other.st_mode)) or one.st_size != other.st_size:
            return False
        one_fd = files.open_without_links(name, _READ, at=at)
        with os.fdopen(one_fd, "rb", buffering=0) as a:
            return _is_same_content(a, files.open_without_links(name, _READ, at=to))
    except OSError:
        return False


def _is_same_content(a: BinaryIO, other: int) -> bool:
    with os.fdopen(other, "rb", buffering=0) as b:
        while True:
            chunk_b = a.read(_CHUNK)
            if chunk_b != b.read(_CHUNK):
                return False
            if not chunk_b:
                return True
