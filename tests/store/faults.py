"""The n-th thing that is done to the disk fails; or, in a process of its own, is the one that is not done any more.

What a process leaves that ends after the n-th is what one leaves that ends before the next.
"""

import errno
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from opencode_tasks.errors import TaskError
from opencode_tasks.store import log

Fault = Literal["EIO", "ENOSPC", "short", "broken", "torn", "before"]
"""`short`: half of the n-th write is written, the rest fails; `broken`: nothing works from then on; `torn`, after half
of the n-th write, and `before` end the process.
"""

FAULTS: tuple[Fault, ...] = get_args(Fault)
_CHANGES = (
    "write",
    "open",
    "fsync",
    "fdatasync",
    "replace",
    "rename",
    "link",
    "unlink",
    "ftruncate",
    "mkdir",
    "rmdir",
    "chmod",
    "fchmod",
    "posix_fallocate",
)
_ENDED = 9


@dataclass(frozen=True)
class Outcome:
    """`reached`: there was an n-th thing. `done`: the call returned; `raised`: what it raised instead.

    `went_on`: whether the same process could do `then` afterwards; None: it was ended.
    """

    reached: bool
    done: bool
    raised: str = ""
    went_on: str | None = None


class _Disk:
    def __init__(self, at: int, fault: Fault) -> None:
        self._at, self._fault = at, fault
        self._count = 0
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _CHANGES}
        self._rest_fails = False

    @property
    def reached(self) -> bool:
        return self._count >= self._at

    def spoil(self) -> None:
        for name in _CHANGES:
            setattr(os, name, self._spoiled(name))
        log._FSYNC = os.fdatasync

    def mend(self) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        log._FSYNC = os.fdatasync

    def _spoiled(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **named: Any) -> Any:
            if name == "open" and not args[1] & (os.O_CREAT | os.O_TRUNC):
                return real(*args, **named)
            if name != "write" and self._fault in ("short", "torn"):
                return real(*args, **named)
            self._count += 1
            if self._count == self._at:
                return self._fail(real, args)
            if self._count > self._at and (self._fault == "broken" or self._rest_fails):
                self._rest_fails = False
                raise OSError(errno.EIO if self._fault == "broken" else errno.ENOSPC, "on purpose")
            return real(*args, **named)

        return call

    def _fail(self, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._fault in ("EIO", "broken", "ENOSPC"):
            raise OSError(errno.ENOSPC if self._fault == "ENOSPC" else errno.EIO, "on purpose")
        if self._fault == "before":
            os._exit(_ENDED)
        found = real(args[0], bytes(args[1])[: len(args[1]) // 2])
        if self._fault == "torn":
            os._exit(_ENDED)
        self._rest_fails = True
        return found


def attempt(run: Callable[[], object], then: Callable[[], object], *, at: int, fault: Fault) -> Outcome:
    """`run` in a process whose disk fails at the n-th change; `then` in the same process, the disk being well again."""
    if fault in ("EIO", "ENOSPC", "short"):
        return _told(_attempted(run, then, _Disk(at, fault)))
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(out)
            gc.disable()  # it would look through all that pytest has made, and copy it by that
            os.write(into, _attempted(run, then, _Disk(at, fault)).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as f:
        said = f.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == _ENDED:
        return Outcome(reached=True, done=False)
    return _told(said)


def _told(said: str) -> Outcome:
    reached, done, raised, went_on = said.split("\n")
    return Outcome(reached == "True", done == "True", raised, went_on)


def _attempted(run: Callable[[], object], then: Callable[[], object], disk: _Disk) -> str:
    disk.spoil()
    raised = _said(run)
    disk.mend()
    return f"{disk.reached}\n{not raised}\n{raised}\n{_said(then)}"


def _said(run: Callable[[], object]) -> str:
    try:
        run()
    except (TaskError, OSError) as e:
        return f"{type(e).__name__} {getattr(e, 'code', '')} {e}".replace("\n", " ")
    except BaseException as e:  # whatever it is, the other process has to hear of it
        return f"BUG {type(e).__name__} {e}".replace("\n", " ")
    return ""


@contextmanager
def in_memory(*, free_bytes: int = 1 << 24) -> Iterator[Path]:
    """A directory for what a disk would make slow and no different: in memory where there is room for it."""
    shm = Path("/dev/shm")
    fits = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > free_bytes
    with tempfile.TemporaryDirectory(dir=shm if fits else None) as made:
        yield Path(made)
