"""Removing what no checkpoint is made of, while nobody holds the folder's lock, as all do who put or restore."""

import os
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from opencode_tasks.checkpoints.chunk_folder import ChunkFolder, data_of
from opencode_tasks.store import locks

_AT_ONCE = 64
"""How many are removed under the lock before whoever waits for it gets it."""

_PATIENCE_S = 5.0


def sweep(folder: ChunkFolder, keep: Set[str], older_than_s: float) -> int:
    """The bytes freed.

    What is put again meanwhile has a young list. Lists go before their chunks: a killed sweep leaves none without.
    """
    older_than_ns = _now_ns(folder) - int(older_than_s * 1e9)
    marks = _Marks(folder)
    for digest in keep:
        marks.add(digest)
    freed = 0
    with suppress(locks.LockTimeout):
        with _alone(folder):  # nobody is writing: what is there is nobody's
            for temp in folder.temp.iterdir():
                freed += _remove(temp)
        for kind in (folder.lists, folder.chunks):
            old = [path for path, time_ns in _times(kind) if time_ns < older_than_ns]
            for first in range(0, len(old), _AT_ONCE):
                with _alone(folder):
                    marks.add_younger(older_than_ns)
                    for path in old[first : first + _AT_ONCE]:
                        if path.name not in marks.names and path.stat().st_mtime_ns < older_than_ns:
                            freed += _remove(path)
                            _remove(folder.damaged / path.name)
    return freed


class _Marks:
    """The names that stay."""

    def __init__(self, folder: ChunkFolder) -> None:
        self._folder = folder
        self.names: set[str] = set()

    def add(self, digest: str) -> None:
        """Raises `UnsoundError`: what an unreadable list names is not known, so nothing may go."""
        if digest not in self.names:
            self.names.update(piece[1].hex() for piece in data_of(self._folder.read_list(digest)))
            self.names.add(digest)

    def add_younger(self, than_ns: int) -> None:
        for path, time_ns in _times(self._folder.lists):
            if time_ns >= than_ns:
                self.add(path.name)


def _alone(folder: ChunkFolder) -> AbstractContextManager[None]:
    return locks.locked(folder.lock, timeout_s=_PATIENCE_S, hot=True)


def _now_ns(folder: ChunkFolder) -> int:
    """By the clock that the times of the files come from."""
    os.utime(folder.temp)
    return folder.temp.stat().st_mtime_ns


def _times(folder: Path) -> Iterator[tuple[Path, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_mtime_ns


def _remove(path: Path) -> int:
    with suppress(FileNotFoundError):
        size_bytes = path.lstat().st_blocks * 512
        path.unlink()
        return size_bytes
    return 0
