"""Layer 3: what a person reads and edits: `decisions.md`, and both documents of a new task."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from opencode_tasks import decisions
from opencode_tasks.decisions import Decisions
from opencode_tasks.errors import TaskError
from opencode_tasks.events import New
from opencode_tasks.store import files, plan
from opencode_tasks.task import Task

_PATIENCE_S, _POLL_S = 0.3, 0.002
_SAVED_S = 0.1
_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, and RENAME_SWAP
_SET_LEASE = getattr(fcntl, "F_SETLEASE", 0)


def write_first(task_dir: Path, task: Task) -> None:
    """The documents of a new task, from the templates."""
    files.replace(task_dir / "plan.md", plan.first(task.title, task.branch).encode(errors="replace"))
    files.replace(task_dir / "decisions.md", _encoded(decisions.render(Decisions(task.title))))


def hand_edits(path: Path, known: Decisions) -> tuple[list[New], bytes | None]:
    """What somebody changed in `decisions.md`, as events, and the bytes that this is about.

    None: there is no file. Nobody's edits are in an empty one, which stands for what was not looked at.
    """
    for kept in _set_aside(path):
        edits = _hand_edits(known, _whole(kept, patience_s=0))
        if edits:
            return edits, b""
    content_b = _whole(path)
    if content_b is None:
        return [], b"" if os.path.lexists(path) else None
    return _hand_edits(known, content_b), content_b


def _hand_edits(known: Decisions, content_b: bytes | None) -> list[New]:
    if content_b is None or content_b == _encoded(decisions.render(known)):
        return []
    from opencode_tasks import hand_edits as by_hand

    return by_hand.hand_edits(known, content_b.decode(errors="surrogateescape"), new_ids(known))


def write_decisions(path: Path, known: Decisions, read_b: bytes | None) -> bool:
    """Replace the file. False when it was not what was read: then ask `hand_edits` again.

    Under the task's lock, which keeps us out and no editor. So the file that lay there is only deleted
    when it is what was read and nobody has it open for writing; else it is set aside, and `hand_edits`
    finds it. What cannot be written stays: the log has it, and the next change writes it.
    """
    content_b = _encoded(decisions.render(known))
    with suppress(TaskError), files.refused_writes(path):
        for kept in _set_aside(path):
            old_b = _whole(kept, patience_s=0)
            if _hand_edits(known, old_b):
                return False
            if old_b is not None:
                kept.unlink()
        if content_b == read_b or not (path.is_file() or read_b is None):
            return True
        new = path.with_name(f".{path.name}.{time.time_ns()}.kept")
        try:
            new.write_bytes(content_b)
            with suppress(FileNotFoundError):
                new.chmod(path.stat().st_mode & 0o7777)
            return _replace(path, new, read_b)
        except OSError:
            new.unlink(missing_ok=True)
            raise
    return True


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f".{path.name}.*.kept"))


def _replace(path: Path, new: Path, read_b: bytes | None) -> bool:
    if read_b is None:
        return _move(new, path)
    old = new
    if not exchange(new, path):
        old = path.with_name(f".{path.name}.{time.time_ns()}.kept")
        path.rename(old)
        if not _move(new, path):
            new.unlink()
            return False
    if _whole(old, patience_s=0) != read_b:
        return False
    old.unlink()
    return True


def _move(source: Path, target: Path) -> bool:
    """Rename; False when something has the name already."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            return False
        source.rename(target)
    else:
        source.unlink()
    return True


def exchange(one: Path, other: Path) -> bool:
    """Each gets the other's name, and there is no moment without it. False where that cannot be done."""
    import ctypes

    libc, both = ctypes.CDLL(None), (os.fsencode(one), os.fsencode(other))
    try:
        return bool(libc.renameat2(_HERE, both[0], _HERE, both[1], _SWAP) == 0)
    except AttributeError:
        with suppress(AttributeError):
            return bool(libc.renamex_np(*both, _SWAP) == 0)  # macOS
    return False


def _whole(path: Path, *, patience_s: float = _PATIENCE_S) -> bytes | None:
    """What the file holds. None: there is none, it cannot be read, or somebody has been writing it for long."""
    until = time.monotonic() + patience_s
    while True:
        with suppress(OSError), path.open("rb") as f, not_being_written(f) as is_whole:
            if is_whole:
                return f.read()
        if time.monotonic() >= until or not path.is_file():
            return None
        time.sleep(_POLL_S)


@contextmanager
def not_being_written(f: IO[bytes]) -> Iterator[bool]:
    """Whether no process has the file open for writing. As long as it lasts, whoever wants to waits (Linux).

    Editors that save in place empty the file first, and a shell may hold one open for hours.
    """
    leased = _lease(f)
    # Where there are no leases only the file's time tells.
    yield abs(time.time() - os.fstat(f.fileno()).st_mtime) > _SAVED_S if leased is None else leased
    if leased:
        fcntl.fcntl(f, _SET_LEASE, fcntl.F_UNLCK)


def _lease(f: IO[bytes]) -> bool | None:
    """None: there are none here."""
    if not _SET_LEASE:
        return None
    import signal

    try:
        # An editor that comes now is told to us by a signal, and SIGIO would be our end.
        fcntl.fcntl(f, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(f, _SET_LEASE, fcntl.F_RDLCK)
    except OSError as e:
        return False if e.errno == errno.EAGAIN else None
    return True


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def new_ids(known: Decisions) -> Iterator[str]:
    taken = {item.id for item in known.items}
    while True:
        made = f"d{os.urandom(4).hex()}"
        if made not in taken:
            taken.add(made)
            yield made
