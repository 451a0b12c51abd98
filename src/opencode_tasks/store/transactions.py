"""Several tasks changed together: all of it or none, whatever is killed when.

What is to be appended is written down, whole and durably, in one file: that is the moment
of commit. Then it is done, and the file goes. Whoever finds the file of a process that was
killed does what it says; doing it twice is doing it once.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from opencode_tasks.events import CorruptError
from opencode_tasks.store import files, log
from opencode_tasks.store.layout import UNFINISHED, Layout
from opencode_tasks.store.locks import locked


@dataclass(frozen=True)
class Append:
    """`lines` go into `file` of the task's log at `offset`, which was its end."""

    task_id: str
    file: str
    offset: int
    lines: str


@dataclass(frozen=True)
class Transaction:
    """`created`: tasks that were built aside and are renamed into their places."""

    created: tuple[str, ...] = ()
    appended: tuple[Append, ...] = ()

    @property
    def task_ids(self) -> set[str]:
        return {*self.created, *(a.task_id for a in self.appended)}


def commit(layout: Layout, transaction: Transaction) -> None:
    """Under the locks of all its tasks."""
    path = layout.transactions / f"{time.time_ns()}-{os.getpid()}.json"
    content_b = json.dumps(asdict(transaction)).encode()
    for _ in range(100):
        with files.refused_writes(layout.transactions):
            layout.transactions.mkdir(exist_ok=True)
        # Another that has just finished takes its empty folder away.
        with suppress(FileNotFoundError):
            files.replace(path, content_b, durable=True)
            break
    files.sync_dir(layout.root)
    _carry_out(layout, transaction)
    _done(path)


def _done(path: Path) -> None:
    path.unlink()
    with suppress(OSError):  # another's is in it
        path.parent.rmdir()


def pending(layout: Layout) -> Iterator[tuple[Path, Transaction]]:
    """What was committed and is not carried out, or is being so right now."""
    try:
        names = os.listdir(layout.transactions)
    except FileNotFoundError:
        return
    for name in sorted(names):
        if name.endswith(".json"):
            path = layout.transactions / name
            with suppress(FileNotFoundError):
                yield path, _read(path)


def concerns(layout: Layout, task_id: str) -> bool:
    return any(task_id in t.task_ids for _, t in pending(layout))


def recover(layout: Layout, *, only: str | None = None, hot: bool) -> None:
    """Carry out what others were killed in (`only`: if this task is part of it). Without a lock of any task."""
    for path, transaction in pending(layout):
        if only is None or only in transaction.task_ids:
            with all_locked(layout, transaction.task_ids, hot=hot):
                if path.exists():
                    _carry_out(layout, transaction)
                    _done(path)


@contextmanager
def all_locked(layout: Layout, task_ids: Sequence[str] | set[str], *, hot: bool) -> Iterator[None]:
    """Every lock, in the one order that everybody keeps."""
    with ExitStack() as held:
        for task_id in sorted(task_ids):
            held.enter_context(locked(layout.lock(task_id), hot=hot))
        yield


def _read(path: Path) -> Transaction:
    try:
        fields = json.loads(path.read_bytes())
        appended = tuple(Append(**a) for a in fields["appended"])
        return Transaction(tuple(fields["created"]), appended)
    except (ValueError, KeyError, TypeError) as e:
        hint = "keep a copy of it, and move it away: what it changed was either done or is lost"
        raise CorruptError(f"{path} is not a transaction", hint=hint) from e


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
