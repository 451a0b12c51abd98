"""The folder of the pieces of big files: each compressed, named by its bytes, and on the disk before it has that name.

chunks/<digest>     bytes with that BLAKE3: one zstandard frame; as they are where that would not be shorter
lists/<digest>      what a file is made of: a line, then 40 bytes a piece: length, digest
damaged/<digest>    empty: `verify` found the chunk of this name to be none
temp/               what is being written, and what killed processes left
"""

import os
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from opencode_tasks.checkpoints.cutting import HOLE, Piece
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_HEAD_B = b"opencode-tasks pieces 1\n"
_ENTRY = struct.Struct("<Q32s")
_SAMPLE_B = 64 << 10
_GROUP = 32
_MOST_WAITING = 6


class UnsoundError(TaskError):
    """A chunk or list cannot be had. `name` is its digest."""

    code = "damaged"

    def __init__(self, folder: Path, name: str, what: Literal["missing", "damaged"]) -> None:
        super().__init__(
            f"{folder}: {name} is {what}, and with it the contents of a big file",
            hint="nothing was changed; opencode-tasks checkpoint --verify shows which checkpoints it belongs to",
        )
        self.name, self.what = name, what


class ChunkFolder:
    """Several threads may read and write."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, path / "lock"
        self.chunks, self.lists, self.damaged, self.temp = (
            path / name for name in ("chunks", "lists", "damaged", "temp")
        )
        self._own = threading.local()

    def ensure(self) -> None:
        if self.temp.is_dir():  # the last that is made
            return
        with files.refused_writes(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.chunks, self.lists, self.damaged, self.temp):
                folder.mkdir(mode=0o700, exist_ok=True)
            files.sync_dir(self.path)
            files.sync_dir(self.path.parent)

    def distrusted(self) -> frozenset[str]:
        return frozenset(path.name for path in self.damaged.iterdir())

    def has(self, digest_b: bytes) -> bool:
        return os.access(f"{self.chunks}/{digest_b.hex()}", os.F_OK)

    def read(self, piece: Piece) -> bytes:
        """Raises `UnsoundError`."""
        import zstandard
        from blake3 import blake3

        length, digest_b = piece
        path = self.chunks / digest_b.hex()
        try:
            content_b = path.read_bytes()
        except FileNotFoundError as e:
            raise UnsoundError(self.chunks, path.name, "missing") from e
        with suppress(zstandard.ZstdError):
            # Where a frame says more, nothing is allocated for it.
            if len(content_b) < length and zstandard.frame_content_size(content_b) == length:
                content_b = self._zstd("decompress", zstandard.ZstdDecompressor).decompress(content_b)
        if len(content_b) != length or blake3(content_b).digest() != digest_b:
            raise UnsoundError(self.chunks, path.name, "damaged")
        return content_b

    def read_list(self, digest: str) -> Sequence[Piece]:
        """Raises `UnsoundError`."""
        from blake3 import blake3

        if len(digest) != 64 or not digest.isalnum():
            raise UnsoundError(self.lists, repr(digest), "damaged")
        try:
            list_b = (self.lists / digest).read_bytes()
        except FileNotFoundError as e:
            raise UnsoundError(self.lists, digest, "missing") from e
        if blake3(list_b).hexdigest() != digest or not list_b.startswith(_HEAD_B):
            raise UnsoundError(self.lists, digest, "damaged")
        return list(_ENTRY.iter_unpack(memoryview(list_b)[len(_HEAD_B) :]))

    def examine(self, piece: Piece) -> Literal["missing", "damaged"] | None:
        """What is wrong with it, noted for whoever has its bytes next."""
        noted = self.damaged / piece[1].hex()
        try:
            self.read(piece)
        except UnsoundError as e:
            if e.what == "damaged":
                noted.touch()
            return e.what
        noted.unlink(missing_ok=True)
        return None

    def used_b(self) -> int:
        """As much as the disk gives for it."""
        used = 0
        for path in self.path.glob("*/*"):
            with suppress(FileNotFoundError):
                used += path.lstat().st_blocks * 512
        return used

    def write_list(self, pieces: Iterable[Piece]) -> str:
        """Anew also where it is there: its age tells a sweep that somebody relies on it."""
        from blake3 import blake3

        list_b = _HEAD_B + b"".join(_ENTRY.pack(*piece) for piece in pieces)
        digest: str = blake3(list_b).hexdigest()
        temp = self._write_temp(os.urandom(16).hex(), list_b)
        try:
            files.sync(temp)
            temp.replace(self.lists / digest)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        files.sync_dir(self.lists)
        return digest

    def renew(self, digest: str) -> bool:
        """Of a list: whether it is there, and young now."""
        with suppress(FileNotFoundError):
            os.utime(self.lists / digest)
            return True
        return False

    def write_chunk(self, prefix: str, digest_b: bytes, content_b: bytes) -> Path:
        """Not yet under its name; given one by `settle`."""
        import zstandard

        compress = self._zstd("compress", lambda: zstandard.ZstdCompressor(level=1)).compress
        # To find out with all of it takes as long as it does with what shrinks.
        middle_b = memoryview(content_b)[len(content_b) // 2 :][:_SAMPLE_B]
        frame_b = compress(content_b) if len(compress(middle_b)) < 0.95 * len(middle_b) else content_b
        return self._write_temp(f"{prefix}-{digest_b.hex()}", min(content_b, frame_b, key=len))

    def settle(self, temps: Sequence[Path]) -> None:
        for temp in temps:
            files.sync(temp)
        for temp in temps:
            name = temp.name.partition("-")[2]
            temp.replace(self.chunks / name)
            (self.damaged / name).unlink(missing_ok=True)

    def _write_temp(self, name: str, content_b: bytes) -> Path:
        temp = self.temp / name
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(fd, content_b)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return temp

    def _zstd(self, what: str, make: Any) -> Any:
        """One of each a thread: they are not to be shared, and a new one for each piece costs."""
        if not hasattr(self._own, what):
            setattr(self._own, what, make())
        return getattr(self._own, what)


class Batch:
    """New pieces on their way into the folder; `pool` compresses and writes them."""

    def __init__(self, folder: ChunkFolder, pool: "ThreadPoolExecutor") -> None:
        self._folder, self._pool = folder, pool
        self._prefix = os.urandom(16).hex()
        self._distrusted = folder.distrusted()
        self._added: set[bytes] = set()
        self._writing: deque[Future[Path]] = deque()
        self._written: list[Path] = []
        self._settling: deque[Future[None]] = deque()

    def is_kept(self, digest_b: bytes) -> bool:
        return digest_b.hex() not in self._distrusted and self._folder.has(digest_b)

    def add(self, digest_b: bytes, content_b: bytes) -> None:
        if digest_b in self._added or self.is_kept(digest_b):
            return
        self._added.add(digest_b)
        self._writing.append(self._pool.submit(self._folder.write_chunk, self._prefix, digest_b, content_b))
        if len(self._writing) > _MOST_WAITING:
            self._take()

    def finish(self) -> None:
        while self._writing:
            self._take()
        self._settle()
        while self._settling:
            self._settling.popleft().result()
        files.sync_dir(self._folder.chunks)  # also when all was there: another process may be just before this

    def abandon(self) -> None:
        """When `pool` has ended."""
        for temp in self._folder.temp.glob(f"{self._prefix}-*"):
            temp.unlink(missing_ok=True)

    def _take(self) -> None:
        self._written.append(self._writing.popleft().result())
        if len(self._written) >= _GROUP:
            self._settle()

    def _settle(self) -> None:
        if self._settling:
            self._settling.popleft().result()
        self._settling.append(self._pool.submit(self._folder.settle, self._written))
        self._written = []


def data_of(pieces: Iterable[Piece]) -> Iterator[Piece]:
    return (piece for piece in pieces if piece[1] != HOLE)


def workers() -> int:
    """One more than cores: one waits for the disk."""
    return min(4, (os.cpu_count() or 1) + 1)
