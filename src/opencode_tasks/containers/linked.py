"""A command through the supervisor inside, over its socket: a millisecond, where the engine's exec takes 34.

Nothing of ours is handed over but pipes made for this command. Never our terminal: who has that can type into it.
"""

import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from opencode_tasks.containers import links
from opencode_tasks.containers.links import Link
from opencode_tasks.containers.session import CHUNK, Held, Session, Used, has_stdin, in_background

_ACK_S = 1.0
# What goes on in the background may hold the command's output open.
_QUIET_MS = 250
# So often a command may be held still; a supervisor that lies could go on for ever.
_HELDS = 1000
_PIPE_BYTES = 1 << 20


class LinkedSession(Session):
    """`is_paused` asks the engine, when a signal is not answered."""

    def __init__(
        self, link: Link, container: str, *, is_paused: Callable[[], bool], use_tty: bool, stdout_fd: int = 1
    ) -> None:
        super().__init__(container, use_tty=use_tty, stdout_fd=stdout_fd)
        self._link, self._is_paused = link, is_paused
        self._code: int | None = None
        self._unanswered = 0
        self._helds = 0
        self._kinds: dict[int, int] = {}
        self._stdin = -1
        self._is_there = True

    def close(self) -> None:
        """Without a command."""
        self._link.socket.close()

    def _run(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], wakeup: socket.socket) -> int | None:
        request = {"argv": list(argv), "cwd": cwd, "env": dict(env), "size": self._size() if self.use_tty else None}
        with closing(self._link.socket), self._raw_terminal():
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # reading tells
                    self._link.send(request) if self.use_tty else self._send_with_pipes(request)
                self._pump(wakeup)
            finally:
                for fd in (*self._kinds, self._stdin):
                    if fd >= 0:
                        os.close(fd)
        return self._code

    def _send_with_pipes(self, request: Mapping[str, Any]) -> None:
        theirs, self._stdin = os.pipe()
        os.set_blocking(self._stdin, False)
        given = [theirs]
        try:
            for kind in (1, 2):
                ours, theirs = os.pipe()
                given.append(theirs)
                self._kinds[ours] = kind
                with suppress(OSError):  # the user's pipes may be used up
                    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._link.send(request, given)
        finally:
            for fd in given:
                os.close(fd)

    def _pump(self, wakeup: socket.socket) -> None:
        if not (self.takes_input and has_stdin()):
            self._end_input()
        while self._kinds or (self._is_there and self._code is None):
            # Not epoll: it refuses plain files, and stdin may be one.
            poller = select.poll()
            for fd, events in self._wanted(wakeup).items():
                poller.register(fd, events)
            # After the command's end: what is in the pipes, and no longer than something comes.
            ready = poller.poll(None if self._is_there and self._code is None else _QUIET_MS)
            if not ready:
                return
            for fd, events in ready:
                if fd == wakeup.fileno():
                    self._woken(wakeup)
                elif fd == self._link.socket.fileno():
                    self._hear(events)
                elif fd == 0:
                    self._take_input()
                elif fd == self._stdin:
                    self._pass_input()
                elif fd in self._kinds:
                    self._show(fd)

    def _wanted(self, wakeup: socket.socket) -> dict[int, int]:
        wanted = dict.fromkeys((wakeup.fileno(), *self._kinds), select.POLLIN)
        if self._is_there:
            wanted[self._link.socket.fileno()] = select.POLLIN | (select.POLLOUT if self._link.outbox else 0)
        if self._to_send:
            wanted[self._stdin] = select.POLLOUT
        elif not self._input_ended and not self._link.outbox:
            wanted[0] = select.POLLIN
        return wanted

    def _hear(self, events: int) -> None:
        if events & select.POLLOUT:
            self._link.flush()
        if not events & ~select.POLLOUT:
            return
        try:
            for kind, content in self._link.messages():
                if kind == b"D":
                    self._deliver(1, content)
                elif "exit" in content:
                    self._code, self.used = int(content["exit"]) & 0xFF, _used(content.get("use"))
                elif "held" in content:
                    self._decide(content["held"])
                elif "signalled" in content:
                    self._unanswered = 0
        except (EOFError, ValueError, TypeError, KeyError):
            self._is_there = False

    def _decide(self, said: Any) -> None:
        """Whatever it says, it gets no more than the policy allows, and not for ever."""
        self._helds += 1
        if self._helds > _HELDS or said["kind"] not in ("memory", "disk"):
            return
        decision = self.on_held(Held(said["kind"], *(links.count(said[key]) for key in ("since", "used", "limit"))))
        if decision is not None:
            self._link.post({"decide": decision})

    def _show(self, fd: int) -> None:
        content_b = os.read(fd, CHUNK)
        if content_b:
            self._deliver(self._kinds[fd], content_b)
        else:
            self._close(fd)

    def _close(self, fd: int) -> None:
        del self._kinds[fd]
        os.close(fd)

    def _reader_is_gone(self, kind: int) -> None:
        """The command sees it at its next write, as it would here."""
        for fd in [fd for fd, of in self._kinds.items() if of == kind]:
            self._close(fd)
        if self.use_tty:
            self._forward(signal.SIGHUP)

    def _take_input(self) -> None:
        self._read_input()
        if self.use_tty:
            self._link.post(bytes(self._to_send))
            self._to_send.clear()
        elif self._input_ended:
            self._end_input()

    def _pass_input(self) -> None:
        try:
            del self._to_send[: os.write(self._stdin, self._to_send)]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command does not read (any more): its own business
            self._to_send.clear()
            self._end_input()

    def _end_input(self) -> None:
        self._input_ended = True
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _signal_inside(self, name: str) -> None:
        self._unanswered += 1
        self._link.post({"signal": name})
        in_background(self._see_whether_frozen)

    def _see_whether_frozen(self) -> None:
        time.sleep(_ACK_S)
        if self._unanswered and self._is_paused():
            self._frozen()

    def _size(self) -> list[int]:
        columns, rows = os.get_terminal_size(0)
        return [rows, columns]

    def _resize(self) -> bool:
        self._link.post({"size": self._size()})
        return True


def _used(said: Any) -> Used | None:
    try:
        return Used(*(links.count(said[key]) for key in ("memory", "cpu_ms", "oom_kills")))
    except (ValueError, TypeError, KeyError):
        return None
