"""What we change in a `plan.md`, which a person or an agent may be editing at the same moment.

Nothing that somebody saved is lost: the new file changes places with the old one, and only then is it looked at
what the old one held. Containers see the store read-only; so whoever else writes here is no attacker.
"""

import errno
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks import plans
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files, plan
from opencode_tasks.store.locks import locked
from opencode_tasks.values import value

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

_TRIES = 5
_PATIENCE_S, _POLL_S = 0.3, 0.002


@value
class Commit:
    sha: str
    subject: str
    body: str


def check_by_commit(store: "Store", task_id: str, commit: Commit, *, match_words: bool, actor: str) -> None:
    """Check the steps that a commit names, or, with `match_words`, the one that its subject is certainly about.

    Raises `TaskError` for a plan that is left as it is, and for named steps that it does not have.
    """
    path = store.layout.plan(task_id)
    named = plans.marked(commit.subject, commit.body)
    if not named and not (match_words and _may_match(path, commit.subject)):
        return
    changed: list[int] = []

    def edit(text: str) -> str:
        found = None if named else plans.matching(text, commit.subject)
        made, changed[:] = plans.checked(text, named or ({found} if found else ()))
        return made

    text = change(store, task_id, edit)
    if changed:
        said = {"steps": changed, "by": "commit", "commit": commit.sha}
        store.record(task_id, ("plan.updated", said), actor=actor, has_happened=True)
    if named:
        _require_all(path, text, named)


def _may_match(path: Path, subject: str) -> bool:
    try:
        return plans.matching(plan.text_of(plan.read(path)), subject) is not None
    except FileNotFoundError:
        return False
    except OSError as e:
        raise _left(path, e) from e


def _require_all(path: Path, text: str, named: Collection[int]) -> None:
    known = {step.number for step in plans.steps(text)}
    missing = sorted(set(named) - known)
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise TaskError(f"The commit names step {shown}, and {path} has {len(known)} steps")


def finish(store: "Store", task_id: str, facts: plans.Facts) -> None:
    """Write down in the plan what was done. Raises `TaskError` for a plan that is left as it is."""
    if os.path.lexists(store.layout.plan(task_id)):
        change(store, task_id, lambda text: plans.finished(text, facts))


def change(store: "Store", task_id: str, edit: Callable[[str], str]) -> str:
    """Replace the text of the plan by what `edit` makes of it, which may be asked several times; the text then.

    Raises `TaskError`: it is no file that we would write, somebody is writing to it all the time, the disk is full.
    """
    path = store.layout.plan(task_id)
    with locked(store.layout.lock(task_id), hot=store.hot):  # which keeps us out, and no editor
        for _ in range(_TRIES):
            read_b = _whole(path, patience_s=_PATIENCE_S)
            text = edit(plan.text_of(read_b))
            new_b = plan.bytes_of(text)
            if new_b == read_b or _swapped(path, read_b, new_b):
                return text
    raise TaskError(f"{path} changes all the time, and was left as it is")


def _whole(path: Path, *, patience_s: float) -> bytes:
    """What the file holds while nobody is writing to it."""
    from opencode_tasks.store import documents

    until = time.monotonic() + patience_s
    while True:
        try:
            fd = plan.open_file(path)
        except OSError as e:
            raise _left(path, e) from e
        with os.fdopen(fd, "rb") as f, documents.not_being_written(f) as is_whole:
            if is_whole:
                return f.read(plan.LARGEST_BYTES + 1)
        if time.monotonic() >= until:
            raise TaskError(f"{path} is being written by another program, and was left as it is")
        time.sleep(_POLL_S)


def _left(path: Path, e: OSError) -> TaskError:
    return TaskError(f"{path} was left as it is: {'a link' if e.errno == errno.ELOOP else e.strerror}")


def _swapped(path: Path, read_b: bytes, new_b: bytes) -> bool:
    """Put `new_b` in the place of `read_b`; False, and nothing is changed, when that is not what lies there."""
    import ctypes  # noqa: F401 (`exchange` uses it: not to be waited for between our last look and the exchange)

    from opencode_tasks.store import documents

    new = path.with_name(f".{path.name}.{time.time_ns()}.kept")
    with files.refused_writes(path):
        try:
            _write(new, new_b, mode=path.stat().st_mode & 0o7777)
            if not _holds(path, read_b):
                new.unlink()
                return False
            if not documents.exchange(new, path):
                return _replaced(path, new, read_b)
        except OSError as e:
            with suppress(OSError):
                new.unlink()
            if isinstance(e, FileNotFoundError):
                return False
            raise
        if _holds(new, read_b):
            new.unlink()
            return True
        documents.exchange(new, path)  # somebody saved since we read: theirs has its place again
        if not _holds(new, new_b):
            documents.exchange(new, path)  # and once more since then: the newest counts
            raise TaskError(f"{path} was saved twice while we wrote; what was saved first is in {new}")
        new.unlink()
        return False


def _replaced(path: Path, new: Path, read_b: bytes) -> bool:
    """Where two files cannot change places: compared as late as can be.

    Taking the old one away first would lose nothing either way, but there would be a moment without a plan, and an
    editor that appends then begins a new one.
    """
    same = _holds(path, read_b)
    if same:
        new.replace(path)
    else:
        new.unlink()
    return same


def _holds(path: Path, content_b: bytes) -> bool:
    try:
        return _whole(path, patience_s=0) == content_b
    except TaskError:
        return False  # it is being written to


def _write(path: Path, content_b: bytes, *, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, mode)
        files.write_all(fd, content_b)
        os.fsync(fd)  # unlike a projection, a plan is made from nothing else
        # Where a file's time tells whether somebody is writing to it, it is not us.
        os.utime(fd, (time.time() - 1, time.time() - 1))
    finally:
        os.close(fd)
