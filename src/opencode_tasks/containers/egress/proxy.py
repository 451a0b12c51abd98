"""The way out of the tasks of one clone: runs in a container of its own, the sidecar.

The host hands this text to python3 there, so: the standard library only, and the modules beside it that say the same.
`<root>/policy/<task>.json` says what a task may reach (`{"allow", "private", "denied"}`); while it is there, we
listen at `<root>/sockets/<task>/proxy.sock`, and note in `<root>/refused/<task>.json` what was refused.

CONNECT and plain HTTP. A name is resolved once, and the address that was looked at is the one connected to.
"""

import asyncio
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from opencode_tasks.containers.egress.addresses import Addresses
from opencode_tasks.containers.egress.connection import Connection
from opencode_tasks.containers.egress.refusals import Book
from opencode_tasks.containers.egress.request_head import RefusedError, Request
from opencode_tasks.hosts import Entry, entry, is_address, why_not

SOCKET = "proxy.sock"


class Times(NamedTuple):
    """In seconds. `end`: so long without a connection, and the sidecar ends itself."""

    head: float = 10
    connect: float = 10
    idle: float = 900
    end: float = 1800
    look: float = 0.25
    connections: int = 128


class Policy(NamedTuple):
    entries: tuple[Entry, ...]
    addresses: Addresses

    def check(self, request: Request) -> None:
        """Raises `RefusedError`."""
        why = why_not(self.entries, request.host, request.port)
        if why:
            raise RefusedError(403, why, request.host, request.port)


NOTHING = Policy((), Addresses((), ()))


def content(path: str) -> bytes:
    """Empty of what cannot be read."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def policy(content_b: bytes) -> Policy:
    """Of what cannot be understood: nothing is allowed."""
    try:
        said = json.loads(content_b)
        entries = tuple(entry(text) for text in said["allow"])
        # An address that is allowed by itself is what was meant, whatever network it is in.
        named = [e.name for e in entries if is_address(e.name)]
        return Policy(entries, Addresses([*said["private"], *named], said["denied"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return NOTHING


class Proxy:
    def __init__(self, root: str, times: Times) -> None:
        self.root, self.times = root, times
        self.loop = asyncio.get_running_loop()
        self.desks: dict[str, Desk] = {}
        self.used_at = time.monotonic()
        # Its own threads: a name server that does not answer must not keep others waiting for long.
        self.resolvers = ThreadPoolExecutor(32)
        self._seen: tuple[int, float] = (0, 0.0)

    async def run(self) -> None:
        while time.monotonic() - self.used_at < self.times.end:
            self.look()
            for name, desk in list(self.desks.items()):
                desk.attend()
                if not desk.is_reachable():
                    self.desks.pop(name).close()
                    self.open(name)
            await asyncio.sleep(self.times.look)
        for desk in self.desks.values():
            desk.close()

    def look(self) -> None:
        """Lists are replaced by renaming: each changes the time of their folder."""
        folder = os.path.join(self.root, "policy")
        found = os.stat(folder)
        if found.st_nlink == 0:
            raise SystemExit(0)  # removed on the host; what is there now, if anything, is another
        changed_ns = found.st_mtime_ns
        # Two changes within one tick of the file system's clock have the same time.
        if changed_ns == self._seen[0] and changed_ns / 1e9 < self._seen[1] - 0.1:
            return
        self._seen = (changed_ns, time.time())
        names = {name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json") and name[0] != "."}
        for name in set(self.desks) - names:
            self.desks.pop(name).close()
        for name in names:
            desk = self.desks.get(name)
            if desk is None:
                self.open(name)
            else:
                desk.obey()

    def open(self, name: str) -> None:
        try:
            self.desks[name] = Desk(self, name)
        except OSError:  # its folder is not there, yet or any more
            self._seen = (0, 0.0)


class Desk:
    """One task: its list, its socket, and who is connected."""

    def __init__(self, proxy: Proxy, task: str) -> None:
        self.proxy, self.task = proxy, task
        self.path = os.path.join(proxy.root, "policy", f"{task}.json")
        self.said_b = content(self.path)
        self.policy = policy(self.said_b)
        self.book = Book(os.path.join(proxy.root, "refused", f"{task}.json"))
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self.socket_path = os.path.join(proxy.root, "sockets", task, SOCKET)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(f"{self.socket_path}.new")
        self.listener.bind(f"{self.socket_path}.new")
        self.listener.listen(1024)
        # Never a moment without one where there was one before.
        os.replace(f"{self.socket_path}.new", self.socket_path)
        self.inode = os.stat(self.socket_path).st_ino
        self.proxy.loop.add_reader(self.listener, self.accept)

    def is_reachable(self) -> bool:
        try:
            return os.lstat(self.socket_path).st_ino == self.inode
        except OSError:
            return False

    def accept(self) -> None:
        try:
            client, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor left; those who wait keep waiting
            time.sleep(0.01)
            return
        client.setblocking(False)
        self.proxy.used_at = time.monotonic()
        if len(self.connections) > 2 * self.proxy.times.connections:  # not even told so
            client.close()
            return
        connection = Connection(self, client)
        self.connections[connection] = self.proxy.loop.create_task(connection.serve())

    def current(self) -> Policy:
        """What is decided at this moment: whoever took something back need not wait for the next look."""
        self.obey()
        return self.policy

    def obey(self) -> None:
        """Who is connected to what is not allowed any more is cut off."""
        said_b = content(self.path)
        if said_b == self.said_b:
            return
        self.said_b, self.policy = said_b, policy(said_b)
        for connection, task in self.connections.items():
            if connection.request is not None:
                try:
                    self.policy.check(connection.request)
                except RefusedError:
                    task.cancel()

    def attend(self) -> None:
        self.book.attend()
        now = time.monotonic()
        if self.connections:
            self.proxy.used_at = now
        for connection, task in self.connections.items():
            if now - connection.moved_at > self.proxy.times.idle:
                task.cancel()

    def close(self) -> None:
        self.proxy.loop.remove_reader(self.listener)
        self.listener.close()
        for task in self.connections.values():
            task.cancel()
        self.book.write()
        with suppress(OSError):
            os.unlink(self.socket_path)


async def main(root: str, **times: float) -> None:
    os.umask(0o077)
    await Proxy(root, Times(**times)).run()  # type: ignore[arg-type]


def run() -> None:
    asyncio.run(main(sys.argv[1], **json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")))
