"""`plan.md` of a task: made from the template, then the agent's and the person's own."""

import os
import re
import stat
from functools import cache
from pathlib import Path

from opencode_tasks import assets

LARGEST_BYTES = 256 * 1024
"""Of a plan that is read for its steps: the parser takes up to 3 s for so much."""


def first(title: str, branch: str) -> str:
    words = {"title": title, "branch": branch}
    return re.sub(r"\{(title|branch)\}", lambda found: words[found[1]], _template())


@cache
def _template() -> str:
    return (assets.root() / "templates" / "plan.md").read_text()


def open_file(path: Path) -> int:
    """A descriptor. Raises `OSError`: for a link and what else is no ordinary file, and for what is too large, too."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST_BYTES:
        return fd
    os.close(fd)
    what = "larger than 256 KiB" if stat.S_ISREG(found.st_mode) else "no ordinary file"
    raise OSError(0, what, str(path))


def read(path: Path) -> bytes:
    """Raises `OSError` as `open_file`."""
    with os.fdopen(open_file(path), "rb") as f:
        return f.read(LARGEST_BYTES + 1)


def text_of(content_b: bytes) -> str:
    return content_b.decode(errors="surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
