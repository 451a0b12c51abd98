"""The plugin's child: one for every OpenCode and directory. A line of JSON asks, a line of JSON answers.

It also stands in for `tasksh`: everything is loaded here, and a fork of us runs the command with the streams and the
environment that it was given. One thread, so that forking is safe.
"""

import gc
import json
import mmap
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from opencode_tasks.commands import here
from opencode_tasks.errors import TaskError
from opencode_tasks.opencode_hooks import MODULES
from opencode_tasks.opencode_hooks.call import Call
from opencode_tasks.opencode_hooks.world import Reply, World
from opencode_tasks.policy import risk

_LONGEST_LINE = 16 << 20
_FORKED = ("command",)


class Bridge:
    def __init__(self, directory: Path, pid: int, socket_path: str) -> None:
        # Whatever prints must not print into the conversation.
        self.asked, self.answers = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)
        self.world = World(directory, pid, socket_path)
        self.selector = selectors.DefaultSelector()
        self.seen_b = bytearray()
        self.listener = _listen(Path(socket_path)) if socket_path else None
        self.workers: set[int] = set()
        self.leaving: set[int] = set()
        self.is_over = False

    def run(self) -> None:
        """Until OpenCode closes its end, which it also does when it is killed."""
        self.selector.register(self.asked, selectors.EVENT_READ, self._hear)
        if self.listener is not None:
            self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        gc.freeze()
        while not self.is_over:
            for key, _ in self.selector.select():
                key.data()
        for pid in self.workers:  # nobody reads any more what they say
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.listener is not None:
            Path(self.world.socket_path).unlink(missing_ok=True)
        with suppress(Exception):
            import_module("opencode_tasks.opencode_hooks.disposed").run(self.world, {"killed": True})

    def _hear(self) -> None:
        more_b = os.read(self.asked, 1 << 20)
        self.seen_b += more_b
        self.is_over = not more_b or len(self.seen_b) > _LONGEST_LINE
        *lines, rest = bytes(self.seen_b).split(b"\n")
        self.seen_b = bytearray(rest)
        for line_b in lines:
            self._answer_line(line_b)

    def _answer_line(self, line_b: bytes) -> None:
        try:
            said = json.loads(line_b)
            number, name = said["id"], said["hook"]
            module = MODULES[name]
        except (ValueError, KeyError, TypeError):
            return
        if name in _FORKED:
            self._fork_hook(number, module, said)
        else:
            self._send(number, self._called(module, said))
        if name == "started":
            _load()

    def _called(self, module: str, said: dict[str, Any]) -> Reply:
        """A bug of ours is told as one; what it means for the hook, OpenCode's side knows."""
        try:
            reply: Reply = import_module(f"opencode_tasks.opencode_hooks.{module}").run(self.world, said)
        except TaskError as e:
            return {"error": e.message + (f"; {e.hint}" if e.hint else "")}
        except Exception as e:
            traceback.print_exc()
            return {"error": f"a bug of opencode-tasks: {e!r}"}
        else:
            return reply
        finally:
            with suppress(Exception):
                here.close()

    def _send(self, number: object, reply: Reply) -> None:
        content_b = json.dumps({"id": number, **reply}).encode() + b"\n"
        with suppress(BrokenPipeError):
            while content_b:
                content_b = content_b[os.write(self.answers, content_b) :]

    def _fork_hook(self, number: object, module: str, said: dict[str, Any]) -> None:
        """Its state is read again afterwards: the fork's is gone with it."""
        reading, writing = os.pipe()
        with suppress(Exception):
            self.world.working(said)
        pid = os.fork()
        if pid == 0:
            self._leave_alone(writing)
            reply = self._called(module, said)
            with os.fdopen(writing, "wb") as f:
                f.write(json.dumps(reply).encode())
            os._exit(0)
        os.close(writing)
        pieces: list[bytes] = []

        def more() -> None:
            piece_b = os.read(reading, 1 << 16)
            if piece_b:
                pieces.append(piece_b)
                return
            self.selector.unregister(reading)
            os.close(reading)
            os.waitpid(pid, 0)
            try:
                reply = json.loads(b"".join(pieces))
            except ValueError:
                reply = {"error": "the command ended unexpectedly"}
            self._send(number, {**self._called("branch_updated", said), **reply})

        self.selector.register(reading, selectors.EVENT_READ, more)

    def _accept(self) -> None:
        assert self.listener is not None  # noqa: S101 (for mypy)
        link, _ = self.listener.accept()
        link.settimeout(5)
        try:
            call = Call(link)
        except (OSError, ValueError):
            link.close()
            return
        has_answered = mmap.mmap(-1, 1)
        pid = os.fork()
        if pid == 0:
            self._leave_alone(link.fileno())
            call.serve(has_answered)
        call.close_streams()
        self._watch(link, pid, has_answered)

    def _watch(self, link: socket.socket, pid: int, has_answered: mmap.mmap) -> None:
        """Whoever waits for the command and goes away takes it along. What has answered still puts its things away."""

        def gone() -> None:
            self.selector.unregister(link)
            link.close()
            self.workers.discard(pid)
            if not has_answered[0]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.leaving = {one for one in (*self.leaving, pid) if os.waitpid(one, os.WNOHANG) == (0, 0)}

        self.workers.add(pid)
        self.selector.register(link, selectors.EVENT_READ, gone)

    def _leave_alone(self, *kept: int) -> None:
        """In a fork: what is ours alone, it closes."""
        self.selector.close()
        listening = [self.listener.fileno()] if self.listener else []
        for fd in (self.asked, self.answers, *listening):
            if fd not in kept:
                os.close(fd)
        gc.disable()


def _load() -> None:
    """What a command needs, before the first one is forked off: it would load it again each time."""
    for name in _USED:
        import_module(f"opencode_tasks.{name}")
    risk.assess(("bash", "-c", "true"), workspace=Path("/"), cwd=Path("/"))  # which loads the grammar
    gc.collect()
    gc.freeze()


_USED = (
    *("commands.execution", "containers.opening", "containers.network", "store.audit", "store.leases", "git.incoming"),
    *("checkpoints.snapshot", "checkpoints.upkeep", "commands.checkpoint", "containers.freeze", "config"),
)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def main(argv: list[str], *, made: Callable[[Path, int, str], Bridge] = Bridge) -> int:
    """`DIRECTORY PID`: where OpenCode works, and its process."""
    from opencode_tasks.containers import sockets
    from opencode_tasks.git import discovery
    from opencode_tasks.store import Store

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is OpenCode's
    directory, pid = Path(argv[0]), int(argv[1])
    socket_path = ""
    with suppress(TaskError):
        store = Store(discovery.find(directory, {}).common_dir)
        if store.exists():
            folder = sockets.bridges(store.clone_id)
            socket_path = "" if folder is None else str(folder / f"{os.getpid()}.sock")
    made(directory, pid, socket_path).run()
    return 0
