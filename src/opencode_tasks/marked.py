"""Whole files of ours in folders of other people: known by a line that also says what all the rest was."""

import os
import re
import stat
from pathlib import Path
from typing import Literal

LARGEST_B = 1 << 20
_LINE = re.compile(rb"^(?:#|//) opencode-tasks v1 sha256:([0-9a-f]{64})$\n?", re.MULTILINE)
_LOOKED_AT_B = 4096
_C_LIKE = (".js", ".json", ".jsonc")

State = Literal["missing", "ours", "edited", "foreign"]
"""`ours`: as some version of us wrote it. `edited`: it was ours. `foreign`: another's, or no ordinary file."""


def marked(content_b: bytes, suffix: str) -> bytes:
    """With our line, as a comment: below a first line that has to stay the first, or at the top."""
    line_b = b"%s opencode-tasks v1 sha256:%s\n" % (b"//" if suffix in _C_LIKE else b"#", _digest(content_b))
    has_first = content_b.startswith((b"#!", b"---\n"))
    at = content_b.index(b"\n") + 1 if has_first else 0
    return content_b[:at] + line_b + content_b[at:]


def state(path: Path | str) -> State:
    try:
        content_b = read(path)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "foreign"
    return state_of(content_b)


def state_of(content_b: bytes) -> State:
    found = _LINE.search(content_b, 0, _LOOKED_AT_B)
    if found is None:
        return "foreign"
    return "ours" if _digest(without_line(content_b)) == found[1] else "edited"


def without_line(content_b: bytes) -> bytes:
    return _LINE.sub(b"", content_b, count=1)


def read(path: Path | str) -> bytes:
    """Raises `OSError` for what is no ordinary file of at most `LARGEST_B`. No link is followed at its end."""
    with open(path, "rb", opener=_not_through_a_link) as f:
        if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
            raise OSError("it is no ordinary file")
        content_b = f.read(LARGEST_B + 1)
    if len(content_b) > LARGEST_B:
        raise OSError(f"it has more than {LARGEST_B >> 20} MiB")
    return content_b


def _digest(content_b: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(content_b).hexdigest().encode()


def _not_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
