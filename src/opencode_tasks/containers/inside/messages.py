"""Messages between host and supervisor: one byte of kind, four of length, and the content.

`J`: JSON, `D`: what a terminal shows or what is typed. Runs inside: the standard library only.
"""

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

HEAD = struct.Struct(">cI")
LARGEST = 8 * 1024 * 1024
CHUNK = 1 << 16


class GoneError(Exception):
    """The host went away."""


def message(content: "bytes | dict[str, Any]") -> bytes:
    kind, content_b = (b"D", content) if isinstance(content, bytes) else (b"J", json.dumps(content).encode())
    return HEAD.pack(kind, len(content_b)) + content_b


class Channel:
    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.received = bytearray()

    def send(self, content: "bytes | dict[str, Any]") -> None:
        try:
            self.link.sendall(message(content))
        except OSError as e:
            raise GoneError from e

    def feed(self, content_b: bytes) -> None:
        if not content_b:
            raise GoneError
        self.received += content_b

    def messages(self) -> "Iterator[tuple[bytes, bytes]]":
        while len(self.received) >= HEAD.size:
            kind, size = HEAD.unpack_from(self.received)
            if size > LARGEST:
                raise ValueError(size)
            if len(self.received) < HEAD.size + size:
                return
            content_b = bytes(self.received[HEAD.size : HEAD.size + size])
            del self.received[: HEAD.size + size]
            yield kind, content_b
