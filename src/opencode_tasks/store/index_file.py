"""`index.db` itself: opened, brought up to date, and made anew when it is damaged, of another version, or gone.

Every use holds `index.lock` from opening to closing, so the file may be replaced between two
uses, and SQLite's own locks are never needed.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from opencode_tasks.errors import TaskError
from opencode_tasks.store import feed, files
from opencode_tasks.store.feed import Place
from opencode_tasks.store.index_reader import Row
from opencode_tasks.store.index_rows import Rows
from opencode_tasks.store.index_schema import INDEXES, TABLES, VERSION
from opencode_tasks.store.leases import this_machine
from opencode_tasks.store.locks import locked, unchanging

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

T = TypeVar("T")
Progress = Callable[[int, int], None]

_PATIENCE_S = 60
_MANY = 2000
_WORTH_HELP, _MOST_HELPERS = 10_000, 4
# A folder that changed so recently may change again without its time showing it.
_CLOCK_NS = 1_000_000_000


def _silent(_done: int, _all: int) -> None:
    pass


class IndexFile:
    def __init__(self, store: "Store") -> None:
        self._store = store
        self._layout = store.layout

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of an index that is up to date. Raises `TaskError` when even a new one cannot be made."""
        self._store.require()
        try:
            with locked(self._layout.lock("index"), hot=True, timeout_s=_PATIENCE_S):
                return self._answer(question)
        except TaskError as e:
            if e.code not in ("read_only", "disk_full"):
                raise
        # Where nothing can be written, the same in memory.
        with unchanging(self._layout.lock("index"), timeout_s=_PATIENCE_S):
            try:
                with closing(self._copied()) as db:
                    return question(db)
            except TaskError:
                raise
            except Exception:  # what damage does to a reader nobody can list
                with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
                    self._fill(db)
                    return question(db)

    def rebuild(self, progress: Progress) -> int:
        """Made anew from every task's files, aside, and put in place when it is whole; how many tasks."""
        self._store.require()
        new = self._layout.index.with_name("index.db.new")
        with locked(self._layout.lock("rebuild"), hot=True, timeout_s=_PATIENCE_S):
            count = self._build(new, progress, helpers=min(os.cpu_count() or 1, _MOST_HELPERS))
            with locked(self._layout.lock("index"), hot=True, timeout_s=_PATIENCE_S):
                self._put_in_place(new)
        return count

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Under the lock."""
        for is_last in (False, True):
            try:
                with closing(self._opened()) as db:
                    reached = self._catch_up(db)
                    if reached is not None:
                        feed.forget(self._layout.feed, Place(min(reached.file, self._history_file()), 0))
                    return question(db)
            except TaskError:
                raise
            except Exception as e:
                # Not only SQLite's own errors: what a damaged row may do to its reader nobody can list.
                if isinstance(e, sqlite3.Error) and (is_last or _code(e) != "failed"):
                    raise _refused(self._layout.index, e) from e
                if is_last:
                    raise
            new = self._layout.index.with_name("index.db.anew")
            self._build(new)
            self._put_in_place(new)
        raise AssertionError("unreachable")

    def _opened(self) -> sqlite3.Connection:
        db = _connect(self._layout.index)
        with _closed_on_error(db):
            _require_version(db)
        return db

    def _build(self, path: Path, progress: Progress = _silent, *, helpers: int = 0) -> int:
        with files.refused_writes(path):
            path.unlink(missing_ok=True)
            _journal(path).unlink(missing_ok=True)
        try:
            with closing(_connect(path)) as db:
                # It is nobody's before it is whole.
                db.execute("pragma synchronous = off")
                db.execute("pragma cache_size = -65536")
                count = self._fill(db, progress, helpers=helpers)
            with files.refused_writes(path):
                files.sync(path)
        except BaseException as e:
            path.unlink(missing_ok=True)
            _journal(path).unlink(missing_ok=True)
            if isinstance(e, sqlite3.Error):
                raise _refused(path, e) from e
            raise
        return count

    def _fill(self, db: sqlite3.Connection, progress: Progress = _silent, *, helpers: int = 0) -> int:
        """Into an empty one. What is announced in the feed and not there yet will be waited for."""
        entries, reached = feed.after(self._layout.feed, Place())
        announced: dict[str, int] = {}
        for entry in entries:
            announced[entry.task_id] = max(entry.rev, announced.get(entry.task_id, 0))
        ids = self._store.ids()
        db.executescript(TABLES)
        db.execute("begin")
        rows, read = Rows(self._store, db), list[tuple[str, Row]]()
        progress(0, len(ids))
        for done, (task_id, row) in enumerate(self._read(ids, helpers), 1):
            rev = announced.pop(task_id, 0)
            if row is None or row.rev < rev:
                rows.insert_many(read)
                read.clear()
                rows.insert(task_id, rev)
            else:
                read.append((task_id, row))
            if done % 500 == 0:
                rows.insert_many(read)
                read.clear()
                progress(done, len(ids))
        rows.insert_many(read)
        for task_id, rev in announced.items():
            rows.insert(task_id, rev)
        for statement in INDEXES.split(";"):
            db.execute(statement)
        _note(db, reached, version=VERSION, store=self._store_stamp())
        db.execute("commit")
        progress(len(ids), len(ids))
        return len(ids)

    def _read(self, ids: list[str], helpers: int) -> Iterator[tuple[str, Row | None]]:
        """Every task with its row, if somebody else has read it; no task is left out when a helper dies."""
        if helpers == 0 or len(ids) < _WORTH_HELP:
            yield from ((task_id, None) for task_id in ids)
            return
        from opencode_tasks.store import index_helpers

        yield from index_helpers.rows(self._layout.common_dir, ids, helpers)

    def _put_in_place(self, new: Path) -> None:
        """Under the lock, so nobody has the old one open."""
        path = self._layout.index
        with files.refused_writes(path):
            # The journal of the old one must never be beside the new one: SQLite would play it back.
            path.unlink(missing_ok=True)
            _journal(path).unlink(missing_ok=True)
            new.replace(path)
            _journal(new).unlink(missing_ok=True)

    def _catch_up(self, db: sqlite3.Connection) -> Place | None:
        """Read what changed. Gives the place in the feed when that is in another file than before."""
        place = Place(int(_meta(db, "feed_file") or 1), int(_meta(db, "feed_offset") or 0))
        booted, store = this_machine().boot_id or "", self._store_stamp()
        # What was not synced when the power went is in no feed: compare everything, once.
        is_whole = _meta(db, "boot") == booted and feed.holds(self._layout.feed, place)
        entries, reached = feed.after(self._layout.feed, place)
        wanted: dict[str, int] = dict(db.execute("select id, rev from waiting"))
        for entry in entries:
            wanted[entry.task_id] = max(entry.rev, wanted.get(entry.task_id, 0))
        is_same = bool(store) and _meta(db, "store") == store
        others = self._differing(db) if not is_whole else set() if is_same else self._strays(db)
        if not wanted and not others and is_whole and (is_same or not store) and reached == place:
            return None
        db.execute("begin")
        db.execute("delete from waiting")
        rows = Rows(self._store, db)
        for task_id in sorted({*wanted, *others}):
            rows.upsert(task_id, wanted.get(task_id, 0))
        _note(db, reached, store=store)
        db.execute("commit")
        return reached if reached.file != place.file else None

    def _history_file(self) -> int:
        """What the store's history has not read yet must stay."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            return int(self._layout.memory_place.read_text().split()[0])
        return 1

    def _store_stamp(self) -> str:
        """Changes when a task comes or goes; empty while nobody can tell."""
        changed_ns = self._layout.store.stat().st_mtime_ns
        return str(changed_ns) if time.time_ns() - changed_ns > _CLOCK_NS else ""

    def _strays(self, db: sqlite3.Connection) -> set[str]:
        """Tasks that came or went without us, by hand. At a number of tasks where looking costs little."""
        (most,) = db.execute("select coalesce(max(n), 0) from tasks").fetchone()
        if most > _MANY:
            return set()
        return set(self._store.ids()) ^ {i for (i,) in db.execute("select id from tasks")}

    def _differing(self, db: sqlite3.Connection) -> set[str]:
        rows, known = Rows(self._store, db), dict(db.execute("select id, at from tasks left join docs using (n)"))
        return {i for i in {*known, *self._store.ids()} if not rows.is_at(i, known.get(i))}

    def _copied(self) -> sqlite3.Connection:
        """In memory, and brought up to date there."""
        db, path = sqlite3.connect(":memory:", isolation_level=None), self._layout.index
        with _closed_on_error(db):
            if _journal(path).exists() and _journal(path).stat().st_size > 0:
                raise sqlite3.DatabaseError("left in the middle of a change")
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as stored:
                _require_version(stored)
                stored.backup(db)
            self._catch_up(db)
        return db


