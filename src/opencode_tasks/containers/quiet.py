"""A command of ours inside a task's container: nobody sees it, and it is not recorded.

What it says comes from the sandbox, like all else there.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from opencode_tasks.containers import links, sockets
from opencode_tasks.containers.linked import LinkedSession
from opencode_tasks.containers.links import Link
from opencode_tasks.containers.session import CHUNK, Session, frames
from opencode_tasks.store import Store
from opencode_tasks.store.files import write_all

_SAID_BYTES = 4096
_QUIET_S = 1.0
# Whoever says nothing for so long is stuck, or wants us to be.
_SILENT_S = 10.0

Sink = Callable[[bytes], None]


def run(
    store: Store,
    task_id: str,
    session: Session,
    argv: Sequence[str],
    *,
    cwd: str = "/",
    stdin_b: bytes = b"",
    within_s: float = 30.0,
    sink: Sink | None = None,
    feed: Iterable[bytes] | None = None,
) -> tuple[int, bytes]:
    """Its exit code and the beginning of what it said; `sink` gets its stdout. As `session` goes, so do we.

    `feed`: its stdin in pieces, instead of `stdin_b`. Raises `OSError`, `EOFError`, `ValueError` or `TypeError` when
    the container does not play along, and what `sink` and `feed` raise; then what was started is ended.
    """
    if isinstance(session, LinkedSession):
        return _through_the_supervisor(store, task_id, argv, cwd, stdin_b, within_s, sink, feed)
    return _through_the_engine(session.container, argv, cwd, [stdin_b] if feed is None else feed, within_s, sink)


def _through_the_supervisor(
    store: Store,
    task_id: str,
    argv: Sequence[str],
    cwd: str,
    stdin_b: bytes,
    within_s: float,
    sink: Sink | None,
    feed: Iterable[bytes] | None,
) -> tuple[int, bytes]:
    folder = sockets.folder(store.clone_id, task_id)
    link = None if folder is None else links.connect(folder)
    if link is None:
        raise EOFError("its supervisor does not answer any more")
    out, out_writer = os.pipe()
    err, err_writer = os.pipe()
    fed = _Fed(feed) if feed is not None else None
    stdin = fed.theirs if fed is not None else os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with link.socket:
            try:
                if fed is None:
                    write_all(stdin, stdin_b)
                    os.lseek(stdin, 0, os.SEEK_SET)
                link.socket.settimeout(within_s)
                request: dict[str, Any] = {"argv": list(argv), "cwd": cwd, "env": {}, "size": None}
                link.send(request, [stdin, out_writer, err_writer])
            finally:
                for fd in (stdin, out_writer, err_writer):
                    os.close(fd)
            return _heard(link, out, err, time.monotonic() + within_s, sink, fed)
    finally:
        os.close(out)
        os.close(err)
        if fed is not None:
            fed.close()


class _Fed:
    """The writing end of a command's stdin; never waits for the command."""

    def __init__(self, feed: Iterable[bytes]) -> None:
        self._rest: Iterator[bytes] = iter(feed)
        self._now = memoryview(b"")
        self.theirs, self.fd = os.pipe()
        os.set_blocking(self.fd, False)

    def write(self) -> None:
        """As much as the pipe takes; it is closed at the end."""
        try:
            while True:
                if not self._now:
                    self._now = memoryview(next(self._rest))
                self._now = self._now[os.write(self.fd, self._now) :]
        except StopIteration:
            pass
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not read (any more)
            pass
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _heard(
    link: Link, out: int, err: int, until: float, sink: Sink | None, fed: _Fed | None = None
) -> tuple[int, bytes]:
    """Until its exit code and the end of what it says; what goes on in the background may hold that open."""
    said_b, code, quiet_until = b"", None, min(until, time.monotonic() + _SILENT_S)
    open_ = {out, err}
    while open_ or code is None:
        left_s = min(until, quiet_until) - time.monotonic()
        if left_s <= 0:
            if code is not None:
                break
            raise TimeoutError("it does not come to an end")
        waiting = open_ | ({link.socket.fileno()} if code is None else set())
        feeding = [fed.fd] if fed is not None and fed.fd >= 0 else []
        readable, writable, _ = select.select(list(waiting), feeding, [], left_s)
        if fed is not None and writable:
            fed.write()
            quiet_until = time.monotonic() + _SILENT_S
        for ready in readable:
            if ready not in open_:
                code = _exit_code(link)
                quiet_until = time.monotonic() + (_QUIET_S if code is not None else _SILENT_S)
                continue
            content_b = os.read(ready, CHUNK)
            quiet_until = time.monotonic() + (_QUIET_S if code is not None else _SILENT_S)
            if not content_b:
                open_.remove(ready)
            elif ready == out and sink is not None:
                sink(content_b)
            else:
                said_b = (said_b + content_b)[:_SAID_BYTES]
    return code if code is not None else 1, said_b


def _exit_code(link: Link) -> int | None:
    for kind, content in link.messages():
        if kind == b"J" and "exit" in content:
            return int(content["exit"])
    return None


def _through_the_engine(
    container: str, argv: Sequence[str], cwd: str, feed: Iterable[bytes], within_s: float, sink: Sink | None
) -> tuple[int, bytes]:
    from opencode_tasks.containers.engine import Engine

    engine, until = Engine(), time.monotonic() + within_s
    exec_id = engine.new_exec(container, list(argv), cwd=cwd, env={}, stdin=True, tty=False)
    said_b, pending = b"", bytearray()
    with engine.start_exec(exec_id, tty=False) as stream:
        stream.settimeout(min(within_s, _SILENT_S))
        with suppress(BrokenPipeError, ConnectionResetError):  # it does not read (any more)
            for content_b in feed:
                stream.sendall(content_b)
            stream.shutdown(socket.SHUT_WR)
        while chunk := stream.recv(CHUNK):
            if time.monotonic() > until:
                raise TimeoutError("it does not come to an end")
            pending += chunk
            for kind, content_b in frames(pending):
                if kind == 1 and sink is not None:
                    sink(content_b)
                else:
                    said_b = (said_b + content_b)[:_SAID_BYTES]
    for _ in range(100):
        code = engine.exec_code(exec_id)
        if code is not None:
            return code, said_b
        time.sleep(0.01)
    raise EOFError("how it ended is not known")
