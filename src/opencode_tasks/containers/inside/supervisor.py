"""Runs inside a task's container, as its user: executes commands for the host over a socket.

The host hands these texts to the image's own python3, so: the standard library only, and of ours what is in
this folder. It is in the sandbox, and the host believes nothing it says beyond bytes and exit codes.

A connection is one command. We say hello; the host sends the command, with three pipes unless it wants a
terminal; then signals and window sizes. A host that goes away before the command has ended takes
everything along that the command started.

When memory or the workspace's disk comes to an end we hold every process still, until whoever of the host
listens has decided: `thaw` or `stop`.
"""

import errno
import fcntl
import json
import os
import pty
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from opencode_tasks.containers.inside.messages import CHUNK, Channel, GoneError, message
from opencode_tasks.containers.inside.processes import become, below, end_everything, pids, send_signal
from opencode_tasks.containers.inside.watch import Watch, killed, memory

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
REMIND_S = 2.0


def main(path: str, limits: str) -> NoReturn:
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who serve
    watch = Watch(**json.loads(limits))
    os.read(0, 1)  # until the forwarder listens, or has ended
    listener = listen(path)
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    poller.register(watch.decided, select.POLLIN)
    while True:
        for fd, _ in poller.poll(watch.look()):
            if fd == watch.decided:
                watch.decide(os.read(fd, 1))
                continue
            try:
                link, _ = listener.accept()
            except OSError:  # no descriptor left, for now
                time.sleep(0.05)
                continue
            with link:
                try:
                    pid = os.fork()
                except OSError as e:  # no process left
                    refuse(link, e)
                    continue
                if pid == 0:
                    try:
                        listener.close()
                        Command(link, prctl, watch).serve()
                    finally:
                        os._exit(0)


