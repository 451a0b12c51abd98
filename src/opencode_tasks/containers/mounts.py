"""Whether what a running container was given is still there, as the kernel tells it. Needs no engine.

A folder that is deleted and made again, by a cleaner of /tmp or by hand, is another one: the container keeps
the deleted one, and shares nothing with us any more.
"""

from contextlib import suppress
from pathlib import Path


def is_lost(pid: int, container_id: str, inside: str) -> bool:
    """Whether what is mounted at `inside` was deleted. False where nobody can tell: an engine on another machine."""
    with suppress(OSError):
        process = Path("/proc", str(pid))
        if pid <= 0 or container_id not in (process / "cgroup").read_text():
            return False
        # 119 101 254:0 /tmp/folder//deleted /run/folder rw,relatime - ext4 /dev/vda rw
        for line in (process / "mountinfo").read_bytes().splitlines():
            words = line.split(b" ")
            if len(words) > 4 and _plain(words[4]) == inside.encode(errors="surrogateescape"):
                return words[3].endswith(b"//deleted")
    return False


def _plain(word_b: bytes) -> bytes:
    for code, byte_b in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        word_b = word_b.replace(code, byte_b)
    return word_b
