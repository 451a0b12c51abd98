"""The container's own files, its home folder and `/tmp`, in checkpoints: kept and brought back with the workspace's.

They are taken before everything is held still, for what takes them runs inside.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from opencode_tasks.checkpoints import layer, snapshot
from opencode_tasks.checkpoints.layer import Layer
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.commands.here import Here
from opencode_tasks.containers import sizes
from opencode_tasks.errors import NoEngineError, TaskError
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.containers.session import Session

_AUTOMATIC_S = 20.0
_PATIENCE_S = 600.0
_FILES_ONLY = "to restore the workspace's files alone: --no-container"


def document(checkpoint: Checkpoint) -> dict[str, Any] | None:
    if checkpoint.layer is None:
        return {"size_bytes": None, "kept": False} if checkpoint.layer_gone else None
    return {"size_bytes": checkpoint.layer.size, "kept": True}


def asked(at: Here, task: Task) -> Layer:
    """Raises `TaskError` when there are none, or they cannot be kept."""
    found = _of_now(at, task)
    if found is None:
        raise TaskError(
            f"No container of {task.id} runs; what one has in its home folder and /tmp goes when it stops",
            hint="without --container the workspace's files are kept",
            code="not_running",
        )
    return found


def kept(at: Here, task: Task, session: "Session | None" = None) -> Layer | None:
    """As the settings want it without being asked: None unless the container runs, and there is little enough.

    `session`: into it, when the caller has one. Never raises `TaskError`: without them a checkpoint is one, too.
    """
    said = at.config.checkpoint.layer_automatic
    if said == "off" or (session is None and at.store.get(task.id).container.state != "running"):
        return None
    from opencode_tasks.containers.layer import TooLargeError

    if layer.is_exhausted(at.store, task.id):
        return None
    try:
        most_b = min(sizes.parse(said, what="the size checkpoint.layer_automatic"), _most_b(at))
        return _taken(at, task, session, most_b=most_b, within_s=_AUTOMATIC_S)
    except (TooLargeError, NoEngineError):
        return None
    except TaskError as e:
        _say(f"the checkpoint has nothing of the container's own files: {e.message}")
        return None


def _of_now(at: Here, task: Task) -> Layer | None:
    from opencode_tasks.containers.layer import WITHIN_S

    return _taken(at, task, None, most_b=_most_b(at), within_s=WITHIN_S, tells=True)


def _most_b(at: Here) -> int:
    return sizes.parse(at.config.checkpoint.layer, what="the size checkpoint.layer")


def _taken(
    at: Here, task: Task, session: "Session | None", *, most_b: int, within_s: float, tells: bool = False
) -> Layer | None:
    """None: no container runs. What has not changed since the last time is not read again."""
    from opencode_tasks.containers import layer as container

    with _inside(at, task, session) as inside:
        if inside is None:
            return None
        known, last = layer.looked(at.store, task.id)
        if last is None or last.size > most_b or not layer.renewed(at.store, last):
            known = ""
        image = at.store.get(task.id).container.image
        with layer.storing(at.store, task) as storing:
            found = container.keep(
                at.store, task.id, inside, storing.write, known=known, most_b=most_b, within_s=within_s
            )
            if found.is_same and (last is None or not known):
                raise container.LayerError("The container says that nothing has changed, and nothing was known of it")
            for note in found.notes if tells else ():
                _say(f"in the container, {note}")
            if found.is_same and last is not None:
                return Layer(last.size, last.digest, image)
            now = storing.kept(image, was=last)
    layer.note_looks(at.store, task.id, found.looks, now, added_b=storing.added_b)
    return now


def _inside(at: Here, task: Task, session: "Session | None") -> "AbstractContextManager[Session | None]":
    if session is not None:
        return nullcontext(session)
    from opencode_tasks.containers import opening

    return opening.as_it_is(at.store, task.id)


class Back:
    """What a restore does with the container's own files. `why`: they stay as they are; None: they go back, too.

    `own`: what is there now, for the checkpoint that undoes it.
    """

    def __init__(self, at: Here, task: Task, target: Checkpoint, why: str | None) -> None:
        self._at, self._task, self._target = at, task, target
        self._session: Session | None = None
        self.own: Layer | None = None
        self.why = why
        self.notes: list[str] = []

    def prepare(self, held: ExitStack) -> None:
        """Raises `TaskError` before anything has changed."""
        at, task, wanted = self._at, self._task, self._target.layer
        if wanted is None:
            return
        if task.status != "running":
            self.why = f"the task is {task.status}"
            return
        held.enter_context(_alone(at, task))
        try:
            self._require_sound(wanted)
            self.own = _of_now(at, task)
            self._session = held.enter_context(_started(at, task))
        except NoEngineError as e:
            self.why, self.own = e.message, None
            return
        except TaskError as e:
            raise TaskError(e.message, hint=f"{e.hint}; {_FILES_ONLY}" if e.hint else _FILES_ONLY, code=e.code) from e
        now = at.store.get(task.id).container.image
        if now != wanted.image:
            self.notes.append(f"its container was made of {wanted.image}, and this one is of {now}")
        layer.note_pending(at.store, task.id, self._target.id)

    def finish(self, undo: Checkpoint) -> None:
        """When the workspace's files are back. Raises `TaskError`."""
        if self._session is None or self._target.layer is None:
            return
        try:
            self.notes += _put_back(self._at, self._task, self._session, self._target.layer)
        except TaskError as e:
            raise TaskError(
                f"The workspace's files are those of {self._target.id}, the container's own are not: {e.message}",
                hint=f"again: opencode-tasks restore-checkpoint {self._target.id}; undo: {undo.id} instead",
                code=e.code,
            ) from e

    def document(self) -> dict[str, Any] | None:
        wanted = self._target.layer
        if wanted is None:
            return {"size_bytes": None, "restored": False, "why": _GONE} if self._target.layer_gone else None
        return {"size_bytes": wanted.size, "restored": self._session is not None, "why": self.why}

    def preview(self) -> dict[str, Any] | None:
        found = self.document()
        return None if found is None else found | {"restored": None}

    def lines(self) -> list[str]:
        wanted = self._target.layer
        if wanted is None:
            return [f"  the container's own files stay as they are: {_GONE}"] if self._target.layer_gone else []
        if self.why is not None:
            return [f"  the container's own files stay as they are: {self.why}"]
        size = sizes.told(wanted.size)
        return [f"  the container's home folder and /tmp, {size}", *(f"  in the container, {n}" for n in self.notes)]

    def _require_sound(self, wanted: Layer) -> None:
        if not layer.is_sound(self._at.store, wanted):
            raise TaskError(
                f"What checkpoint {self._target.id} has of the container's own files is damaged",
                hint="opencode-tasks checkpoint --verify",
                code="damaged",
            )


