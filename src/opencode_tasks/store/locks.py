"""Locks between processes: `flock` on files that are never unlinked.

The kernel releases them when the holder dies, so nothing is ever broken by age. The order is create → `.layer` and
`.git` of a task → `.still` of its container → checkpoints-upkeep → `.checkpoints` of a task → checkpoints → registry →
tasks (sorted) → index; but for the first four, none is held across a call to Docker.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from opencode_tasks.errors import ConflictError
from opencode_tasks.store.files import refused_writes

_POLL_S = 0.002
DEFAULT_TIMEOUT_S = 10.0


class LockTimeout(ConflictError):  # noqa: N818 (the field's word, as in filelock)
    """Somebody held the lock for the whole of the timeout."""

    code = "locked"


def locked(
    path: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S, hot: bool = False
) -> AbstractContextManager[None]:
    """Hold the lock at `path`. Raises `LockTimeout` that names the holder.

    `hot` takes the very same lock (filelock's Unix lock is `flock`) through `fcntl`:
    a git hook saves 36 ms of imports by it.
    """
    return _Flock(str(path), timeout_s) if hot else _by_filelock(Path(path), timeout_s)


@contextmanager
def _by_filelock(path: Path, timeout_s: float) -> Iterator[None]:
    from filelock import Timeout, UnixFileLock

    with refused_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = UnixFileLock(path, timeout=timeout_s, mode=0o600, fallback_to_soft=False, preserve_lock_file=True)
    try:
        with refused_writes(path):
            lock.acquire(poll_interval=_POLL_S)
    except Timeout as e:
        raise _timed_out(path, timeout_s) from e
    try:
        yield
    finally:
        lock.release()


class _Flock:
    """A class and no generator: every event pays for it."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._fd = -1

    def __enter__(self) -> None:
        try:
            fd = os.open(self._path, _FLAGS, 0o600)
        except OSError:
            fd = self._opened()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def __exit__(self, *raised: object) -> None:
        os.close(self._fd)

    def _opened(self) -> int:
        with refused_writes(self._path):
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, _FLAGS, 0o600)

    def _wait(self, fd: int) -> None:
        until, pause_s = time.monotonic() + self._timeout_s, _POLL_S / 16
        try:
            while time.monotonic() <= until:
                time.sleep(pause_s)
                pause_s = min(_POLL_S, pause_s * 2)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                return
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        raise _timed_out(Path(self._path), self._timeout_s)


_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def unchanging(path: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[None]:
    """Keep writers out where the lock's file can only be read: another mount of the same files may be writable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield  # nobody has ever locked it
        return
    with _shared(fd, path, timeout_s):
        yield


@contextmanager
def shared(path: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock together with others that do so. Raises as `locked`."""
    with refused_writes(path):
        fd = os.open(path, _FLAGS, 0o600)
    with _shared(fd, path, timeout_s):
        yield


@contextmanager
def _shared(fd: int, path: Path | str, timeout_s: float) -> Iterator[None]:
    until = time.monotonic() + timeout_s
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            if time.monotonic() > until:
                raise _timed_out(Path(path), timeout_s)
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


def _timed_out(path: Path, timeout_s: float) -> LockTimeout:
    who = holder(path) or "another process"
    return LockTimeout(f"{path} was held by {who} for {timeout_s:g} s", hint="try again when it has finished")


def holder(path: Path) -> str | None:
    """Who holds the lock, as the kernel says (Linux); None when nobody does, or it does not say."""
    with suppress(OSError, ValueError, IndexError):
        wanted = path.stat()
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF
            words = line.split()
            major, minor, inode = words[5].split(":")
            if words[1] != "FLOCK" or int(inode) != wanted.st_ino:
                continue
            if (int(major, 16), int(minor, 16)) == (os.major(wanted.st_dev), os.minor(wanted.st_dev)):
                pid = words[4]
                command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {pid} ({command.strip()[:120]})"
    return None