def listen(path: str) -> socket.socket:
    """Whoever of the container's user may write the directory; of the host, whoever may enter it."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    return listener


def refuse(link: socket.socket, error: OSError) -> None:
    with suppress(OSError):
        link.settimeout(1)
        link.sendall(message({"refused": error.strerror}))


class Command(Channel):
    def __init__(self, link: socket.socket, prctl: "Callable[..., int]", watch: Watch) -> None:
        super().__init__(link)
        self.prctl, self.watch = prctl, watch
        self.killed_before = killed(watch.files)
        self.is_held = False
        self.pid = 0
        self.code: int | None = None
        self.was_signalled = False
        self.master = -1
        self.typed = bytearray()

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Whatever the command starts stays below us, in whatever session.
        self.prctl(SUBREAPER, 1, 0, 0, 0)
        try:
            used, limit = memory(self.watch.files)
            most = max(used, self.watch.seen[4])
            self.send({"hello": 1, "memory": used, "limit": limit, "most": most, "processes": len(pids())})
            request, streams = self.request()
            self.held_out()
            self.start(request, streams)
            self.attend()
        except (GoneError, OSError, ValueError, KeyError, TypeError):
            if self.code is None:
                end_everything()
        self.link.close()
        # What it left in the background goes on, and must be waited for.
        while True:
            try:
                os.wait()
            except ChildProcessError:
                return

    def request(self) -> "tuple[dict[str, Any], list[int]]":
        content_b, streams, _, _ = socket.recv_fds(self.link, CHUNK, 3)
        for fd in streams:  # it passes no flags on (CPython 3.11)
            os.set_inheritable(fd, False)
        while True:
            self.feed(content_b)
            for _, request in self.messages():
                return json.loads(request), streams
            content_b = self.link.recv(CHUNK)

    def start(self, request: "dict[str, Any]", streams: "list[int]") -> None:
        slave = -1
        if request["size"]:
            self.master, slave = pty.openpty()
            self.resize(request["size"])
            streams = [slave] * 3
        told, telling = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            failed = 126
            try:
                become(request, streams, slave)
            except OSError as e:
                failed = 127 if e.errno in (errno.ENOENT, errno.ENOTDIR) else 126
                os.write(2, f"{request['argv'][0]}: {e.strerror}\n".encode(errors="backslashreplace"))
            except ValueError as e:
                os.write(2, f"{request['argv'][0]!r}: {e}\n".encode(errors="backslashreplace"))
            finally:
                os.write(telling, b"%d" % failed)
                os._exit(failed)
        for fd in {telling, *streams}:
            os.close(fd)
        while not select.select([told], [], [], 0.1)[0]:
            self.held_out()
        self.send({"started": not os.read(told, 16)})
        os.close(told)

    def held_out(self) -> None:
        """While everything is held still: tell the host, again and again, for another may have decided to decide."""
        while self.watch.seen[0]:
            self.tell_held()
            if select.select([self.link], [], [], REMIND_S)[0]:
                self.feed(self.link.recv(CHUNK))
                self.obey_all()
        self.tell_held()

    def tell_held(self) -> None:
        kind, since, used, limit, _ = self.watch.seen
        if kind:
            self.send({"held": {"kind": kind, "since": since, "used": used, "limit": limit}})
        elif self.is_held:
            self.send({"thawed": True})
        self.is_held = bool(kind)

    def attend(self) -> NoReturn:
        awake, wakeup = os.pipe()
        os.set_blocking(awake, False)
        os.set_blocking(wakeup, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self.link, select.POLLIN)
        poller.register(awake, select.POLLIN)
        if self.master >= 0:
            os.set_blocking(self.master, False)
        self.reap()  # it may have ended before we could be told
        self.obey_all()  # what was typed ahead came with the command
        while True:
            if self.master >= 0:
                wanted = select.POLLIN | (select.POLLOUT if self.typed else 0)
                poller.register(self.master, wanted)
            # What cannot be typed yet waits on the host's side.
            poller.register(self.link, select.POLLIN if len(self.typed) < CHUNK else 0)
            if self.is_held or self.watch.seen[0]:
                self.tell_held()
            for fd, ready in poller.poll(REMIND_S * 1000 if self.is_held else None):
                if fd == awake:
                    os.read(awake, 512)
                    self.reap()
                elif fd == self.master:
                    self.relay(ready, poller)
                elif ready & select.POLLIN:
                    self.feed(self.link.recv(CHUNK))
                    self.obey_all()
                else:
                    raise GoneError

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid and self.code is None:
                self.show_rest()
                self.code = os.waitstatus_to_exitcode(status)
                if self.code < 0:
                    self.code = 128 - self.code
                if self.was_signalled:
                    end_everything()  # also what did not listen: the person wanted an end
                self.send({"exit": self.code, "use": self.use()})

    def use(self) -> "dict[str, int]":
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "memory": max(self.watch.seen[4], spent.ru_maxrss * 1024),
            "cpu_ms": int((spent.ru_utime + spent.ru_stime) * 1000),
            "oom_kills": killed(self.watch.files) - self.killed_before,
        }

    def show_rest(self) -> None:
        """What the command wrote to its terminal and nobody has read yet."""
        deadline = time.monotonic() + 1
        while self.master >= 0 and time.monotonic() < deadline:
            try:
                self.send(os.read(self.master, CHUNK))
            except OSError:  # no more, or all have closed it
                return

    def relay(self, ready: int, poller: "select.poll") -> None:
        if ready & select.POLLOUT and self.typed:
            try:
                del self.typed[: os.write(self.master, self.typed)]
            except OSError:
                self.typed.clear()
        if ready & (select.POLLIN | select.POLLHUP):
            try:
                self.send(os.read(self.master, CHUNK))
            except BlockingIOError:
                pass
            except OSError:  # nobody has it open any more
                poller.unregister(self.master)
                self.master = -1

    def obey_all(self) -> None:
        for kind, content_b in self.messages():
            self.obey(kind, content_b)

    def obey(self, kind: bytes, content_b: bytes) -> None:
        if kind == b"D":
            self.typed += content_b
            return
        asked = json.loads(content_b)
        if "signal" in asked:
            number = signal.Signals["SIG" + asked["signal"]]
            self.was_signalled = True
            if number == signal.SIGKILL:
                end_everything(wait=False)
            else:
                send_signal(number, below(os.getpid()))
            self.send({"signalled": asked["signal"]})
        elif "size" in asked:
            self.resize(asked["size"])
        elif "decide" in asked:
            os.write(self.watch.deciding, b"S" if asked["decide"] == "stop" else b"T")

    def resize(self, size: "list[int]") -> None:
        if self.master >= 0:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def run() -> NoReturn:
    try:
        main(*sys.argv[1:])
    except (AttributeError, ImportError, OSError):  # a smaller Python; a directory that is not ours to write in
        os.execvp("sleep", ["sleep", "infinity"])
