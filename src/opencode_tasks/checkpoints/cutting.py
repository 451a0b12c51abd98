"""Where a big file is cut: equal contents give equal pieces, however they were come by.

Blocks of 64 KiB that hold nothing but zeros are holes, whether the disk has them or not. What lies between is cut where
its content says (FastCDC). Where the pieces of an earlier state are known, they are looked for before anything is cut:
a cut depends on nothing but the bytes from the one before to just behind it, so a piece ends where it did as long as
the next one is there too.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Piece = tuple[int, bytes]
"""Its length, and the BLAKE3 of its bytes; or HOLE."""

HOLE = bytes(32)
LEAST_B, USUAL_B, MOST_B = 256 << 10, 512 << 10, 2 << 20
_BLOCK_B = 64 << 10
_WINDOW_B = 8 << 20
_AHEAD = 32

_zeros = bytes(_BLOCK_B)


class Changed(Exception):  # noqa: N818 (it is no error: whoever reads begins again)
    """There is less of the file than there was."""


class Cutter:
    """For one reading of `fd`, which stays open until `pool` has ended.

    `is_kept` says whether a piece needs not be read again; several threads ask it.
    """

    def __init__(
        self, fd: int, size: int, was: Sequence[Piece], pool: "ThreadPoolExecutor", is_kept: Callable[[bytes], bool]
    ) -> None:
        from blake3 import blake3
        from pyfastcdc import FastCDC

        self._fd, self._size, self._was, self._pool, self._is_kept = fd, size, was, pool, is_kept
        self._after = {was[n][1]: n + 1 for n in range(len(was) - 1, -1, -1) if was[n][1] != HOLE}
        self._hash = blake3
        self._cdc = FastCDC(USUAL_B, min_size=LEAST_B, max_size=MOST_B)
        self._window = bytearray(min(_WINDOW_B, _up(size)))
        self._start = self._end = self._data_until = 0
        self._own = threading.local()

    def pieces(self) -> Iterator[tuple[Piece, bytes | None]]:
        """Every piece, and its bytes unless it is kept already. Raises `Changed`."""
        at = index = 0
        while at < self._size:
            for piece in self._still_there(at, index):
                at += piece[0]
                index += 1
                yield piece, None
            piece, content_b = self._cut(at)
            at += piece[0]
            is_next = index < len(self._was) and self._was[index] == piece
            index = index + 1 if is_next else self._after.get(piece[1], len(self._was))
            yield piece, content_b

    def _still_there(self, at: int, index: int) -> Iterator[Piece]:
        """Those of `was` from `index` on that are found at `at`, but the last: what follows it has changed.

        Looked at in parallel, the further ahead the more were found.
        """
        going: deque[tuple[Sequence[Piece], Future[int]]] = deque()
        allowed, ahead = 1, 0
        last: Piece | None = None
        try:
            while True:
                while ahead < allowed and (expected := self._was[index : index + max(1, allowed // 4)]):
                    going.append((expected, self._pool.submit(self._found, at, expected)))
                    index += len(expected)
                    ahead += len(expected)
                    at += sum(length for length, _ in expected)
                if not going:
                    return
                expected, found = going.popleft()
                ahead -= len(expected)
                for piece in expected[: found.result()]:
                    if last is not None:
                        yield last
                    last = piece
                if found.result() < len(expected):
                    return
                allowed = min(allowed * 2, _AHEAD)
        finally:
            for _, found in going:
                found.cancel()

    def _found(self, at: int, expected: Sequence[Piece]) -> int:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = bytearray(MOST_B)
        buffer = self._own.buffer
        for n, (length, digest_b) in enumerate(expected):
            with memoryview(buffer)[:length] as view:
                is_same = (
                    digest_b != HOLE
                    and read_into(self._fd, view, at) == length
                    and not _has_zeros(buffer, at, length)
                    and self._hash(view).digest() == digest_b
                    and self._is_kept(digest_b)
                )
            if not is_same:
                return n
            at += length
        return len(expected)

    def _cut(self, at: int) -> tuple[Piece, bytes | None]:
        if at % _BLOCK_B == 0 and self._is_zero(at):
            return (self._end_of_hole(at) - at, HOLE), None
        end = self._end_of_data(at)
        with memoryview(self._window)[at - self._start : end - self._start] as view:
            length = next(self._cdc.cut_buf(view)).length
            content_b = bytes(view[:length])
        return (length, self._hash(content_b).digest()), content_b

    def _end_of_hole(self, at: int) -> int:
        while at < self._size:
            if at >= self._end:
                at = max(at, self._next_data(at))
            if at >= self._size or not self._is_zero(at):
                break
            at += _BLOCK_B
        return min(at, self._size)

    def _next_data(self, at: int) -> int:
        """The block in which the file system has something next. A lower bound where it cannot say."""
        if not hasattr(os, "SEEK_DATA"):
            return at
        try:
            return os.lseek(self._fd, at, os.SEEK_DATA) // _BLOCK_B * _BLOCK_B
        except OSError:  # ENXIO: nothing any more, or the file ends before `at` now
            return self._size

    def _end_of_data(self, at: int) -> int:
        """At most as far as one piece may reach."""
        limit = min(at + MOST_B, self._size)
        self._read(at, min(_up(limit), self._size))
        block = max(_up(at), self._data_until)
        while block < limit and not self._is_zero(block):
            block += _BLOCK_B
        self._data_until = block
        return min(block, limit)

    def _is_zero(self, block: int) -> bool:
        length = min(_BLOCK_B, self._size - block)
        self._read(block, block + length)
        return self._window.startswith(_zeros[:length], block - self._start)

    def _read(self, at: int, until: int) -> None:
        if self._start <= at and until <= self._end:
            return
        self._start, self._end = at, min(at + len(self._window), self._size)
        with memoryview(self._window)[: self._end - at] as view:
            if read_into(self._fd, view, at) < len(view):
                raise Changed


def read_into(fd: int, view: memoryview, at: int) -> int:
    """As many bytes as there are, up to the whole view. Raises `TaskError` where the disk does not give them."""
    done = 0
    try:
        while done < len(view) and (more := os.preadv(fd, [view[done:]], at + done)):
            done += more
    except OSError as e:
        raise TaskError(
            f"A big file cannot be read at byte {at + done}: {e.strerror}",
            hint="nothing was changed; look at what the system says of the disk: dmesg",
            code="unreadable",
        ) from e
    return done


def _up(at: int) -> int:
    return -(-at // _BLOCK_B) * _BLOCK_B


def _has_zeros(buffer: bytearray, at: int, length: int) -> bool:
    """Whether a block is, or begins and may be, nothing but zeros."""
    end = at + length
    for block in range(_up(at), end, _BLOCK_B):
        # One byte tells of nearly every block.
        if not buffer[block - at] and buffer.startswith(_zeros[: min(_BLOCK_B, end - block)], block - at):
            return True
    return False
