"""What is done behind a person's back: own what was borrowed, thin out, pack, throw away, look whether all is there."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opencode_tasks.checkpoints import journal, known, layer, retention, seeding, snapshot
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.errors import TaskError
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import detach
from opencode_tasks.store import Store
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import LockTimeout, locked
from opencode_tasks.values import value

ACTOR = "upkeep"
Chooser = Callable[[Sequence[snapshot.Checkpoint], str | None], list[str]]
"""Of a task's checkpoints, oldest first, the ids that go; never the one that its files come from."""
_LOOSE = 2000 // 256
_DAY_S, _WEEK_S = 86_400.0, 7 * 86_400.0
_GRACE = "2.hours.ago"  # what a checkpoint that is being taken needs is younger
_GRACE_S = 7200.0
_TRIES = 3


@value
class Done:
    """`dropped`: checkpoints by task; `size_bytes`: of all that is kept now. `problems`: what could not be done."""

    dropped: dict[str, list[str]]
    size_bytes: int
    problems: tuple[str, ...] = ()


def later(store: Store, top: Path) -> None:
    """In the background, when there is something to do."""
    if is_due(store.layout):
        argv = (sys.executable, "-I", "-m", "opencode_tasks", "checkpoint", "--gc")
        with suppress(OSError):
            detach(argv, cwd=top, log=store.layout.background_log)


def is_due(layout: Layout) -> bool:
    """Costs three looks at folders."""
    folder = layout.checkpoints_git
    if seeding.borrowed(folder).exists() or _loose(folder) > _LOOSE:
        return True
    if layer.is_sweep_due(folder):
        return True
    age_s = _age_s(folder / "upkept")
    return age_s is None or age_s > _DAY_S


def _loose(folder: Path) -> int:
    try:
        return len(os.listdir(folder / "objects/17"))  # noqa: PTH208 (a number is all that is wanted)
    except OSError:
        return 0


