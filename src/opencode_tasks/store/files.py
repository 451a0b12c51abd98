"""Writing a whole file so that a reader, or a crash, finds the old bytes or the new ones."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks.errors import TaskError


def replace(path: Path, content_b: bytes, *, durable: bool = False) -> None:
    """Temp file beside `path`, then rename over it; a file that was there keeps its mode.

    Without `durable` a power loss may leave old or torn bytes: only for projections,
    which carry a checksum and are rebuilt from the log.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with refused_writes(path):
        try:
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                with suppress(FileNotFoundError):
                    os.fchmod(fd, path.stat().st_mode & 0o7777)
                _allocate(fd, len(content_b))
                write_all(fd, content_b)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            temp.replace(path)
            if durable:
                sync_dir(path.parent)
        except OSError:
            with suppress(OSError):
                temp.unlink()
            raise


def _allocate(fd: int, size_bytes: int) -> None:
    """Ext4 writes a file without blocks out at once when it is renamed over another: 2 ms instead of 0.1."""
    if size_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def write_all(fd: int, content_b: bytes) -> None:
    """`os.write` until all is written; a short write is how a full disk first shows."""
    view = memoryview(content_b)
    while view:
        view = view[os.write(fd, view) :]


def open_without_links(path: str, flags: int, *, at: int | None = None) -> int:
    """A descriptor of `path`, absolute or below the directory `at`. `OSError` where any part of it is a link."""
    *folders, name = [part for part in path.split("/") if part] or ["."]
    enter = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("/", enter) if at is None else os.dup(at)
    try:
        for folder in folders:
            inner = os.open(folder, enter, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)


def sync(path: Path, flags: int = os.O_NOFOLLOW) -> None:
    """Wait until the disk has what was written to the file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    """Wait until the disk has the names that were made in it."""
    sync(path, os.O_DIRECTORY)


def stamp(path: Path) -> list[int] | None:
    """As JSON gives it back; another one when the file is another or was written to. None: there is nothing to see.

    Of a link, the link itself.
    """
    with suppress(OSError, ValueError):
        found = path.lstat()
        return [found.st_ino, found.st_mtime_ns, found.st_size]
    return None


def remove_tree(path: Path) -> None:
    """Whatever rights a container left in it, if it is there. No link is followed; nobody may write there meanwhile."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        _open_up(path)
        shutil.rmtree(path)


def _open_up(folder: Path) -> None:
    if folder.stat().st_mode & 0o700 != 0o700:
        folder.chmod(0o700)
    with os.scandir(folder) as entries:
        inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for each in inner:
        _open_up(each)


@contextmanager
def refused_writes(path: Path | str) -> Iterator[None]:
    """Turn the file system's refusals into errors with the next step."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TaskError(
                f"The disk is full: {path} was not written, and what was there is kept",
                hint=f"free space on the file system of {Path(path).parent}, then run the command again",
                code="disk_full",
            ) from e
        if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise TaskError(
                f"{path} cannot be written: {e.strerror}",
                hint="run as the owner of the repository, on a writable file system",
                code="read_only",
            ) from e
        raise


def is_real(path: Path) -> bool:
    """Without a link on the way: an agent may have planted it, and a mount would follow it on the host."""
    try:
        return path.resolve(strict=True) == path
    except (OSError, RuntimeError):
        return False
