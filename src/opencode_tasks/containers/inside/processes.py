"""The container's processes, seen from inside."""

import fcntl
import os
import signal
import termios
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

KILL_S = 10.0


def below(root: int) -> "list[int]":
    """Everything that descends from a process."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def pids() -> "list[int]":
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parents() -> "Iterator[tuple[int, int]]":
    """Every process and its parent."""
    for pid in pids():
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                yield pid, int(f.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue


def send_signal(number: int, pids: "Iterable[int]") -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


def everything(number: int) -> None:
    """A signal to all but us, the init, and those who serve; at once, so that nothing forks away."""
    if number != signal.SIGKILL:
        send_signal(number, [-1])
        send_signal(signal.SIGCONT, children())
        return
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        others = set(pids()) - {1, os.getpid(), *children()}
        if not others:
            return
        send_signal(number, others)
        time.sleep(0.005)


def children() -> "list[int]":
    return [pid for pid, parent in parents() if parent == os.getpid()]


def end_everything(*, wait: bool = True) -> None:
    """Stopped first, so that nothing forks away from the killing."""
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        pids = below(os.getpid())
        send_signal(signal.SIGSTOP, pids)
        more = below(os.getpid())
        if set(more) - set(pids) and time.monotonic() < deadline - KILL_S / 2:
            continue
        send_signal(signal.SIGKILL, more)
        if not wait:
            return
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def become(request: "dict[str, Any]", streams: "list[int]", slave: int) -> NoReturn:
    """The command itself. Does not return."""
    os.setsid()
    if slave >= 0:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(request["cwd"])
    argv = [os.fsencode(a) for a in request["argv"]]
    env = {**os.environ, **request["env"]}
    os.execvpe(argv[0], argv, env)
