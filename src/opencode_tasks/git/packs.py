"""How large the objects in a pack are, told without making one of them. Pure, but for reading.

Git inflates an object in memory before anybody can ask how large it is, and a hundred bytes are enough to say a
gigabyte. https://git-scm.com/docs/gitformat-pack
"""

import zlib
from typing import BinaryIO

from opencode_tasks.errors import TaskError

_CHUNK_B = 1 << 16
_OFFSET_DELTA, _REFERENCE_DELTA = 6, 7
_KNOWN = (1, 2, 3, 4, _OFFSET_DELTA, _REFERENCE_DELTA)


class PackError(TaskError):
    """Not a pack, or one with more in it than may come."""

    code = "bad_pack"


def survey(pack: BinaryIO, *, hash_b: int, largest_b: int, all_b: int) -> int:
    """How many objects there are. `pack` stands at its first byte; `hash_b`: the length of an object's name.

    Raises `PackError` when one has more than `largest_b` bytes, all have more than `all_b`, or it is none.
    """
    reader = _Reader(pack)
    head_b = reader.take(12)
    if head_b[:4] != b"PACK" or int.from_bytes(head_b[4:8]) not in (2, 3):
        raise PackError("That is no pack")
    count, seen_b = int.from_bytes(head_b[8:12]), 0
    for _ in range(count):
        seen_b += _object(reader, hash_b, largest_b)
        if seen_b > all_b:
            raise PackError(f"All objects together have more than {all_b} bytes")
    return count


def _object(reader: "_Reader", hash_b: int, largest_b: int) -> int:
    """What it inflates to, in the pack and as an object: the greater of the two."""
    first = reader.take(1)[0]
    kind, size = first >> 4 & 7, first & 15
    if first & 0x80:
        size |= reader.number() << 4
    if kind not in _KNOWN:
        raise PackError(f"A pack has no objects of type {kind}")
    if kind == _OFFSET_DELTA:
        reader.number()
    elif kind == _REFERENCE_DELTA:
        reader.take(hash_b)
    if size > largest_b:
        raise _too_large(size, largest_b)
    begin_b = reader.inflate(size)
    if kind in (_OFFSET_DELTA, _REFERENCE_DELTA):
        _, at = _number_in(begin_b, 0)
        made, _ = _number_in(begin_b, at)
        if made > largest_b:
            raise _too_large(made, largest_b)
        return max(size, made)
    return size


def _too_large(size_b: int, largest_b: int) -> PackError:
    return PackError(f"An object of {size_b} bytes is larger than what may come ({largest_b})")


def _number_in(content_b: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while at < len(content_b) and shift < 63:
        byte = content_b[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at
    raise PackError("A delta does not say what it makes")


class _Reader:
    def __init__(self, pack: BinaryIO) -> None:
        self._pack = pack
        self._ahead = b""

    def take(self, count: int) -> bytes:
        while len(self._ahead) < count:
            more_b = self._pack.read(_CHUNK_B)
            if not more_b:
                raise PackError("The pack ends too early")
            self._ahead += more_b
        taken_b, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken_b

    def number(self) -> int:
        number, shift = 0, 0
        while shift < 63:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return number
            shift += 7
        raise PackError("A number in the pack is too long")

    def inflate(self, size_b: int) -> bytes:
        """Past a zlib stream that makes `size_b` bytes; its first 32."""
        stream, begin_b, seen_b = zlib.decompressobj(), b"", 0
        waiting_b = self.take(max(1, len(self._ahead)))
        while True:
            try:
                made_b = stream.decompress(waiting_b, _CHUNK_B)
            except zlib.error as e:
                raise PackError(f"An object in the pack does not inflate: {e}") from e
            seen_b += len(made_b)
            begin_b += made_b[: 32 - len(begin_b)]
            if seen_b > size_b:
                raise PackError("An object in the pack is larger than it says")
            if stream.eof:
                break
            waiting_b = stream.unconsumed_tail or self.take(max(1, len(self._ahead)))
        if seen_b != size_b:
            raise PackError("An object in the pack is smaller than it says")
        self._ahead = stream.unused_data + self._ahead
        return begin_b