_GONE = f"the checkpoint's are no longer kept, but for those of {layer.KEPT}"


@contextmanager
def going_back(at: Here, task: Task, target: Checkpoint, *, why_not: str | None, dry: bool) -> Iterator[Back]:
    """Around restoring the workspace's files. Raises `TaskError`; what was to be done is forgotten then."""
    back = Back(at, task, target, why_not)
    with ExitStack() as held:
        if why_not is None and not dry:
            back.prepare(held)
        try:
            yield back
        except TaskError:
            layer.forget_pending(at.store, task.id)
            raise
        layer.forget_pending(at.store, task.id)


def settle(at: Here, task: Task, session: "Session | None" = None) -> None:
    """A restore that was killed before the container's own files were back is brought to its end, as soon as a
    container runs. Never raises `TaskError` for what the container does: that is told.
    """
    if layer.pending(at.store, task.id) is None:
        return
    from opencode_tasks.commands import checkpoint
    from opencode_tasks.containers.freeze import frozen

    with _alone(at, task):
        pending = layer.pending(at.store, task.id)
        if pending is None:
            return  # somebody else was at it, and has finished
        try:
            with frozen(at.store, task):
                checkpoint.settle(at, task)
        except TaskError:  # before the workspace's files, nothing else; whoever needs them says why
            return
        try:
            wanted = snapshot.named(at.store, task, pending.to).layer
            if wanted is None or not layer.is_due(at.store, task.id, pending):
                layer.forget_pending(at.store, task.id)
                return
            with _inside(at, task, session) as inside:
                if inside is None:
                    return
                _put_back(at, task, inside, wanted)
        except TaskError as e:
            layer.forget_pending(at.store, task.id)
            _say(f"the container's own files are not those of {pending.to}, whose restore was interrupted: {e.message}")
            return
        layer.forget_pending(at.store, task.id)
        _say(f"the container's own files are those of {pending.to} now, whose restore was interrupted")


def _put_back(at: Here, task: Task, session: "Session", wanted: Layer) -> list[str]:
    from opencode_tasks.containers import layer as container

    return list(container.put_back(at.store, task.id, session, layer.read(at.store, wanted)))


def _started(at: Here, task: Task) -> "AbstractContextManager[Session]":
    from opencode_tasks.containers import opening

    return opening.session(at.store, at.config, task, actor=at.actor, use_tty=False)


def _alone(at: Here, task: Task) -> AbstractContextManager[None]:
    """One at a time brings them back; a command waits for that."""
    return locked(at.store.layout.lock(f"{task.id}.layer"), timeout_s=_PATIENCE_S, hot=True)


def _say(line: str) -> None:
    sys.stderr.write(f"opencode-tasks: {line}\n")
