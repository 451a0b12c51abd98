"""Processes that read tasks for a rebuild of the index: most of its time is spent in Python, not in SQLite."""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.store.index_reader import Known, Reader, Row
from opencode_tasks.store.registry import Store

_BATCH = 500
_AHEAD = 4
_Asked = Future[list[Row | None]] | None


def rows(common_dir: Path, ids: list[str], helpers: int) -> Iterator[tuple[str, Row | None]]:
    """Every task with its row, in the order of `ids`; without one where it was not read, for whatever reason."""
    batches = [ids[at : at + _BATCH] for at in range(0, len(ids), _BATCH)]
    asked: deque[tuple[list[str], _Asked]] = deque()
    # Spawned: a fork would take along the locks of our threads.
    with ProcessPoolExecutor(helpers, multiprocessing.get_context("spawn")) as pool:
        for batch in batches:
            asked.append((batch, _ask(pool, common_dir, batch)))
            if len(asked) > helpers * _AHEAD:
                yield from _answered(*asked.popleft())
        while asked:
            yield from _answered(*asked.popleft())


def _ask(pool: ProcessPoolExecutor, common_dir: Path, ids: list[str]) -> _Asked:
    try:
        return pool.submit(_read, common_dir, ids)
    except (BrokenProcessPool, OSError):  # a helper was killed, or cannot be started
        return None


def _answered(ids: list[str], asked: _Asked) -> Iterator[tuple[str, Row | None]]:
    found: list[Row | None] = [None] * len(ids)
    if asked is not None:
        with suppress(BrokenProcessPool):
            found = asked.result()
    yield from zip(ids, found, strict=True)


def _read(common_dir: Path, ids: list[str]) -> list[Row | None]:
    """In a helper."""
    reader = Reader(Store(common_dir, hot=True))
    found: list[Row | None] = []
    for task_id in ids:
        try:
            found.append(reader.row(task_id, Known()))
        except (TaskError, OSError, ValueError, TypeError, AttributeError):  # who asked finds out for itself
            found.append(None)
    return found