def _age_s(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return None


def run(store: Store, checkout: Checkout, *, budget_b: int) -> Done:
    """Raises `LockTimeout` while another process is at it. Checkpoints are taken and restored meanwhile."""
    shadow = Shadow(store, "upkeep", checkout)
    with locked(store.layout.lock("checkpoints-upkeep"), hot=True, timeout_s=0.2):
        if not (shadow.dir / "HEAD").exists():
            return Done({}, 0)
        problems: list[str] = []
        dropped = _thin(store, shadow, problems, retention_of=_superfluous)
        with suppress(TaskError):
            _own(store, shadow)
        if _loose(shadow.dir) > _LOOSE:
            shadow.git("repack", "-d", "--geometric=2", "--quiet")
        age_s = _age_s(shadow.dir / "packed")
        if (dropped and (age_s is None or age_s > _DAY_S)) or (age_s is not None and age_s > _WEEK_S):
            _pack(store, shadow)
        elif layer.take_note(shadow.dir):
            sweep_big(store, shadow, older_than_s=_GRACE_S)
        if age_s is None:
            (shadow.dir / "packed").touch()  # the first week begins
        while (size_b := _size_b(shadow.dir)) > budget_b:
            more = _thin(store, shadow, problems, retention_of=retention.cheapest_loss)
            if not more:
                problems.append(f"checkpoints take {size_b} bytes, and what is left of them is wanted")
                break
            for task_id, ids in more.items():
                dropped.setdefault(task_id, []).extend(ids)
            _pack(store, shadow)
        (shadow.dir / "upkept").touch()
        return Done(dropped, _size_b(shadow.dir), tuple(problems))


def _superfluous(checkpoints: Sequence[snapshot.Checkpoint], of: str | None) -> list[str]:
    return retention.superfluous(checkpoints, datetime.now(UTC), of)


def _thin(store: Store, shadow: Shadow, problems: list[str], *, retention_of: Chooser) -> dict[str, list[str]]:
    dropped: dict[str, list[str]] = {}
    for folder in sorted(shadow.dir.glob("refs/ckpt/*")):
        task_id = folder.name
        try:
            with store.checkpoint_lock(task_id, timeout_s=1):
                if journal.path(store, task_id).exists():
                    continue  # a restore that was killed needs both of its checkpoints to be finished
                found = snapshot.listed(store, task_id)
                _remove(store, shadow, task_id, _half_dropped(store, folder, task_id, {one.id for one in found}))
                of = known.read(Shadow(store, task_id, shadow.source)).of
                ids = retention_of(found, of)
                if ids:
                    drop(store, shadow, task_id, ids)
                    dropped[task_id] = ids
        except LockTimeout:
            continue  # whoever is at it now: another time
        except TaskError as e:
            problems.append(e.message)
    return dropped


def drop(store: Store, shadow: Shadow, task_id: str, ids: Sequence[str]) -> None:
    """First in the log: a checkpoint that is named there can be restored. Under the task's checkpoint lock."""
    store.record(task_id, ("checkpoint.dropped", {"ids": list(ids)}), actor=ACTOR)
    _remove(store, shadow, task_id, ids)


def _half_dropped(store: Store, refs: Path, task_id: str, listed: Set[str]) -> list[str]:
    """What the log says is gone, and who said so was killed before it was."""
    there = {f"c{path.name}" for path in refs.glob("*")}
    there |= {path.stem for path in store.layout.checkpoint(task_id, "c0").parent.glob("c*.json")}
    if there <= listed:
        return []
    said = (event.data["ids"] for event in store.history(task_id) if event.type == "checkpoint.dropped")
    return [one for ids in said for one in ids if one in there]


def _remove(store: Store, shadow: Shadow, task_id: str, ids: Sequence[str]) -> None:
    if not ids:
        return
    lines = "".join(f"delete refs/ckpt/{task_id}/{one[1:]}\n" for one in ids)
    shadow.git("update-ref", "--stdin", stdin_b=lines.encode())
    for one in ids:
        store.layout.checkpoint(task_id, one).unlink(missing_ok=True)


def _own(store: Store, shadow: Shadow) -> None:
    """Copy the objects that are borrowed from the user's repository, whose `git gc` knows nothing of us."""
    alternates = seeding.borrowed(shadow.dir)
    for _ in range(_TRIES):
        if not alternates.exists():
            return
        shadow.git("repack", "-a", "-d", "--keep-unreachable", "--quiet")
        with store.all_checkpoints_lock(timeout_s=10):
            aside = seeding.dropping(shadow.dir)
            alternates.rename(aside)
            # Without it: what a checkpoint made meanwhile may borrow again.
            if shadow.git("rev-list", "--objects", "--all", "--quiet", check=False).code == 0:
                aside.unlink()
                return
            aside.rename(alternates)


def _pack(store: Store, shadow: Shadow) -> None:
    shadow.git("repack", "-A", "-d", f"--unpack-unreachable={_GRACE}", "--quiet")
    shadow.git("prune", f"--expire={_GRACE}")
    (shadow.dir / "packed").touch()
    if (shadow.dir / "big").is_dir():
        sweep_big(store, shadow, older_than_s=_GRACE_S)


def sweep_big(store: Store, shadow: Shadow, *, older_than_s: float) -> int:
    """Throw away the big files that no checkpoint of any task has; the bytes that they took."""
    from opencode_tasks.checkpoints import big

    with store.all_checkpoints_lock():
        keep: dict[str, Mapping[str, Any]] = {}
        for folder in shadow.dir.glob("refs/ckpt/*"):
            found = snapshot.listed(store, folder.name)
            keep |= layer.as_big(found)
            for one in found:
                keep |= {kept["digest"]: kept for kept in snapshot.extras_of(shadow, one).big.values()}
            for root in known.read(Shadow(store, folder.name, shadow.source)).roots.values():
                keep |= {kept["digest"]: kept for _, kept in root["big"].values()}
        return big.sweep(shadow, keep.values(), older_than_s=older_than_s)


def _size_b(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{at}/{name}").st_blocks * 512
    return total
