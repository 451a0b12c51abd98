"""Which name a TLS connection asks for, from its first bytes. Runs in the sidecar: the standard library only."""

HANDSHAKE, CLIENT_HELLO = 22, 1
UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
"""The alert, as a record."""
_LARGEST = 16 * 1024
_SERVER_NAME = 0


class MalformedError(ValueError):
    """No TLS, or no ClientHello that we understand."""


def server_name(seen_b: bytes) -> str | None:
    """The name; empty when the ClientHello has none; None while its end has not come. Raises `MalformedError`.

    A ClientHello may be cut into several records.
    """
    hello_b = _message(seen_b)
    return None if hello_b is None else _server_name(_Reader(hello_b))


def _server_name(body: "_Reader") -> str:
    body.take(2 + 32)  # version, random
    body.vector(1)  # session
    body.vector(2)  # cipher suites
    body.vector(1)  # compression methods
    if body.is_empty():
        return ""
    extensions = body.vector(2)
    if not body.is_empty():
        raise MalformedError("bytes after the extensions")
    found = []
    while not extensions.is_empty():
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            found.append(_host_name(content))
    if len(found) > 1:
        raise MalformedError("several server names")
    return found[0] if found else ""


def _message(seen_b: bytes) -> bytes | None:
    """The content of the ClientHello, put together from its records."""
    message_b = bytearray()
    at = 0
    while True:
        head = seen_b[at : at + 5]
        if head[:1] not in (b"", bytes([HANDSHAKE])) or head[1:2] not in (b"", b"\x03"):
            raise MalformedError("not TLS")
        if len(head) < 5:
            return None
        size = int.from_bytes(head[3:], "big")
        if not 0 < size <= _LARGEST:
            raise MalformedError("a record of no size that TLS has")
        message_b += seen_b[at + 5 : at + 5 + size]
        if message_b[:1] != bytes([CLIENT_HELLO]):
            if message_b:
                raise MalformedError("not a ClientHello")
            return None
        wanted = 4 + int.from_bytes(message_b[1:4], "big") if len(message_b) >= 4 else _LARGEST
        if wanted > _LARGEST or len(message_b) > wanted:
            raise MalformedError("a ClientHello of another size than it says")
        at += 5 + size
        if len(seen_b) < at:
            return None
        if len(message_b) == wanted:
            return bytes(message_b[4:])


def _host_name(content: "_Reader") -> str:
    names = content.vector(2)
    if names.number(1) != 0:
        raise MalformedError("a server name that is no host's")
    name_b = names.vector(2).rest()
    if not (names.is_empty() and content.is_empty() and name_b):
        raise MalformedError("several server names")
    return name_b.decode("latin-1")


class _Reader:
    def __init__(self, content_b: bytes) -> None:
        self._content_b, self._at = content_b, 0

    def is_empty(self) -> bool:
        return self._at == len(self._content_b)

    def take(self, size: int) -> bytes:
        taken_b = self._content_b[self._at : self._at + size]
        if len(taken_b) < size:
            raise MalformedError("a ClientHello that ends too early")
        self._at += size
        return taken_b

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> "_Reader":
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._content_b) - self._at)
