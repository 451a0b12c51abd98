"""What a task's container has of its own: its home folder and `/tmp`, in memory, as one archive out of it and back in.

Everything else in it is read-only, the workspace's, or a volume. The archive is made and unpacked inside, as the
container's user, by its own python3 or tar: here it is bytes of a stranger, bounded and never opened.
"""

import re
from collections.abc import Iterable

from opencode_tasks.containers import handed, holds, quiet, sizes
from opencode_tasks.containers.session import Session
from opencode_tasks.containers.spec import HOME
from opencode_tasks.errors import TaskError
from opencode_tasks.printable import printable
from opencode_tasks.store import Store
from opencode_tasks.values import value

ROOTS = (HOME, "/tmp")  # noqa: S108 (the container's)
WITHIN_S = 120.0
_HEAD_B = 128
_HEAD = re.compile(rb"(same)|large (\d{1,18})|tar ([0-9a-f]{64}|-)")
_NEITHER = 127
_FATAL = 128
# $1: the program; the rest are its words. `tar` ends with 1 or 2 when files changed, went or could not be read.
_KEEP = f"""\
if command -v python3 >/dev/null; then exec python3 -I -S -c "$@"; fi
for one in tar find sort; do command -v $one >/dev/null || exit {_NEITHER}; done
echo 'tar -'
cd /
odd='*
*'
find {" ".join(root[1:] for root in ROOTS)} -xdev -mindepth 1 \\( -type f -o -type d -o -type l \\) ! -name "$odd" |
    LC_ALL=C sort | tar -cf - --no-recursion -T -
code=$?
[ $code -gt 2 ] || code=0
exit $code
"""
_BACK = f"""\
if command -v python3 >/dev/null; then exec python3 -I -S -c "$@"; fi
for one in tar find rm rmdir chmod; do command -v $one >/dev/null || exit {_NEITHER}; done
cd /
find_all() {{ find {" ".join(root[1:] for root in ROOTS)} -xdev -mindepth 1 "$@"; }}
find_all -type d -exec chmod u+rwx {{}} + 2>/dev/null
find_all \\( -type f -o -type l \\) -exec rm -f {{}} +
find_all -depth -type d -exec rmdir {{}} + 2>/dev/null
exec tar -xpf -
"""


class LayerError(TaskError):
    """The container did not play along."""

    code = "layer_failed"


class TooLargeError(LayerError):
    """There is more than may be kept."""

    code = "too_large"


@value
class Looked:
    """`is_same`: nothing has changed since it looked like that; else the archive was written. `looks`: what a later
    look is compared with, if the container could say. `notes`: what is not in it, in the container's words.
    """

    is_same: bool
    looks: str
    notes: tuple[str, ...]


def keep(
    store: Store, task_id: str, session: Session, write: quiet.Sink, *, known: str, most_b: int, within_s: float
) -> Looked:
    """`write` gets the archive, unless it all looks as it did when it was `known`. Nobody holds the container still
    meanwhile. Raises `LayerError`.
    """
    receiving = _Receiving(write, most_b)
    argv = ["/bin/sh", "-c", _KEEP, "sh", _program(), "keep", known, str(most_b), *ROOTS]
    code, said_b = _run(store, task_id, session, argv, within_s=within_s, sink=receiving.take)
    if code == _NEITHER:
        raise LayerError(
            "The container's own files cannot be kept: its image has neither python3 nor tar",
            hint="use an image that has one (container.image); without --container the workspace's files are kept",
        )
    if code != 0 or not receiving.is_whole:
        raise LayerError(
            f"The container did not hand over its own files: {_words(said_b) or f'exit code {code}'}",
            hint="run the command again; without --container the workspace's files are kept",
        )
    notes = tuple(_words(line) for line in said_b.splitlines() if line.strip())
    return Looked(receiving.is_same, receiving.looks, notes)


def put_back(store: Store, task_id: str, session: Session, archive: Iterable[bytes]) -> tuple[str, ...]:
    """Home and `/tmp` are emptied, and filled from the archive. What was left out. Raises `LayerError`."""
    argv = ["/bin/sh", "-c", _BACK, "sh", _program(), "back", *ROOTS]
    code, said_b = _run(store, task_id, session, argv, feed=archive)
    if code != 0:
        why = "its image has neither python3 nor tar" if code == _NEITHER else _words(said_b) or f"exit code {code}"
        raise LayerError(f"The container did not take its own files back: {why}")
    return tuple(_words(line) for line in said_b.splitlines() if line.strip())


def _program() -> str:
    return handed.text("opencode_tasks.containers.inside.layer")


def _run(
    store: Store,
    task_id: str,
    session: Session,
    argv: list[str],
    *,
    within_s: float = WITHIN_S,
    sink: quiet.Sink | None = None,
    feed: Iterable[bytes] | None = None,
) -> tuple[int, bytes]:
    try:
        with holds.still(store, task_id):  # whoever holds it still would have us wait for what cannot go on
            return quiet.run(store, task_id, session, argv, within_s=within_s, sink=sink, feed=feed)
    except (OSError, EOFError, ValueError, TypeError) as e:
        raise LayerError(
            f"The container did not answer when asked for its own files: {e or type(e).__name__}",
            hint="opencode-tasks task-status; then run the command again",
        ) from e


class _Receiving:
    """One line, then, if that says so, an archive of at most `most_b`. Raises `LayerError`."""

    def __init__(self, write: quiet.Sink, most_b: int) -> None:
        self._write, self._most_b = write, most_b
        self._head_b = b""
        self._begin_b = b""
        self._size_b = 0
        self._is_announced = False
        self.is_same, self.looks = False, ""

    @property
    def is_whole(self) -> bool:
        """Nobody looks into it; but what begins like no archive is none."""
        magic = self._begin_b[257:262]
        return self.is_same or (self._size_b >= 1024 and self._size_b % 512 == 0 and magic in (b"ustar", bytes(5)))

    def take(self, content_b: bytes) -> None:
        if not self._is_announced:
            self._head_b += content_b
            line_b, newline, content_b = self._head_b.partition(b"\n")
            if not newline and len(line_b) <= _HEAD_B:
                return
            self._announced(line_b)
        if self.is_same and content_b:
            raise LayerError("The container says that nothing has changed, and then more")
        self._size_b += len(content_b)
        if self._size_b > self._most_b:
            raise too_large(None, self._most_b)
        if len(self._begin_b) < 512:
            self._begin_b += content_b[:512]
        self._write(content_b)

    def _announced(self, line_b: bytes) -> None:
        found = _HEAD.fullmatch(line_b)
        if found is None:
            raise LayerError(f"The container did not hand over its own files: {_words(line_b)}")
        same, size, looks = found.groups()
        if size:
            raise too_large(int(size), self._most_b)
        self.is_same = bool(same)
        self.looks = looks.decode() if looks and looks != b"-" else ""
        self._is_announced = True


def too_large(size: int | None, most_b: int) -> TooLargeError:
    much = "more" if size is None else sizes.told(size)
    return TooLargeError(
        f"The container's home folder and /tmp hold {much}: at most {sizes.told(most_b)} of them are kept",
        hint="remove there what is not needed, or raise checkpoint.layer in .opencode/tasks.toml",
    )


def _words(said_b: bytes) -> str:
    return printable(said_b.decode(errors="replace").strip())[:300]
