"""Several tasks changed together: all of it or none, whatever is killed when.

What is to be appended is written down, whole and durably, in one file: that is the moment
of commit. Then it is done, and the file goes. Whoever finds the file of a process that was
killed does what it says; doing it twice is doing it once.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, dumps
from opencode_tasks.store import files, log
from opencode_tasks.store.layout import UNFINISHED, Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.values import value


@value
class Append:
    """`lines` go into `file` of the task's log at `offset`, which was its end."""

    task_id: str
    file: str
    offset: int
    lines: str


@value
class Transaction:
    """`created`: tasks that were built aside and are renamed into their places."""

    created: tuple[str, ...] = ()
    appended: tuple[Append, ...] = ()

    @property
    def task_ids(self) -> set[str]:
        return {*self.created, *(a.task_id for a in self.appended)}


def commit(layout: Layout, transaction: Transaction) -> None:
    """Under the locks of all its tasks that are there already.

    Raises `TaskError`. One that is raised after the moment of commit says so: the change will be finished.
    """
    path = layout.transactions / f"{time.time_ns()}-{os.getpid()}.json"
    content_b = _render(transaction)
    with files.refused_writes(layout.transactions):
        # Another that has just finished takes its empty folder away.
        for _ in range(100):
            layout.transactions.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                files.replace(path, content_b, durable=True)
                break
        else:
            raise TaskError(f"{layout.transactions} is taken away as soon as it is made", hint="run the command again")
        files.sync_dir(layout.root)
    try:
        _carry_out(layout, transaction)
        _done(path)
    except TaskError as e:
        raise TaskError(
            f"{e.message}. The change of {', '.join(sorted(transaction.task_ids))} is decided all the same",
            hint="do not repeat it: the next command that needs one of these tasks finishes it",
            code=e.code,
        ) from e


def _done(path: Path) -> None:
    with files.refused_writes(path):
        path.unlink(missing_ok=True)  # somebody may have helped: new tasks have no lock yet
    with suppress(OSError):  # another's is in it
        path.parent.rmdir()


def pending(layout: Layout, *, only: str | None = None) -> Iterator[tuple[Path, Transaction]]:
    """What was committed and is not carried out, or is being so right now. `only`: what concerns this task.

    Raises `CorruptError`.
    """
    for path in _paths(layout, ".json"):
        with suppress(FileNotFoundError):
            content_b = path.read_bytes()
            if only is None or only.encode() in content_b:
                yield path, _parse(content_b, path)


def _paths(layout: Layout, end: str) -> list[Path]:
    try:
        names = os.listdir(layout.transactions)
    except FileNotFoundError:
        return []
    return [layout.transactions / name for name in sorted(names) if name.endswith(end)]


def concerns(layout: Layout, *task_ids: str) -> bool:
    return any(i in t.task_ids for i in task_ids for _, t in pending(layout, only=i))


def under_way(layout: Layout, task_id: str) -> bool:
    """Whether what the feed announced of the task may still come."""
    if (layout.store / f"{UNFINISHED}{task_id}").exists():
        return True
    try:
        if concerns(layout, task_id):
            return True
        with locked(layout.lock(task_id), timeout_s=0, hot=True):
            return False
    except CorruptError:
        return False  # a transaction that nobody can finish
    except TaskError:
        return True


def recover(layout: Layout, *, only: str | None = None, hot: bool) -> None:
    """Carry out what others were killed in (`only`: if this task is part of it). Without a lock of any task.

    Raises `CorruptError` for a damaged one, unless it is another task's.
    """
    for path in _paths(layout, ".json"):
        with suppress(FileNotFoundError):
            content_b = path.read_bytes()
            if only is not None and only.encode() not in content_b:
                continue
            try:
                transaction = _parse(content_b, path)
            except CorruptError:
                if only is None:
                    continue
                raise
            with _locked_together(layout, transaction.task_ids, hot=hot):
                if path.exists():
                    _carry_out(layout, transaction)
                    _done(path)
    _sweep(layout)


def _sweep(layout: Layout) -> None:
    """What a process left that was killed before the moment of commit: else the folder would stay for ever."""
    for path in _paths(layout, ".tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and not _is_running(int(pid)):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        layout.transactions.rmdir()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def all_locked(layout: Layout, task_ids: Iterable[str], *, hot: bool) -> Iterator[None]:
    """Every lock, in the one order that everybody keeps, and nothing left to carry out for any of them."""
    wanted = sorted(task_ids)
    while True:
        with _locked_together(layout, wanted, hot=hot):
            # Else: committed, and its process killed, since we looked.
            if not concerns(layout, *wanted):
                yield
                return
        for task_id in wanted:
            recover(layout, only=task_id, hot=hot)


@contextmanager
def _locked_together(layout: Layout, task_ids: Iterable[str], *, hot: bool) -> Iterator[None]:
    with ExitStack() as held:
        for task_id in sorted(task_ids):
            held.enter_context(locked(layout.lock(task_id), hot=hot))
        yield


def _render(transaction: Transaction) -> bytes:
    body_b = dumps({**vars(transaction), "appended": [vars(a) for a in transaction.appended]}).encode()
    return body_b[:-1] + f',"sha256":"{hashlib.sha256(body_b).hexdigest()}"}}\n'.encode()


def _parse(content_b: bytes, path: Path) -> Transaction:
    at = content_b.rfind(b',"sha256":"')
    try:
        fields = json.loads(content_b)
        if at >= 0 and fields["sha256"] == hashlib.sha256(content_b[:at] + b"}").hexdigest():
            return Transaction(tuple(fields["created"]), tuple(Append(**a) for a in fields["appended"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    hint = "keep a copy of it, and move it away: what it changed was either done or is lost"
    raise CorruptError(f"{path} is not a transaction, or not as it was written", hint=hint)


def _carry_out(layout: Layout, transaction: Transaction) -> None:
    for task_id in transaction.created:
        building = layout.store / f"{UNFINISHED}{task_id}"
        with files.refused_writes(building), suppress(FileNotFoundError):  # renamed already
            building.rename(layout.task(task_id))
    if transaction.created:
        files.sync_dir(layout.store)
    for append in transaction.appended:
        _append(layout.log(append.task_id) / append.file, append)


def _append(path: Path, append: Append) -> None:
    lines_b = append.lines.encode()
    there_b = b""
    with suppress(FileNotFoundError), path.open("rb") as f:
        f.seek(append.offset)
        there_b = f.read()
    if there_b == lines_b:
        return
    if not lines_b.startswith(there_b):
        raise log.damaged(path, None, "A transaction cannot be finished: something else was written there")
    if there_b:
        log.cut(path, append.offset)
    log.append(path, append.offset, lines_b)
