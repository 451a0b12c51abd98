"""Big files of checkpoints: cut into pieces, each kept once, however many checkpoints have it.

Taking one again after a change reads all of it, and writes what is new.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from opencode_tasks.checkpoints import chunk_restore, chunk_sweep
from opencode_tasks.checkpoints.chunk_folder import Batch, ChunkFolder, UnsoundError, data_of, workers
from opencode_tasks.checkpoints.cutting import HOLE, MOST_B, Changed, Cutter, Piece
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files, locks
from opencode_tasks.values import value

_TRIES = 3


@value
class Big:
    """One file, as `vars()` in a manifest.

    `digest`: the BLAKE3 of the list of its pieces, each with its length and BLAKE3. It finds that list, and vouches for
    every byte; equal contents have the same, sparse or not. `mode`: the permission bits.
    """

    size: int
    digest: str
    mode: int


@value
class Problem:
    """`name` is the digest of the chunk, or of the whole list, that cannot be had."""

    big: Big
    name: str
    what: Literal["missing", "damaged"]


class Chunks:
    """Several processes may do anything at the same time. `OSError`s become `TaskError`s with the next step."""

    def __init__(self, folder: Path) -> None:
        self._folder = ChunkFolder(folder)

    def put(self, top: Path, name: str, *, was: Big | None = None) -> Big:
        """Keep the file `name` below the directory `top`; no link on the way is followed.

        `was`: an earlier state, which makes it faster. Durable on return. Raises `TaskError`: `unreadable` where there
        is no such file, `changing` where it was written to during each of three readings.
        """
        self._folder.ensure()
        earlier = self._pieces_if_any(was)
        with files.refused_writes(self._folder.path), locks.shared(self._folder.lock):
            for _ in range(_TRIES):
                with _opened(top, name) as fd:
                    if (big := self._put(fd, earlier)) is not None:
                        return big
        raise TaskError(
            f"{name} changes while it is read",
            hint="stop what writes to it, then run the command again",
            code="changing",
        )

    def put_open(self, fd: int, *, was: Big | None = None) -> Big:
        """The same of an open file that nobody else writes to."""
        self._folder.ensure()
        with files.refused_writes(self._folder.path), locks.shared(self._folder.lock):
            big = self._put(fd, self._pieces_if_any(was))
        if big is None:
            raise ValueError("somebody else wrote to it")
        return big

    def renew(self, big: Big) -> bool:
        """Whether it is there; if so, no sweep takes it for older than it would be if it were put now."""
        self._folder.ensure()
        with files.refused_writes(self._folder.path), locks.shared(self._folder.lock):
            return self._folder.renew(big.digest)

    def added_b(self, big: Big, was: Big | None) -> int:
        """How much of it is in no piece of `was`."""
        before = {digest_b for _, digest_b in self._pieces_if_any(was)}
        return sum(length for length, digest_b in data_of(self._pieces_if_any(big)) if digest_b not in before)

    def read(self, big: Big) -> Iterator[bytes]:
        """Its bytes in order. Raises `UnsoundError` where one is missing or damaged."""
        with locks.unchanging(self._folder.lock):
            for piece in self._pieces(big):
                if piece[1] != HOLE:
                    yield self._folder.read(piece)
                    continue
                for at in range(0, piece[0], MOST_B):
                    yield bytes(min(MOST_B, piece[0] - at))

    def restore(self, big: Big, top: Path, name: str, *, now: Big | None = None) -> None:
        """Put `big` in the place of the file `name` below the directory `top`, whole or not at all.

        What the present file has of it is taken from there, every byte compared; `now`, its last known state, says
        where. Raises `UnsoundError`, naming the chunk, when one is needed that is missing or damaged.
        """
        with files.refused_writes(top / name), locks.unchanging(self._folder.lock):
            pieces = self._pieces(big)
            chunk_restore.restore(self._folder, pieces, self._pieces_if_any(now) or pieces, top, name, mode=big.mode)

    def verify(self, bigs: Iterable[Big]) -> list[Problem]:
        """Read all of them. A chunk that is damaged is written anew by the next `put` that has its bytes."""
        examined: dict[bytes, Literal["missing", "damaged"] | None] = {}
        found: dict[Problem, None] = {}
        with files.refused_writes(self._folder.path), locks.unchanging(self._folder.lock):
            for big in bigs:
                try:
                    pieces = self._pieces(big)
                except UnsoundError as e:
                    found[Problem(big, e.name, e.what)] = None
                    continue
                for piece in data_of(pieces):
                    if piece[1] not in examined:
                        examined[piece[1]] = self._folder.examine(piece)
                    if what := examined[piece[1]]:
                        found[Problem(big, piece[1].hex(), what)] = None
        return list(found)

    def sweep(self, keep: Iterable[Big], *, older_than_s: float) -> int:
        """Remove what is older, and what neither `keep` nor anything younger is made of; the bytes freed.

        Ends early, with less freed, when others put for long. Raises `UnsoundError` when a list cannot be read: what it
        names is not known then, and stays.
        """
        if not self._folder.temp.is_dir():
            return 0
        with files.refused_writes(self._folder.path):
            return chunk_sweep.sweep(self._folder, {big.digest for big in keep}, older_than_s)

    def used_b(self) -> int:
        """What the folder takes on the disk."""
        return self._folder.used_b()

    def _put(self, fd: int, was: Sequence[Piece]) -> Big | None:
        """None: it changed meanwhile."""
        from concurrent.futures import ThreadPoolExecutor

        before = os.fstat(fd)
        pieces: list[Piece] = []
        pool = ThreadPoolExecutor(workers())
        batch = Batch(self._folder, pool)
        try:
            with pool, suppress(Changed):
                for piece, content_b in Cutter(fd, before.st_size, was, pool, batch.is_kept).pieces():
                    pieces.append(piece)
                    if content_b is not None:
                        batch.add(piece[1], content_b)
                batch.finish()
        finally:
            batch.abandon()
        after = os.fstat(fd)
        if _stamp(after) != _stamp(before) or sum(length for length, _ in pieces) != after.st_size:
            return None
        return Big(after.st_size, self._folder.write_list(pieces), stat.S_IMODE(after.st_mode) & 0o777)

    def _pieces(self, big: Big) -> Sequence[Piece]:
        pieces = self._folder.read_list(big.digest)
        if sum(length for length, _ in pieces) != big.size:
            raise UnsoundError(self._folder.lists, big.digest, "damaged")
        return pieces

    def _pieces_if_any(self, big: Big | None) -> Sequence[Piece]:
        with suppress(UnsoundError):
            return self._pieces(big) if big is not None else ()
        return ()


@contextmanager
def _opened(top: Path, name: str) -> Iterator[int]:
    """A regular file, by names only. Whatever else was put there: nothing waits, and nothing is read through it."""
    with chunk_restore.opened_folder(top) as at:
        try:
            fd = files.open_without_links(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, at=at)
        except OSError as e:
            raise _unreadable(name, e.strerror) from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _unreadable(name, "it is no file any more")
        yield fd
    finally:
        os.close(fd)


def _unreadable(name: str, why: str | None) -> TaskError:
    return TaskError(f"{name} cannot be read: {why}", hint="run the command again", code="unreadable")


def _stamp(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode
