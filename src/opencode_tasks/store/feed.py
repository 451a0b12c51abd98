"""Which tasks changed, in the order they did: what the index and the history read instead of every task.

A line is `<id> <rev> <label>`, appended *before* the event it speaks of. A process killed
between the two leaves an entry of a revision that never came, and never a change that no
entry tells of. Not synced: after a power loss the readers compare every task once.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from opencode_tasks.store import files
from opencode_tasks.values import value

_ROLL_BYTES = 1024 * 1024
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


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
        self._number = 0
        self._path = self._next = ""

    def note(self, *entries: Entry) -> None:
        """Under the tasks' locks."""
        content_b = "".join(f"{e.task_id} {e.rev} {_one_line(e.label)}\n" for e in entries).encode(errors="replace")
        with files.refused_writes(self._folder):
            while not self._append(content_b):
                self._turn_to(max(_numbers(self._folder), default=1))

    def _turn_to(self, number: int) -> None:
        self._number = number
        self._path, self._next = str(_file(self._folder, number)), str(_file(self._folder, number + 1))

    def _append(self, content_b: bytes) -> bool:
        """False when it has to be done (again) in another file."""
        if not self._number:
            return False
        try:
            fd = os.open(self._path, _FLAGS, 0o644)
        except FileNotFoundError:
            self._folder.mkdir(exist_ok=True)
            return False
        try:
            files.write_all(fd, content_b)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if size >= _ROLL_BYTES:
            with suppress(FileExistsError):
                os.close(os.open(self._next, _FLAGS | os.O_EXCL, 0o644))
            return True
        # A reader may have gone on to a newer file before we wrote.
        return not os.path.lexists(self._next)


def _one_line(text: str) -> str:
    if text.isprintable() and len(text) < 200:
        return text
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}"


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except FileNotFoundError:
        return []


def after(folder: Path, place: Place) -> tuple[list[Entry], Place]:
    """The whole entries after `place`, and where the next read goes on."""
    entries: list[Entry] = []
    for number in _numbers(folder):
        if number < place.file:
            continue
        start = place.offset if number == place.file else 0
        with suppress(FileNotFoundError), _file(folder, number).open("rb") as f:
            f.seek(start)
            content_b = f.read()
            whole = content_b.rfind(b"\n") + 1
            entries += _parsed(content_b[:whole])
            place = Place(number, start + whole)
    return entries, place


def _parsed(content_b: bytes) -> Iterator[Entry]:
    for line in content_b.decode(errors="replace").splitlines():
        words = line.split(" ", 2)
        if len(words) == 3 and words[1].isdecimal():
            yield Entry(words[0], int(words[1]), words[2])


def end(folder: Path) -> Place:
    numbers = _numbers(folder)
    if not numbers:
        return Place()
    with suppress(FileNotFoundError):
        return Place(numbers[-1], _file(folder, numbers[-1]).stat().st_size)
    return Place(numbers[-1], 0)


def forget(folder: Path, before: Place) -> None:
    """Delete what every reader has behind it."""
    for number in _numbers(folder):
        if number < before.file:
            with suppress(OSError):
                _file(folder, number).unlink()
