"""Which tasks changed, in the order they did: what the index and the history read instead of every task.

A line is `<id> <rev> <label>`, appended *before* the event it speaks of. A process killed
between the two leaves an entry of a revision that never came, and never a change that no
entry tells of. Not synced: after a power loss the readers compare every task once.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from opencode_tasks.store import files
from opencode_tasks.values import value

_ROLL_BYTES = 1024 * 1024
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME = re.compile(r"\d{6}|[1-9]\d{6,17}", re.ASCII)
_LONGEST_REV = 18


class Place(NamedTuple):
    """How far a reader is: the number of a file, and the offset in it."""

    file: int = 1
    offset: int = 0


@value
class Entry:
    task_id: str
    rev: int
    label: str


class Feed:
    """The writing end. One object is for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = self._next = ""

    def note(self, *entries: Entry) -> None:
        """Under the tasks' locks."""
        # The first newline ends what a process that was killed may have left unfinished.
        lines = "".join(f"\n{e.task_id} {e.rev} {_one_line(e.label)}" for e in entries)
        with files.refused_writes(self._folder):
            while entries and not self._append(f"{lines}\n".encode(errors="replace")):
                self._turn_to_newest()

    def _turn_to_newest(self) -> None:
        numbers = _numbers(self._folder)
        if not numbers:
            self._folder.mkdir(exist_ok=True)
            os.close(os.open(_file(self._folder, 1), _FLAGS | os.O_CREAT, 0o644))
        newest = numbers[-1] if numbers else 1
        self._path, self._next = (str(_file(self._folder, n)) for n in (newest, newest + 1))

    def _append(self, content_b: bytes) -> bool:
        """False when it has to be done (again) in another file."""
        try:
            fd = os.open(self._path, _FLAGS)
        except FileNotFoundError:
            return False  # none yet, or forgotten
        try:
            # Written in part: again, and whole, for somebody else's may stand between.
            while os.write(fd, content_b) != len(content_b):
                pass
            # A reader may have gone on to the next file before we wrote. Looked for in this order: files are forgotten
            # in theirs, so while this one is there, a next one that is not has never been.
            has_next = os.path.lexists(self._next)
            found = os.fstat(fd)
            if has_next or found.st_nlink == 0:
                return False
            if found.st_size >= _ROLL_BYTES:
                self._roll(fd)
            return True
        finally:
            os.close(fd)

    def _roll(self, fd: int) -> None:
        """Locked against `forget`: the next file must not come back after a reader was done with it."""
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            with suppress(FileExistsError):
                os.close(os.open(self._next, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644))


def _one_line(text: str) -> str:
    if text.isprintable() and len(text) < 200:
        return text
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}"


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def after(folder: Path, place: Place) -> tuple[list[Entry], Place]:
    """The whole entries after `place`, and where the next read goes on. What is not there any more: see `holds`."""
    entries: list[Entry] = []
    numbers = _numbers(folder)
    if numbers and numbers[-1] < place.file:
        place = Place()
    for number in numbers:
        if number < place.file:
            continue
        start = place.offset if number == place.file else 0
        with suppress(FileNotFoundError), _file(folder, number).open("rb") as f:
            if start > os.fstat(f.fileno()).st_size:
                start = 0
            f.seek(start)
            content_b = f.read()
            whole = content_b.rfind(b"\n") + 1
            entries += _parsed(content_b[:whole])
            place = Place(number, start + whole)
    return entries, place


def holds(folder: Path, place: Place) -> bool:
    """Whether everything after `place` is there: the feed was not deleted, nor cut short when the power went."""
    try:
        return _file(folder, place.file).stat().st_size >= place.offset
    except FileNotFoundError:
        return place == Place() and not _numbers(folder)


def _parsed(content_b: bytes) -> Iterator[Entry]:
    for line in content_b.decode(errors="replace").split("\n"):
        words = line.split(" ", 2)
        if len(words) == 3 and words[1].isdecimal() and len(words[1]) <= _LONGEST_REV:
            yield Entry(words[0], int(words[1]), words[2])


def end(folder: Path) -> Place:
    """Where the last whole entry ends."""
    for number in reversed(_numbers(folder)):
        with suppress(FileNotFoundError), _file(folder, number).open("rb") as f:
            content_b = f.read()
            return Place(number, content_b.rfind(b"\n") + 1)
    return Place()


def forget(folder: Path, before: Place) -> None:
    """Delete what every reader has behind it, the oldest first: see `Feed`."""
    with suppress(OSError):
        for number in _numbers(folder):
            if number < before.file:
                _forget(_file(folder, number))


def _forget(path: Path) -> None:
    with suppress(FileNotFoundError):
        fd = os.open(path, _FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            path.unlink()
        finally:
            os.close(fd)
