"""A command through the engine's exec: for images without our supervisor, and engines on another machine."""

import os
import re
import selectors
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress

from opencode_tasks.containers.engine import ContainerGoneError, Engine
from opencode_tasks.containers.session import CHUNK, Session, frames, has_stdin, in_background
from opencode_tasks.errors import ConflictError, NoEngineError, TaskError

_NOT_FOUND = re.compile(rb"^OCI runtime exec failed: .*(?:executable file not found|no such file or directory)")
_TAG = "OPENCODE_TASKS_EXEC"
# The engine has no way to signal an exec, and inspect's Pid is the host's. Whatever the
# command started carries the tag in its environment, sessions and process groups or not.
_KILL = f"""
found=$(grep -laF "{_TAG}=$1" /proc/[0-9]*/environ 2>/dev/null) || exit 3
for file in $found; do pid=${{file#/proc/}}; kill -s "$2" "${{pid%/environ}}" 2>/dev/null; done
exit 0
"""


class EngineSession(Session):
    def __init__(self, engine: Engine, container: str, *, use_tty: bool, stdout_fd: int = 1) -> None:
        super().__init__(container, use_tty=use_tty, stdout_fd=stdout_fd)
        self._engine = engine
        self._tag = uuid.uuid4().hex
        self._pending = bytearray()
        self._exec_id = ""
        self._reader_gone_at: dict[int, float] = {}

    def _run(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], wakeup: socket.socket) -> int | None:
        tagged = {**env, _TAG: self._tag}
        self._exec_id = self._engine.new_exec(self.container, argv, cwd=cwd, env=tagged, stdin=True, tty=self.use_tty)
        with self._raw_terminal():
            stream = self._engine.start_exec(self._exec_id, tty=self.use_tty)
            with stream:
                self._first_size()
                self._pump(stream, wakeup)
            code = self._exit_code()
        if code == 126 and _NOT_FOUND.search(self.tail):
            code = 127  # as every shell has it, and engines since 28
        return code

    def _exit_code(self) -> int | None:
        # The stream ends a moment before the engine has written the exit code down.
        for _ in range(100):
            try:
                code = self._engine.exec_code(self._exec_id)
            except (NoEngineError, ContainerGoneError):
                return None
            if code is not None:
                return code
            time.sleep(0.01)
        return None

    def _pump(self, stream: socket.socket, wakeup: socket.socket) -> None:
        """Until the engine ends the stream. Never waits in a write to it: it may be waiting in one to us."""
        stream.setblocking(False)
        # Not epoll: it refuses plain files, and stdin may be one.
        with selectors.PollSelector() as selector:
            selector.register(stream, selectors.EVENT_READ, "stream")
            selector.register(wakeup, selectors.EVENT_READ, "signal")
            if self.takes_input and has_stdin():
                selector.register(0, selectors.EVENT_READ, "stdin")
            else:
                self._input_ended = True
                self._end_of_input(stream)
            while True:
                for key, ready in selector.select():
                    if key.data == "signal":
                        self._woken(wakeup)
                    elif key.data == "stdin":
                        selector.unregister(0)
                        self._read_input()
                        selector.modify(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, "stream")
                    else:
                        if ready & selectors.EVENT_READ and not self._receive(stream):
                            return
                        if ready & selectors.EVENT_WRITE and self._sent_all(stream):
                            selector.modify(stream, selectors.EVENT_READ, "stream")
                            if not self._input_ended:
                                selector.register(0, selectors.EVENT_READ, "stdin")

    def _sent_all(self, stream: socket.socket) -> bool:
        try:
            if self._to_send:
                del self._to_send[: stream.send(self._to_send)]
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._to_send.clear()  # the command does not read (any more): its own business
            self._input_ended = True
        if self._input_ended and not self._to_send:
            self._end_of_input(stream)
        return not self._to_send

    def _end_of_input(self, stream: socket.socket) -> None:
        with suppress(OSError):
            stream.shutdown(socket.SHUT_WR)

    def _receive(self, stream: socket.socket) -> bool:
        try:
            chunk = stream.recv(CHUNK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return False
        if self.use_tty:
            self._deliver(1, chunk)
        else:
            self._pending += chunk
            self._deliver_frames()
        return True

    def _deliver_frames(self) -> None:
        for kind, content_b in frames(self._pending):
            if kind in self._reader_gone_at:
                self._press(time.monotonic() - self._reader_gone_at[kind])
            else:
                self._deliver(kind, content_b)

    def _reader_is_gone(self, kind: int) -> None:
        self._reader_gone_at[kind] = time.monotonic()
        self._forward(signal.SIGPIPE)

    def _press(self, waited_s: float) -> None:
        """What ignores SIGPIPE (Python does) would locally fail in its next write; inside, writing goes on."""
        for after_s, number in ((1.0, signal.SIGTERM), (3.0, signal.SIGKILL)):
            if waited_s > after_s and number not in self.signals:
                self._forward(number)

    def _signal_inside(self, name: str) -> None:
        # Not here: the engine (20.10) ends no exec while the output of another one that has ended
        # is not read, and reading it is what we are for.
        in_background(lambda: self._deliver_signal(name))

    def _deliver_signal(self, name: str) -> None:
        try:
            engine = Engine()
            for _ in range(20):
                argv = ["/bin/sh", "-c", _KILL, "sh", self._tag, name]
                code, _ = engine.run_quietly(self.container, argv)
                if code == 0 or engine.exec_code(self._exec_id) is not None:
                    return
                time.sleep(0.05)  # the command is not up yet
        except ConflictError:
            self._frozen()
        except TaskError as e:
            sys.stderr.write(f"opencode-tasks: SIG{name} was not delivered: {e.message}\n")

    def _first_size(self) -> None:
        """The engine answers before the command runs, and refuses a size until then."""
        for _ in range(50):
            if self._resize():
                return
            time.sleep(0.01)

    def _resize(self) -> bool:
        if not self.use_tty:
            return True
        try:
            columns, rows = os.get_terminal_size(0)
            self._engine.resize_exec(self._exec_id, rows, columns)
        except (OSError, TaskError):
            return False
        return True
