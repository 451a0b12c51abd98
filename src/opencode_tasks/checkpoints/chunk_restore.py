"""A big file put back: written beside the present one, every byte compared, and renamed over it."""

import os
import stat
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.checkpoints.chunk_folder import ChunkFolder, workers
from opencode_tasks.checkpoints.cutting import HOLE, MOST_B, Piece, read_into
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files

if TYPE_CHECKING:
    from concurrent.futures import Future

TEMPORARY = ".opencode-tasks-restoring-"
"""How the name of a file begins that a restore killed in its last moment may leave; 32 hex digits follow."""

_AT_ONCE = 8
Located = tuple[int, Piece]


@contextmanager
def opened_folder(top: Path, name: str = "") -> Iterator[int]:
    """The directory `name` below `top`, by names only. Raises `TaskError`."""
    try:
        above = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = files.open_without_links(name, os.O_RDONLY | os.O_DIRECTORY, at=above)
        finally:
            os.close(above)
    except OSError as e:
        raise TaskError(
            f"{top / name} is no folder: {e.strerror}",
            hint="nothing was changed; run the command again",
            code="workspace",
        ) from e
    try:
        yield fd
    finally:
        os.close(fd)


def restore(
    folder: ChunkFolder, pieces: Sequence[Piece], present: Sequence[Piece], top: Path, name: str, *, mode: int
) -> None:
    above, _, own_name = name.rpartition("/")
    with opened_folder(top, above) as at, _Target(at) as target:
        with _present(at, own_name) as source:
            _Filling(folder, target.fd, present, source).run(pieces)
        os.fchmod(target.fd, mode)
        os.fsync(target.fd)
        try:
            target.take_the_place_of(own_name)
        except IsADirectoryError as e:
            raise TaskError(
                f"A folder stands in the place of {name}", hint="move it away, then restore again", code="collision"
            ) from e


class _Target:
    """A file in the directory `at`; where the system can, without a name while it is filled: a kill leaves nothing."""

    def __init__(self, at: int) -> None:
        self._at, self._name, self._named = at, TEMPORARY + os.urandom(16).hex(), False

    def __enter__(self) -> "_Target":
        try:
            self.fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self._at)
        except (AttributeError, OSError):  # not Linux; NFS and others
            self.fd = self._with_a_name()
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self.fd)
        if self._named:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._at)

    def take_the_place_of(self, name: str) -> None:
        if not self._named:
            self._named = True
            os.link(f"/proc/self/fd/{self.fd}", self._name, dst_dir_fd=self._at, follow_symlinks=True)
        os.rename(self._name, name, src_dir_fd=self._at, dst_dir_fd=self._at)
        self._named = False
        os.fsync(self._at)

    def _with_a_name(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._name, flags, 0o600, dir_fd=self._at)
        self._named = True
        return fd


@contextmanager
def _present(at: int, name: str) -> Iterator[int | None]:
    """What has the name now, if it is a file that can be read."""
    fd = None
    try:
        with suppress(OSError):
            fd = files.open_without_links(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, at=at)
        yield fd if fd is not None and stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        if fd is not None:
            os.close(fd)


class _Filling:
    def __init__(self, folder: ChunkFolder, target: int, present: Sequence[Piece], source: int | None) -> None:
        self._folder, self._target, self._source = folder, target, source
        self._where = {piece[1]: at for at, piece in _located(present)}
        self._own = threading.local()

    def run(self, pieces: Sequence[Piece]) -> None:
        """Raises `UnsoundError` when a piece is neither in the present file nor in the folder."""
        from concurrent.futures import ThreadPoolExecutor

        os.ftruncate(self._target, sum(length for length, _ in pieces))
        located = [one for one in _located(pieces) if one[1][1] != HOLE]
        going: deque[Future[None]] = deque()
        with ThreadPoolExecutor(workers()) as pool:
            try:
                for first in range(0, len(located), _AT_ONCE):
                    going.append(pool.submit(self._fill, located[first : first + _AT_ONCE]))
                    if len(going) > workers():
                        going.popleft().result()
                while going:
                    going.popleft().result()
            finally:
                for one in going:
                    one.cancel()

    def _fill(self, located: Sequence[Located]) -> None:
        for at, piece in located:
            if (view := self._from_present(piece)) is None:
                view = memoryview(self._folder.read(piece))
            with view:
                _write_at(self._target, view, at)

    def _from_present(self, piece: Piece) -> memoryview | None:
        from blake3 import blake3

        length, digest_b = piece
        at = self._where.get(digest_b)
        if self._source is None or at is None or length > MOST_B:
            return None
        if not hasattr(self._own, "buffer"):
            self._own.buffer = bytearray(MOST_B)
        view = memoryview(self._own.buffer)[:length]
        with suppress(TaskError):
            if read_into(self._source, view, at) == length and blake3(view).digest() == digest_b:
                return view
        view.release()
        return None


def _located(pieces: Sequence[Piece]) -> Iterator[Located]:
    at = 0
    for piece in pieces:
        yield at, piece
        at += piece[0]


def _write_at(fd: int, view: memoryview, at: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], at + done)
