"""Secrets taken out of what is recorded, in the clear and in the encodings that programs print by accident. Pure.

Every byte that belongs to an occurrence of a secret goes; overlapping occurrences become one `***NAME***`. What that
gives does not depend on how the output was cut into pieces. A value of fewer than `SHORTEST` bytes is not looked for:
it would be found everywhere.
"""

import binascii
import json
from collections.abc import Iterable, Iterator, Mapping

SHORTEST = 4
# A line of a longer secret that is looked for by itself; shorter ones ("}") are in every output.
_SHORTEST_LINE = 12
# As `base64` and `openssl` break their lines.
_COLUMNS = (76, 64)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NONE = b""


class Mask:
    """`bytes.find` for each form: no regular expression to compile, which takes longer than a short command."""

    def __init__(self, secrets: Iterable[tuple[str, bytes]] = ()) -> None:
        found: dict[bytes, bytes] = {}
        values = [(name, value_b) for name, value_b in secrets if len(value_b.strip()) >= SHORTEST]
        for name, value_b in values:
            label_b = f"***{name}***".encode()
            if any(other_b in label_b for _, other_b in values):
                label_b = b"***"
            for form_b in forms(value_b):
                found.setdefault(form_b, label_b)
        self._labels: Mapping[bytes, bytes] = found
        self.longest_b = max(map(len, found), default=0)

    def __bool__(self) -> bool:
        return bool(self._labels)

    def masked(self, content_b: bytes, *, begin: int = 0) -> bytes:
        """Of all of `content_b` what comes from `begin` on."""
        out, at = bytearray(), begin
        for start, end, label_b in self.spots(content_b):
            if end <= begin:
                continue
            out += content_b[at:start] + label_b
            at = end
        return bytes(out + content_b[at:])

    def text(self, text: str) -> str:
        """As from the command line: undecodable bytes are surrogates."""
        if not self:
            return text
        content_b = text.encode(errors="surrogateescape")
        return self.masked(content_b).decode(errors="surrogateescape")

    def spots(self, content_b: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Where there is something to hide, in order; none touches the inside of another."""
        found = sorted(
            (start, start - end, label_b, end)
            for form_b, label_b in self._labels.items()
            for start, end in _occurrences(form_b, content_b)
        )
        begin, until, label_b = 0, 0, _NONE
        for start, _, label, end in found:
            if start >= until:
                if until:
                    yield begin, until, label_b
                begin, label_b = start, label
            until = max(until, end)
        if until:
            yield begin, until, label_b

    def stream(self) -> "Stream":
        return Stream(self)


class Stream:
    """Bytes in pieces. What may be the beginning of a secret is kept back until more comes, or `flush`."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._kept = bytearray()
        self._hidden = 0  # so much of what is kept belongs to a secret that was told already
        self._fresh = 0

    def feed(self, content_b: bytes) -> bytes:
        if not self._mask:
            return content_b
        self._kept += content_b
        self._fresh += len(content_b)
        if self._fresh * 8 < self._mask.longest_b:
            return _NONE  # byte by byte, looking at all of it each time would take the square of the time
        return self._told(max(0, len(self._kept) - self._mask.longest_b + 1))

    def flush(self) -> bytes:
        """The end: nothing more comes."""
        return self._told(len(self._kept))

    def _told(self, safe: int) -> bytes:
        """What comes before `safe`, where no occurrence begins that is not whole yet."""
        out, at = bytearray(), min(self._hidden, safe)
        for start, end, label_b in self._mask.spots(bytes(self._kept)):
            if start >= safe:
                break
            if start >= self._hidden:
                out += self._kept[at:start] + label_b
            self._hidden = max(self._hidden, end)
            at = min(self._hidden, safe)
        out += self._kept[at:safe]
        del self._kept[:safe]
        self._hidden, self._fresh = max(0, self._hidden - safe), 0
        return bytes(out)


def _occurrences(form_b: bytes, content_b: bytes) -> Iterator[tuple[int, int]]:
    """Overlapping ones too."""
    at = content_b.find(form_b)
    while at >= 0:
        yield at, at + len(form_b)
        at = content_b.find(form_b, at + 1)


def forms(value_b: bytes) -> list[bytes]:
    """`value_b` as it is, its lines, JSON-escaped, URL-quoted, in base64 at each alignment, and in hex."""
    stripped_b = value_b.strip(b"\r\n")  # most programs print a file's content without its last line break
    found = dict.fromkeys(
        form_b
        for whole_b in (stripped_b, value_b)
        for form_b in (*_plain(whole_b), *_escaped(whole_b), *_quoted(whole_b), *_base64(whole_b), *_hex(whole_b))
    )
    return [form_b for form_b in found if len(form_b) >= SHORTEST]


def _plain(value_b: bytes) -> Iterator[bytes]:
    yield value_b
    yield value_b.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # on a terminal
    yield from _lines(value_b.splitlines())


def _lines(lines: list[bytes]) -> Iterator[bytes]:
    yield from (line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)


def _escaped(value_b: bytes) -> Iterator[bytes]:
    try:
        text = value_b.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode()
        yield escaped.replace("/", "\\/").encode()


def _quoted(value_b: bytes) -> Iterator[bytes]:
    for kept in (b"", b"/", b"!'()*"):
        for form in ("%%%02X", "%%%02x"):
            table = {n: bytes([n]) if n in _UNRESERVED or n in kept else (form % n).encode() for n in set(value_b)}
            quoted_b = b"".join([table[n] for n in value_b])
            yield quoted_b
            yield quoted_b.replace(b"%20", b"+")


def _base64(value_b: bytes) -> Iterator[bytes]:
    for before, unsure in ((0, 0), (1, 2), (2, 3)):
        sure = (before + len(value_b)) * 8 // 6
        encoded_b = binascii.b2a_base64(bytes(before) + value_b, newline=False)[unsure:]
        for form_b in (encoded_b[: sure - unsure], encoded_b):  # with more behind it, and at the end
            yield form_b
            yield form_b.translate(_URL_SAFE)
    whole_b = binascii.b2a_base64(value_b, newline=False)
    for columns in _COLUMNS:
        if len(whole_b) > columns:
            yield from _lines([whole_b[at : at + columns] for at in range(0, len(whole_b), columns)])


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _hex(value_b: bytes) -> Iterator[bytes]:
    yield value_b.hex().encode()
    yield value_b.hex().upper().encode()
