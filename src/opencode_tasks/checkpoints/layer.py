"""The container's own files in checkpoints: one archive each, kept in pieces like a big file, and never opened here.

A few are kept of a task, and several checkpoints may have the same one.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencode_tasks.events import New, dumps
from opencode_tasks.store import Store, files
from opencode_tasks.values import value

if TYPE_CHECKING:
    from opencode_tasks.checkpoints.chunks import Big, Chunks
    from opencode_tasks.checkpoints.snapshot import Checkpoint
    from opencode_tasks.task import Task

KEPT = 3
WINDOW_S = 7200.0
"""So long what was dropped is not thrown away yet."""
WINDOW_B = 256 << 20
"""No more new content than this is kept unasked in that time."""


@value
class Layer:
    """`size` of the archive and its `digest` are those of `chunks.Big`; `image`: what the container was made of."""

    size: int
    digest: str
    image: str | None


class Storing:
    """An archive on its way into the pieces. It has no name meanwhile: a killed process leaves nothing of it."""

    def __init__(self, store: Store, fd: int) -> None:
        self._store, self._fd = store, fd
        self.added_b = 0
        """Of what is `kept`, how much was not in the one before."""

    def write(self, content_b: bytes) -> None:
        """Raises `TaskError` when the disk is full."""
        with files.refused_writes(self._store.layout.checkpoints_git):
            files.write_all(self._fd, content_b)

    def kept(self, image: str | None, *, was: Layer | None) -> Layer:
        """Durable on return. Until a checkpoint has it, it stays for as long as a sweep spares what is young."""
        chunks, before = _chunks(self._store), None if was is None else _big(was)
        big = chunks.put_open(self._fd, was=before)
        self.added_b = chunks.added_b(big, before)
        return Layer(big.size, big.digest, image)


@contextmanager
def storing(store: Store, task: "Task") -> Iterator[Storing]:
    import tempfile

    from opencode_tasks.checkpoints import snapshot

    place = store.layout.checkpoints_git / "ix" / task.id
    if not place.is_dir():
        with store.checkpoint_lock(task.id):
            snapshot.open_shadow(store, task)
    with files.refused_writes(place), tempfile.TemporaryFile(dir=place) as temp:
        yield Storing(store, temp.fileno())


def read(store: Store, layer: Layer) -> Iterator[bytes]:
    """Raises `UnsoundError`."""
    return _chunks(store).read(_big(layer))


def renewed(store: Store, layer: Layer) -> bool:
    """Whether it is kept; if so, it stays until a checkpoint has it."""
    return _chunks(store).renew(_big(layer))


def is_sound(store: Store, layer: Layer) -> bool:
    return not _chunks(store).verify([_big(layer)])


def dropping(store: Store, checkpoints: "Sequence[Checkpoint]", *, spared: Layer | None) -> list[New]:
    """The event that says whose layers go; `checkpoints`: all of a task, oldest first."""
    ids = superfluous(checkpoints, spared=spared)
    if ids:
        note_dropped(store)
    return [("checkpoint.dropped", {"ids": [], "layers": ids})] if ids else []


def note_dropped(store: Store) -> None:
    """There is something to be swept."""
    with suppress(FileExistsError):
        (store.layout.checkpoints_git / _DROPPED).touch(exist_ok=False)


def is_sweep_due(folder: Path) -> bool:
    """Whether something was dropped so long ago that it may be thrown away."""
    try:
        return time.time() - (folder / _DROPPED).stat().st_mtime > WINDOW_S
    except OSError:
        return False


def take_note(folder: Path) -> bool:
    """Whether something was dropped; it is noted no more."""
    with suppress(FileNotFoundError):
        (folder / _DROPPED).unlink()
        return True
    return False


_DROPPED = "layers-dropped"


def superfluous(checkpoints: "Sequence[Checkpoint]", *, spared: Layer | None = None) -> list[str]:
    """The ids of those whose layer goes. Kept are the newest layer and the one that is `spared`; then those of pinned
    checkpoints and of such as undo a restore, then the others, newer ones first.
    """
    having = [one for one in reversed(checkpoints) if one.layer is not None]
    wanted = [one for one in having if one.is_pinned or one.kind == "pre-restore"]
    layers = [having[0].layer, spared, *(one.layer for one in (*wanted, *having))] if having else []
    kept = list(dict.fromkeys(one.digest for one in layers if one is not None))[:KEPT]
    return [one.id for one in reversed(having) if one.layer is not None and one.layer.digest not in kept]


def as_big(checkpoints: "Sequence[Checkpoint]") -> dict[str, dict[str, Any]]:
    """Their layers, as `chunks.Big`, by digest."""
    return {one.layer.digest: dict(vars(_big(one.layer))) for one in checkpoints if one.layer is not None}


def looked(store: Store, task_id: str) -> tuple[str, Layer | None]:
    """What the container looked like when a layer was last taken of it, and which that was."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(_looks(store, task_id).read_bytes())
        return str(said["looks"]), Layer(**said["layer"])
    return "", None


def note_looks(store: Store, task_id: str, looks: str, layer: Layer, *, added_b: int) -> None:
    since, sum_b = _window(store, task_id)
    said = {"looks": looks, "layer": vars(layer), "since": since, "added": sum_b + added_b}
    files.replace(_looks(store, task_id), dumps(said).encode())


def is_exhausted(store: Store, task_id: str) -> bool:
    """Whether so much of it is new in so short a time that no more is kept without being asked for."""
    return _window(store, task_id)[1] >= WINDOW_B


def _window(store: Store, task_id: str) -> tuple[float, int]:
    now = time.time()
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(_looks(store, task_id).read_bytes())
        if 0 <= now - said["since"] < WINDOW_S:
            return float(said["since"]), int(said["added"])
    return now, 0


@value
class Pending:
    """`to`: the checkpoint whose layer is to be put back. `restores`: how many there were before this one."""

    to: str
    restores: int


def pending(store: Store, task_id: str) -> Pending | None:
    with suppress(OSError, ValueError, TypeError):
        return Pending(**json.loads(store.layout.layer_pending(task_id).read_bytes()))
    return None


def note_pending(store: Store, task_id: str, to: str) -> None:
    """Before the workspace's files are restored."""
    now = Pending(to, len(_restores(store, task_id)))
    files.replace(store.layout.layer_pending(task_id), dumps(vars(now)).encode(), durable=True)


def is_due(store: Store, task_id: str, now: Pending) -> bool:
    """Whether the files have been restored: before that, nothing else may be."""
    restores = _restores(store, task_id)
    return len(restores) > now.restores and restores[-1] == now.to


def forget_pending(store: Store, task_id: str) -> None:
    store.layout.layer_pending(task_id).unlink(missing_ok=True)


def _restores(store: Store, task_id: str) -> list[str]:
    return [str(event.data["to"]) for event in store.history(task_id) if event.type == "checkpoint.restored"]


def _looks(store: Store, task_id: str) -> Path:
    return store.layout.checkpoints_git / "ix" / task_id / "layer.json"


def _chunks(store: Store) -> "Chunks":
    from opencode_tasks.checkpoints.chunks import Chunks

    return Chunks(store.layout.checkpoints_git / "big")


def _big(layer: Layer) -> "Big":
    from opencode_tasks.checkpoints.chunks import Big

    return Big(layer.size, layer.digest, 0o600)