def _connect(path: Path) -> sqlite3.Connection:
    with files.refused_writes(path):
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise PermissionError(13, "Permission denied", str(path))
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            raise OSError(30, "Read-only file system", str(path))
    db = sqlite3.connect(path, isolation_level=None)
    with _closed_on_error(db):
        # Under our own lock a rollback journal is the least there is to go wrong.
        db.execute("pragma journal_mode = truncate").fetchall()
        db.execute("pragma synchronous = normal")
        db.execute("pragma locking_mode = exclusive")
        db.execute("pragma cell_size_check = on")
    return db


@contextmanager
def _closed_on_error(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise


def _require_version(db: sqlite3.Connection) -> None:
    if _meta(db, "version") != VERSION:
        raise sqlite3.DatabaseError("of another version")


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _meta(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("select value from meta where key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _note(db: sqlite3.Connection, place: Place, **more: str) -> None:
    values = {"feed_file": place.file, "feed_offset": place.offset, "boot": this_machine().boot_id or "", **more}
    db.executemany("insert or replace into meta values (?, ?)", values.items())


def _code(e: sqlite3.Error) -> str:
    """`failed`: the fault of the file; else of the disk or its owner."""
    whole: int = getattr(e, "sqlite_errorcode", 0)
    if whole in (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ):
        return "failed"
    kinds = {sqlite3.SQLITE_FULL: "disk_full", sqlite3.SQLITE_IOERR: "disk_full", sqlite3.SQLITE_READONLY: "read_only"}
    return kinds.get(whole & 0xFF, "failed")


def _refused(path: Path, e: sqlite3.Error) -> TaskError:
    return TaskError(f"{path} cannot be used: {e}", hint="opencode-tasks doctor --rebuild", code=_code(e))
