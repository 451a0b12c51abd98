"""What this clone writes down only to be faster the next time: gone, old or damaged, it is made anew.

A line with the SHA-256 of what follows, then JSON. What is read is what somebody wrote here, whole; whether it makes
sense is for the reader to say.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.store import files

LARGEST_BYTES = 4 << 20


def read(path: Path) -> dict[str, Any] | None:
    """None: there is no such note, or it cannot be read. A link is not followed, a pipe not waited for."""
    with suppress(OSError, ValueError, RecursionError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            found = os.fstat(fd)
            size_bytes = min(found.st_size, LARGEST_BYTES) if stat.S_ISREG(found.st_mode) else 0
            digest_b, _, body_b = f.read(size_bytes).partition(b"\n")
        if hashlib.sha256(body_b).hexdigest().encode() == digest_b:
            note = json.loads(body_b)
            return note if isinstance(note, dict) else None
    return None


def write(path: Path, note: dict[str, Any]) -> None:
    """Nothing happens where it cannot be written. Two processes may write at the same time: one of the notes stays."""
    body_b = json.dumps(note, separators=(",", ":")).encode()
    content_b = hashlib.sha256(body_b).hexdigest().encode() + b"\n" + body_b
    if len(content_b) > LARGEST_BYTES:
        return
    with suppress(OSError, TaskError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        files.replace(path, content_b)


# A file that changed so recently may change again without its time showing it.
_CLOCK_NS = 1_000_000_000


def of_file(note: Path, path: Path, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `ask` gives, or gave while the file at `path` was the very same; and what it raises."""
    stamp = _stamp(path)
    noted = read(note) if stamp is not None else None
    if noted is not None and noted.get("of") == stamp and isinstance(noted.get("found"), dict):
        found: dict[str, Any] = noted["found"]
        return found
    made = ask()
    if stamp is not None and time.time_ns() - stamp[-1] > _CLOCK_NS and _stamp(path) == stamp:
        with suppress(TypeError, ValueError):  # no JSON
            if note.parent.is_dir():
                write(note, {"of": stamp, "found": made})
    return made


def of_content(note: Path, path: Path, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """As `of_file`, for a small file that is written often: while it holds the very same bytes, whenever they came."""
    content_b = content(path)
    known = None if content_b is None else noted(note, content_b)
    if known is not None:
        return known
    made = ask()
    if content_b is not None and content(path) == content_b:
        note_down(note, content_b, made)
    return made


def noted(note: Path, content_b: bytes) -> dict[str, Any] | None:
    """What was noted down for a file with this content."""
    said = read(note)
    if said is None or said.get("of") != hashlib.sha256(content_b).hexdigest():
        return None
    found = said.get("found")
    return found if isinstance(found, dict) else None


def note_down(note: Path, content_b: bytes, found: dict[str, Any]) -> None:
    with suppress(TypeError, ValueError):  # no JSON
        if note.parent.is_dir():
            write(note, {"of": hashlib.sha256(content_b).hexdigest(), "found": found})


def content(path: Path) -> bytes | None:
    """None for what is no ordinary file, or a large one."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                content_b = f.read(LARGEST_BYTES + 1)
                return content_b if len(content_b) <= LARGEST_BYTES else None
    return None


def _stamp(path: Path) -> list[Any] | None:
    """None for what is no ordinary file."""
    with suppress(OSError):
        found = os.stat(path, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return [str(path), found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns, found.st_mtime_ns]
    return None
