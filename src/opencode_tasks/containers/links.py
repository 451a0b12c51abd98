"""Connections to the supervisor inside a container.

The directory of the socket can be written by the container. So the socket is opened without following
links and connected to as what was opened, and nothing it says is believed beyond bytes and numbers.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opencode_tasks.containers import sockets
from opencode_tasks.containers.session import CHUNK
from opencode_tasks.containers.spec import ABSENT, SOCKET
from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

_HEAD = struct.Struct(">cI")
_LARGEST = 1 << 20
_HELLO_S = 2.0


class Link:
    """A connection to a supervisor that has said hello. One command each."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.hello: Mapping[str, Any] = {}
        self.outbox = bytearray()
        self._received = bytearray()

    def send(self, content: bytes | Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Waits until the other side took it. Raises `OSError` when it is gone."""
        whole_b = framed(content)
        sent = socket.send_fds(self.socket, [whole_b], fds) if fds else 0
        self.socket.sendall(memoryview(whole_b)[sent:])

    def post(self, content: bytes | Mapping[str, Any]) -> None:
        """Never waits: what cannot be sent now is in `outbox`."""
        self.outbox += framed(content)
        self.flush()

    def flush(self) -> None:
        try:
            del self.outbox[: self.socket.send(self.outbox, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:  # it is gone: reading tells
            self.outbox.clear()

    def first(self, *, within_s: float) -> dict[str, Any]:
        """The first message. Raises `EOFError` when it is none that we know, `TimeoutError` when it does not come."""
        until = time.monotonic() + within_s
        while True:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            for kind, content in self.messages():
                if kind == b"D":
                    raise EOFError
                return content  # type: ignore[no-any-return]

    def messages(self) -> Iterator[tuple[bytes, Any]]:
        """What is there now: `D` and bytes, or `J` and an object. Raises `EOFError` at the end, or for nonsense."""
        try:
            content_b = self.socket.recv(CHUNK)
        except ConnectionResetError:
            content_b = b""
        if not content_b:
            raise EOFError
        self._received += content_b
        while len(self._received) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._received)
            if size > _LARGEST:
                raise EOFError
            if len(self._received) < _HEAD.size + size:
                return
            content_b = bytes(self._received[_HEAD.size : _HEAD.size + size])
            del self._received[: _HEAD.size + size]
            yield kind, content_b if kind == b"D" else _object(content_b)


def framed(content: bytes | Mapping[str, Any]) -> bytes:
    kind, content_b = (b"D", content) if isinstance(content, bytes) else (b"J", json.dumps(content).encode())
    return _HEAD.pack(kind, len(content_b)) + content_b


def _object(content_b: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content_b)
    except (ValueError, RecursionError) as e:
        raise EOFError from e
    return found if isinstance(found, dict) else {}


def count(said: Any) -> int:
    if type(said) is not int or not 0 <= said < 1 << 62:
        raise ValueError(said)
    return said


def connect(folder: Path) -> Link | None:
    """None: no supervisor answers there. Raises `TaskError` when it has no process left for us."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_HELLO_S)
        sockets.connect(connection, folder, SOCKET)
        link = Link(connection)
        said = link.first(within_s=_HELLO_S)
        connection.settimeout(None)
    except (OSError, EOFError, AttributeError):  # AttributeError: a system without O_PATH
        connection.close()
        return None
    if "hello" in said:
        link.hello = said
        return link
    connection.close()
    if "refused" not in said:
        return None
    raise TaskError(
        f"The container starts no more commands: {str(said['refused'])[:200]!r}",
        hint="end what runs in it; or raise pids (container.limits)",
        code="no_process",
    )


@value
class Now:
    """What the container uses now, and has used at most since it started; as it says itself."""

    memory_bytes: int
    memory_limit_bytes: int
    memory_most_bytes: int
    processes: int


def now(folder: Path) -> Now | None:
    """None: no supervisor answers there."""
    link = connect(folder)
    if link is None:
        return None
    with link.socket:
        try:
            return Now(*(count(link.hello[key]) for key in ("memory", "limit", "most", "processes")))
        except (KeyError, ValueError):
            return None


def is_absent(folder: Path) -> bool:
    """The container said that its image has none: no need to wait for it."""
    return os.path.lexists(folder / f"{SOCKET}{ABSENT}")
