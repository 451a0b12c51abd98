"""`opencode-tasks …` in a process of its own, forked from one in which everything is imported already.

It takes a tenth of what a new interpreter takes, which is most of what a command costs. What git starts (hooks), and
what a test starts itself, are new interpreters all the same.
"""

import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

_PIPE_BYTES = 65536
_LIBRARIES = ("docker", "filelock", "gzip", "jsonlines", "rich.console", "rich.table", "sqlite3", "tomli_w", "yaml")


class Server:
    """The process that forks one for each request. Threads may ask at the same time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self._ours.close()
        self._process.wait(timeout=60)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin_b: bytes,
        timeout_s: float,
        before: str = "",
    ) -> tuple[int, bytes, bytes]:
        """The exit code, as `subprocess` tells it, and what was printed. Raises `subprocess.TimeoutExpired`.

        `before`: Python that is executed first, where faults are injected.
        """
        assert len(stdin_b) <= _PIPE_BYTES, "more than a pipe holds"
        umask = os.umask(0)
        os.umask(umask)
        asked = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "umask": umask, "before": before}
        stdin, given = os.pipe()
        os.write(given, stdin_b)
        os.close(given)
        (out, stdout), (err, stderr), (told, report) = os.pipe(), os.pipe(), socket.socketpair()
        socket.send_fds(self._ours, [b"!"], [stdin, stdout, stderr, report.fileno()])
        report.close()
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        with told, os.fdopen(out, "rb", 0) as out_file, os.fdopen(err, "rb", 0) as err_file:
            told.sendall(json.dumps(asked).encode())
            told.shutdown(socket.SHUT_WR)
            said = {told.fileno(): b"", out: b"", err: b""}
            with selectors.DefaultSelector() as selector:
                for f in (told, out_file, err_file):
                    selector.register(f, selectors.EVENT_READ)
                deadline = time.monotonic() + timeout_s
                while selector.get_map():
                    ready = selector.select(max(0, deadline - time.monotonic()))
                    if not ready:
                        os.kill(int(said[told.fileno()].split()[0]), signal.SIGKILL)
                        raise subprocess.TimeoutExpired(argv, timeout_s, said[out], said[err])
                    for key, _ in ready:
                        more = os.read(key.fd, _PIPE_BYTES)
                        said[key.fd] += more
                        if not more:
                            selector.unregister(key.fileobj)
            _, status = said[told.fileno()].split()
            return int(status), said[out], said[err]


def _serve(control: socket.socket) -> None:
    """Ends when nobody can ask any more."""
    _import_everything()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _tell_the_end(key.fd, *key.data)
                    continue
                asked, fds, _, _ = socket.recv_fds(control, 1, 4)
                if not asked:
                    return
                pid = os.fork()
                if pid == 0:
                    _become(fds)
                for fd in fds[:3]:
                    os.close(fd)
                os.write(fds[3], f"{pid} ".encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, fds[3]))


def _tell_the_end(pidfd: int, pid: int, report: int) -> None:
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(report)


def _import_everything() -> None:
    import opencode_tasks

    for name in _LIBRARIES:
        import_module(name)
    for found in pkgutil.walk_packages(opencode_tasks.__path__, "opencode_tasks."):
        if not found.name.endswith("__main__"):
            import_module(found.name)


def _become(fds: Sequence[int]) -> NoReturn:
    """What the interpreter does before and after `main`."""
    code = 1
    try:
        with socket.socket(fileno=os.dup(fds[3])) as report:
            asked = b"".join(iter(lambda: report.recv(_PIPE_BYTES), b""))
        for fd in range(3):
            os.dup2(fds[fd], fd)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
        request = json.loads(asked)
        os.environ.clear()
        os.environ.update(request["env"])
        os.umask(request["umask"])
        os.chdir(request["cwd"])
        sys.argv = ["opencode-tasks", *request["argv"]]
        from opencode_tasks.__main__ import main

        exec(request["before"], {})  # noqa: S102
        code = main()
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path.pop(0)
    _serve(socket.socket(fileno=int(sys.argv[1])))
