"""One command in a running container: streamed, signalled, with its own exit code."""

import os
import re
import selectors
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from opencode_tasks.containers.engine import ContainerGoneError, Engine
from opencode_tasks.errors import ConflictError, NoEngineError, TaskError
from opencode_tasks.values import value

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FROZEN = 0  # no signal's number
_TAIL_BYTES = 4096
_CHUNK = 1 << 16
_NOT_FOUND = re.compile(rb"^OCI runtime exec failed: .*(?:executable file not found|no such file or directory)")
_TAG = "OPENCODE_TASKS_EXEC"
# The engine has no way to signal an exec, and inspect's Pid is the host's. Whatever the
# command started carries the tag in its environment, sessions and process groups or not.
_KILL = f"""
found=$(grep -laF "{_TAG}=$1" /proc/[0-9]*/environ 2>/dev/null) || exit 3
for file in $found; do pid=${{file#/proc/}}; kill -s "$2" "${{pid%/environ}}" 2>/dev/null; done
exit 0
"""


@value
class Finished:
    """`code` is None when the engine went away and nobody knows."""

    code: int | None
    output_tail: str
    duration_ms: int
    signals: tuple[str, ...]


class Session:
    """Runs `argv` in `container`, connected to our own stdin, stdout and stderr."""

    def __init__(self, engine: Engine, container: str, *, use_tty: bool, stdout_fd: int = 1) -> None:
        self.on_output: Callable[[bytes], None] = lambda _: None
        self.engine = engine
        self.container = container
        self.use_tty = use_tty
        self.out_fds = {1: stdout_fd, 2: 2}
        self.tag = uuid.uuid4().hex
        self.tail = bytearray()
        self.pending = bytearray()
        self.to_send = bytearray()
        self.input_ended = False
        self.signals: list[signal.Signals] = []
        self.exec_id = ""
        self.started_at = time.monotonic()
        self.reader_gone_at: dict[int, float] = {}

    def run(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> Finished:
        """Returns when the command has ended. Raises `TaskError` when it could not be started."""
        self.started_at = time.monotonic()
        extra = {**env, _TAG: self.tag}
        if self.use_tty:
            extra["TERM"] = os.environ.get("TERM", "xterm")
        self.exec_id = self.engine.new_exec(self.container, argv, cwd=cwd, env=extra, stdin=True, tty=self.use_tty)
        with self._signals() as wakeup, self._raw_terminal():
            stream = self.engine.start_exec(self.exec_id, tty=self.use_tty)
            with stream:
                self._first_size()
                self._pump(stream, wakeup)
            code = self._exit_code()
        if code == 126 and _NOT_FOUND.search(self.tail):
            code = 127  # as every shell has it, and engines since 28
        return self.as_far_as_seen(code)

    def as_far_as_seen(self, code: int | None) -> Finished:
        """For the record, when `run` was interrupted too."""
        return Finished(
            code,
            bytes(self.tail).decode(errors="replace"),
            int((time.monotonic() - self.started_at) * 1000),
            tuple(s.name for s in self.signals),
        )

    def _exit_code(self) -> int | None:
        # The stream ends a moment before the engine has written the exit code down.
        for _ in range(100):
            try:
                code = self.engine.exec_code(self.exec_id)
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
            stdin = _open_stdin()
            if stdin is None:
                self._end_of_input(stream)
            else:
                selector.register(stdin, selectors.EVENT_READ, "stdin")
            while True:
                for key, ready in selector.select():
                    if key.data == "signal":
                        for number in wakeup.recv(64):
                            if number == _FROZEN:
                                raise KeyboardInterrupt
                            self._forward(signal.Signals(number))
                    elif key.data == "stdin":
                        selector.unregister(key.fileobj)
                        self.to_send += os.read(int(key.fd), _CHUNK) or self._input_ended()
                        selector.modify(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, "stream")
                    else:
                        if ready & selectors.EVENT_READ and not self._receive(stream):
                            return
                        if ready & selectors.EVENT_WRITE and self._sent_all(stream):
                            selector.modify(stream, selectors.EVENT_READ, "stream")
                            if stdin is not None and not self.input_ended:
                                selector.register(stdin, selectors.EVENT_READ, "stdin")

    def _input_ended(self) -> bytes:
        self.input_ended = True
        return b""

    def _sent_all(self, stream: socket.socket) -> bool:
        try:
            if self.to_send:
                del self.to_send[: stream.send(self.to_send)]
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self.to_send.clear()  # the command does not read (any more): its own business
            self.input_ended = True
        if self.input_ended and not self.to_send:
            self._end_of_input(stream)
        return not self.to_send

    def _end_of_input(self, stream: socket.socket) -> None:
        with suppress(OSError):
            stream.shutdown(socket.SHUT_WR)

    def _receive(self, stream: socket.socket) -> bool:
        try:
            chunk = stream.recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return False
        if self.use_tty:
            self._deliver(1, chunk)
        else:
            self.pending += chunk
            self._deliver_frames()
        return True

    def _deliver_frames(self) -> None:
        """Engine API, "attach": 8 bytes of header (stream, 0, 0, 0, size big-endian), then the payload."""
        while len(self.pending) >= 8:
            kind, size = struct.unpack(">BxxxL", self.pending[:8])
            if len(self.pending) < 8 + size:
                return
            self._deliver(kind, bytes(self.pending[8 : 8 + size]))
            del self.pending[: 8 + size]

    def _deliver(self, kind: int, content_b: bytes) -> None:
        self.tail += content_b
        self.on_output(content_b)
        del self.tail[:-_TAIL_BYTES]
        if kind in self.reader_gone_at:
            self._press(time.monotonic() - self.reader_gone_at[kind])
            return
        try:
            _write_all(self.out_fds.get(kind, 2), content_b)
        except BrokenPipeError:
            # As for a local command whose reader is gone.
            self.reader_gone_at[kind] = time.monotonic()
            self._forward(signal.SIGPIPE)

    def _press(self, waited_s: float) -> None:
        """What ignores SIGPIPE (Python does) would locally fail in its next write; inside, writing goes on."""
        for after_s, number in ((1.0, signal.SIGTERM), (3.0, signal.SIGKILL)):
            if waited_s > after_s and number not in self.signals:
                self._forward(number)

    def _forward(self, number: signal.Signals) -> None:
        if number == signal.SIGWINCH:
            self._resize()
            return
        self.signals.append(number)
        # The third time the person means it.
        name = "KILL" if len(self.signals) > 2 else number.name.removeprefix("SIG")
        # Not here: the engine (20.10) ends no exec while the output of another one that has ended
        # is not read, and reading it is what we are for.
        threading.Thread(target=self._signal_inside, args=(name,), daemon=True).start()

    def _signal_inside(self, name: str) -> None:
        try:
            engine = Engine()
            for _ in range(20):
                argv = ["/bin/sh", "-c", _KILL, "sh", self.tag, name]
                code, _ = engine.run_quietly(self.container, argv)
                if code == 0 or engine.exec_code(self.exec_id) is not None:
                    return
                time.sleep(0.05)  # the command is not up yet
        except ConflictError:
            sys.stderr.write(
                "opencode-tasks: the container is paused (its branch is not checked out): "
                "the command is frozen and stays so until the task is resumed\n"
            )
            with suppress(OSError):
                self.wakeup.send(bytes([_FROZEN]))
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
            self.engine.resize_exec(self.exec_id, rows, columns)
        except (OSError, TaskError):
            return False
        return True

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self.wakeup = writer
        watched = (*_FORWARDED, signal.SIGWINCH) if self.use_tty else _FORWARDED
        before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = {s: signal.signal(s, lambda *_: None) for s in watched}
        # Our own stdout may be a closed pipe: that is an answer to a write, not our death.
        before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()

    @contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        if not self.use_tty:
            yield
            return
        fd = 0
        before = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead stays
        try:
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _open_stdin() -> int | None:
    try:
        os.fstat(0)
    except OSError:
        return None  # closed: `exec … <&-`
    return 0


def _write_all(fd: int, content_b: bytes) -> None:
    view = memoryview(content_b)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            with selectors.DefaultSelector() as selector:
                selector.register(fd, selectors.EVENT_WRITE)
                selector.select()
