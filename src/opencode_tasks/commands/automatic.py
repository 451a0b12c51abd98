"""Checkpoints that nobody has to think of: one before every command that may change something."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.errors import TaskError
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.checkpoints.snapshot import Checkpoint
    from opencode_tasks.containers.session import Session

_DEBOUNCE_S = 2.0
# Looking at the container's own files takes a command inside.
_DEBOUNCE_INSIDE_S, _INSIDE = 60.0, "looked-inside"
_LEAST_FREE_B = 256 << 20
_TOLD = 5
_OWN = ("outside the workspace: ~/", "outside the workspace: /home/agent/")


def before(at: Here, task: Task, argv: Sequence[str], cwd: str, session: "Session") -> None:
    """As `checkpoint.automatic` wants it; `session`: the command's. Raises `TaskError` when a command that is known to
    destroy would run without one; of others it is only said.
    """
    _settle(at, task)
    wanted = at.config.checkpoint.automatic
    if wanted == "off":
        return
    from opencode_tasks.policy import risk

    found = risk.assess(argv, workspace=Path(task.workspace.path), cwd=Path(cwd))
    if not found.mutates or (wanted == "risky" and not found.labels):
        return
    if not found.labels and _is_recent(at, task):
        return
    try:
        has_own = bool(found.labels) or not _is_recent(at, task, _INSIDE, within_s=_DEBOUNCE_INSIDE_S)
        made = take(at, task, session if has_own else None, risk=found.labels)
    except TaskError as e:
        if not found.labels:
            sys.stderr.write(f"opencode-tasks: no checkpoint could be taken before it: {e.message}\n")
            return
        why = f"no checkpoint could be taken before it: {e.message}"
        all_the_same = "to run it all the same: OPENCODE_TASKS_CHECKPOINT_AUTOMATIC=off"
        raise TaskError(
            f"The command was not started ({', '.join(found.labels)}): {why}",
            hint=f"{e.hint}; {all_the_same}" if e.hint else all_the_same,
            code=e.code,
        ) from e
    if found.labels:
        has_own = made is not None and made.layer is not None
        _tell_beyond([reason for reason in found.beyond if not (has_own and reason.startswith(_OWN))])


def before_edit(at: Here, task: Task) -> None:
    """Before a tool of the host writes to the workspace; it waits for no command inside. Raises `TaskError`."""
    _settle(at, task)
    if at.config.checkpoint.automatic == "commands" and not _is_recent(at, task):
        take(at, task)


def _settle(at: Here, task: Task) -> None:
    """No command sees a half of what a restore was to bring back; but one may have to make room for the rest."""
    from opencode_tasks.checkpoints import journal

    if not journal.path(at.store, task.id).exists() or workspace_of(at, task) is None:
        return
    from opencode_tasks.commands import checkpoint
    from opencode_tasks.containers.freeze import frozen

    try:
        with frozen(at.store, task):
            checkpoint.settle(at, task)
    except TaskError as e:
        sys.stderr.write(f"opencode-tasks: a restore was interrupted, and cannot be finished: {e.message}\n")


def take(at: Here, task: Task, session: "Session | None" = None, *, risk: Sequence[str] = ()) -> "Checkpoint | None":
    """Of the files as they are now, if they are those of the task; none when nothing has changed.

    `session`: by which to look at the container's own files, too.
    """
    from opencode_tasks.checkpoints import snapshot, upkeep
    from opencode_tasks.commands import checkpoint, layers
    from opencode_tasks.containers.freeze import frozen

    if workspace_of(at, task) is None:
        return None
    _require_room(at)
    own = None if session is None else layers.kept(at, task, session)
    with frozen(at.store, task):
        checkpoint.settle(at, task)
        ignored = at.config.checkpoint.ignored
        made, _ = snapshot.take(
            at.store, task, kind="auto", label="", actor=at.actor, risk=risk, ignored=ignored, own=own
        )
    _looked(at, task).touch()
    if session is not None:
        _looked(at, task, _INSIDE).touch()
    if at.config.checkpoint.background:
        upkeep.later(at.store, at.checkout.top)
    return made


def _looked(at: Here, task: Task, name: str = "looked") -> Path:
    return at.store.layout.checkpoints_git / "ix" / task.id / name


def _is_recent(at: Here, task: Task, name: str = "looked", *, within_s: float = _DEBOUNCE_S) -> bool:
    with suppress(OSError):
        return 0 <= time.time() - _looked(at, task, name).stat().st_mtime < within_s
    return False


def _require_room(at: Here) -> None:
    """What nobody asked for does not take the last of the disk."""
    import shutil

    free_b = shutil.disk_usage(at.store.layout.root).free
    if free_b < _LEAST_FREE_B:
        raise TaskError(
            f"Only {free_b >> 20} MiB are free in {at.store.layout.root}",
            hint="free some space, or: opencode-tasks checkpoint --gc",
            code="disk_full",
        )


def _tell_beyond(beyond: Sequence[str]) -> None:
    if not beyond:
        return
    more = f" (and {len(beyond) - _TOLD} more)" if len(beyond) > _TOLD else ""
    sys.stderr.write(f"opencode-tasks: no checkpoint undoes: {'; '.join(beyond[:_TOLD])}{more}\n")
