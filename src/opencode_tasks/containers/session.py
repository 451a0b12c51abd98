"""One command in a running container, connected to our own stdin, stdout and stderr: what both ways to it share."""

import os
import select
import selectors
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from opencode_tasks.values import value

if TYPE_CHECKING:
    from opencode_tasks.masking import Mask

FROZEN = 0  # no signal's number
CHUNK = 1 << 16
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_TAIL_BYTES = 4096
_TIMED_OUT = 124
_GRACE_S = 2.0


@value
class Finished:
    """`code` is None when the container went away and nobody knows."""

    code: int | None
    output_tail: str
    duration_ms: int
    signals: tuple[str, ...]


@value
class Held:
    """Everything in the container is held still: `kind` came to an end, at the container's own time `since` (ns).

    Of memory: bytes used and the limit; of the disk: bytes free and what must be.
    """

    kind: Literal["memory", "disk"]
    since: int
    used: int
    limit: int


@value
class Used:
    """What a command used up, as the container says: the most memory, processor time, processes ended by the kernel."""

    memory: int
    cpu_ms: int
    oom_kills: int


Decision = Literal["thaw", "stop"]


@value
class Given:
    """What of the settings a command gets. `mask` knows what of it is secret; None: nothing is."""

    variables: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})
    mask: "Mask | None" = None


class Session(ABC):
    """`stdout_fd`: where the command's stdout goes. `on_output` sees every piece of both streams.

    `on_held` decides; None: somebody else does. `takes_input`: whether our stdin is the command's.
    """

    takes_input = True

    def __init__(self, container: str, *, use_tty: bool, stdout_fd: int = 1) -> None:
        self.on_output: Callable[[bytes], None] = lambda _: None
        self.on_held: Callable[[Held], Decision | None] = lambda _: None
        self.used: Used | None = None
        self.container = container
        self.use_tty = use_tty
        self.out_fds = {1: stdout_fd, 2: 2}
        self.tail = bytearray()
        self.signals: list[signal.Signals] = []
        self.started_at = time.monotonic()
        self._to_send = bytearray()
        self._input_ended = False
        self._is_late = False
        self._wakeup: socket.socket
        self._woken_by: socket.socket

    def run(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], timeout_s: float | None = None) -> Finished:
        """Returns when the command has ended. Raises `TaskError` when it could not be started.

        After `timeout_s` all of it is ended, and the code is 124, as `timeout` has it.
        """
        self.started_at = time.monotonic()
        if self.use_tty:
            env = {**env, "TERM": os.environ.get("TERM", "xterm")}
        with self._signals() as wakeup:
            signal.setitimer(signal.ITIMER_REAL, timeout_s or 0)
            code = self._run(argv, cwd, env, wakeup)
        return self.as_far_as_seen(_TIMED_OUT if self._is_late and code is not None else code)

    def as_far_as_seen(self, code: int | None) -> Finished:
        """For the record, when `run` was interrupted too."""
        return Finished(
            code,
            bytes(self.tail).decode(errors="replace"),
            int((time.monotonic() - self.started_at) * 1000),
            tuple(s.name for s in self.signals),
        )

    def say(self, line: str) -> None:
        """To the person, whatever state the terminal is in."""
        sys.stderr.write(f"opencode-tasks: {line}" + ("\r\n" if self.use_tty else "\n"))
        sys.stderr.flush()

    def ask(self, question: str) -> bool | None:
        """One key of whoever sits at the terminal: y or n. None: nobody does, or a signal was the answer."""
        if not (os.isatty(0) and os.isatty(2)):
            return None
        self.say(f"{question} [y/n]")
        poller = select.poll()
        poller.register(0, select.POLLIN)
        poller.register(self._woken_by, select.POLLIN)
        while True:
            if any(fd == self._woken_by.fileno() for fd, _ in poller.poll()):
                return None  # `_woken` comes to it
            typed = os.read(0, 1).lower()
            if typed in (b"y", b"n", b"", b"\x03", b"\x04"):
                return typed == b"y" if typed in (b"y", b"n") else None

    @abstractmethod
    def _run(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], wakeup: socket.socket) -> int | None:
        """The exit code; None when nobody knows. A byte from `wakeup` is for `_woken`."""

    @abstractmethod
    def _signal_inside(self, name: str) -> None:
        """Deliver a signal (`INT`) to whatever the command started."""

    @abstractmethod
    def _resize(self) -> bool:
        """Tell the size of our terminal. False: to be tried again."""

    @abstractmethod
    def _reader_is_gone(self, kind: int) -> None:
        """Of stdout (1) or stderr (2). As for a local command whose reader is gone."""

    def _woken(self, wakeup: socket.socket) -> None:
        for number in wakeup.recv(64):
            if number == FROZEN:
                raise KeyboardInterrupt
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGALRM:
                self._signal_inside("KILL" if self._is_late else "TERM")
                self._is_late = True
                signal.setitimer(signal.ITIMER_REAL, _GRACE_S)
            else:
                self._forward(signal.Signals(number))

    def _forward(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if len(self.signals) > 3:
            raise KeyboardInterrupt  # nobody obeys: at least we go
        # The third time the person means it.
        self._signal_inside("KILL" if len(self.signals) > 2 else number.name.removeprefix("SIG"))

    def _frozen(self) -> None:
        sys.stderr.write(
            "opencode-tasks: the container is paused (its branch is not checked out): "
            "the command is frozen and stays so until the task is resumed\n"
        )
        with suppress(OSError):
            self._wakeup.send(bytes([FROZEN]))

    def _read_input(self) -> None:
        """Take what our stdin has, for `_to_send`."""
        try:
            content_b = os.read(0, CHUNK)
        except OSError:  # a terminal that hung up
            content_b = b""
        self._to_send += content_b
        self._input_ended = not content_b

    def _deliver(self, kind: int, content_b: bytes) -> None:
        self.tail += content_b
        self.on_output(content_b)
        del self.tail[:-_TAIL_BYTES]
        try:
            _write_all(self.out_fds.get(kind, 2), content_b)
        except BrokenPipeError:
            self._reader_is_gone(kind)

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._wakeup, self._woken_by = writer, reader
        watched = (*_FORWARDED, signal.SIGALRM, *((signal.SIGWINCH,) if self.use_tty else ()))
        before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = {s: signal.signal(s, lambda *_: None) for s in watched}
        # Our own stdout may be a closed pipe: that is an answer to a write, not our death.
        before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            yield reader
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
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


def has_stdin() -> bool:
    """Not when it was closed: `exec … <&-`."""
    try:
        os.fstat(0)
    except OSError:
        return False
    return True


def in_background(call: Callable[[], None]) -> None:
    threading.Thread(target=call, daemon=True).start()


def _write_all(fd: int, content_b: bytes) -> None:
    view = memoryview(content_b)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            with selectors.DefaultSelector() as selector:
                selector.register(fd, selectors.EVENT_WRITE)
                selector.select()


def frames(pending: bytearray) -> Iterator[tuple[int, bytes]]:
    """What of an exec's output is whole: the stream (1 or 2) and what it said. It is taken out of `pending`.

    Engine API, "attach": 8 bytes of header (stream, 0, 0, 0, size big-endian), then the payload.
    """
    while len(pending) >= 8:
        kind, size = struct.unpack(">BxxxL", pending[:8])
        if len(pending) < 8 + size:
            return
        content_b = bytes(pending[8 : 8 + size])
        del pending[: 8 + size]
        yield kind, content_b
