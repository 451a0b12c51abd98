"""What `index.db` holds of each task, and how it is kept so: from the task's files, never from another row."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.store import index_reader, log, transactions
from opencode_tasks.store import index_texts as texts
from opencode_tasks.store.index_reader import Known, Reader, Row
from opencode_tasks.store.index_schema import INSERT, INSERT_DOC, INSERT_TEXTS, UPDATE
from opencode_tasks.store.index_texts import storable
from opencode_tasks.store.state import Position
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

# Of a record that another program wrote, with values of other kinds.
_ODD = (TypeError, ValueError, AttributeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Rows:
    def __init__(self, store: "Store", db: sqlite3.Connection) -> None:
        self._db, self._layout, self._reader = db, store.layout, Reader(store)

    def insert(self, task_id: str, rev: int, row: Row | None = None) -> None:
        """A task that is not there yet. `rev`: the revision that the feed has announced, or 0; `row`: what was read."""
        if row is not None and row.rev >= rev:
            self._telling_damage(task_id, None, lambda: self._write(row, None))
        else:
            self._put(task_id, rev, None, Known())

    def insert_many(self, read: Sequence[tuple[str, Row]]) -> None:
        """As many calls of `insert`, in less than half of their time."""
        (last,) = self._db.execute("select coalesce(max(n), 0) from tasks").fetchone()
        rows = [row for _, row in read]
        self._db.execute("savepoint many")
        try:
            self._db.executemany(INSERT, [row.values for row in rows])
            self._db.executemany(INSERT_DOC, [(n, *row.doc) for n, row in enumerate(rows, last + 1)])
            self._db.executemany(INSERT_TEXTS, [(n, *row.texts) for n, row in enumerate(rows, last + 1)])
        except _ODD:
            self._db.execute("rollback to many")
            for task_id, row in read:
                self.insert(task_id, 0, row)
        self._db.execute("release many")

    def upsert(self, task_id: str, rev: int) -> None:
        asked = (
            "select tasks.n, docs.at, tasks.commands, decided, texts.decisions, texts.commands from tasks "
            "left join docs using (n) left join texts on texts.rowid = tasks.n where id = ?"
        )
        found = self._db.execute(asked, (task_id,)).fetchone()
        n, at, ran, decided, *known = found or (None, None, 0, 0, "", "")
        self._put(task_id, rev, n, Known() if at is None else Known(_position(at), ran, decided, (known[0], known[1])))

    def refresh_plans(self) -> None:
        """Plans are edited by hand, and no feed tells: those of the open tasks that changed last are looked at."""
        asked = "select n, id, plan_stamp from tasks where open = 1 order by updated_at desc limit 100"
        plans = [(n, self._reader.plan(i), stamp) for n, i, stamp in self._db.execute(asked)]
        changed = [(n, path) for n, path, stamp in plans if texts.stamp(path) != stamp]
        if not changed:
            return
        self._db.execute("begin")
        for n, path in changed:
            title, branch = self._db.execute("select title, branch from texts where rowid = ?", (n,)).fetchone()
            plan, stamp = texts.plan(path, title, branch)
            self._db.execute("update texts set plan = ? where rowid = ?", (plan, n))
            self._db.execute("update tasks set plan_stamp = ? where n = ?", (stamp, n))
        self._db.execute("commit")

    def is_at(self, task_id: str, at: str | None) -> bool:
        """Whether the logs end where the row's do."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            for writer, head in json.loads(at or "")["heads"].items():
                path = self._layout.log(task_id) / log.name_of(writer, head["segment"])
                if path.stat().st_size != head["size_bytes"]:
                    return False
            return True
        return False

    def _put(self, task_id: str, rev: int, n: int | None, known: Known) -> None:
        self._telling_damage(task_id, n, lambda: self._read_and_put(task_id, rev, n, known))

    def _read_and_put(self, task_id: str, rev: int, n: int | None, known: Known) -> None:
        row = self._reader.row(task_id, known)
        if rev and (row is None or row.rev < rev):
            # The feed tells of it before it happens.
            if transactions.under_way(self._layout, task_id):
                self._db.execute("insert or replace into waiting values (?, ?)", (task_id, rev))
            else:
                row = self._reader.row(task_id, known)  # it happened between our two looks, or never will
        if row is not None:
            self._write(row, n)
        elif n is not None:
            self._remove(n)

    def _write(self, row: Row, n: int | None) -> None:
        if n is None:
            n = self._db.execute(INSERT, row.values).lastrowid
        else:
            self._db.execute(UPDATE, (*row.values, n))
            self._db.execute("delete from texts where rowid = ?", (n,))
        self._db.execute(INSERT_DOC, (n, *row.doc))
        self._db.execute(INSERT_TEXTS, (n, *row.texts))

    def _remove(self, n: int) -> None:
        for table, key in (("texts", "rowid"), ("docs", "n"), ("tasks", "n")):
            self._db.execute(f"delete from {table} where {key} = ?", (n,))

    def _telling_damage(self, task_id: str, n: int | None, do: Callable[[], None]) -> None:
        """One task that cannot be read must not take the others along. What was known of it stays."""
        try:
            do()
        except TaskError as e:
            what = e.message
        except OSError as e:
            what = f"{e.filename} cannot be read: {e.strerror}"
        except _ODD as e:
            what = f"A record of {task_id} holds what cannot be indexed: {e}"
        else:
            return
        if n is None:
            self._db.execute(
                "insert into tasks (id, deleted, open, damage) values (?, 1, 0, ?)", (task_id, storable(what))
            )
        else:
            self._db.execute("update tasks set damage = ? where n = ?", (storable(what), n))


def task_of(doc: str, crc: int) -> Task:
    """Raises `sqlite3.DatabaseError`: it is the index that is damaged, not the task."""
    found = index_reader.task_of(doc, crc)
    if found is None:
        raise sqlite3.DatabaseError("a task does not match its checksum")
    return found


def _position(at: str) -> Position:
    try:
        return index_reader.position(at)
    except (ValueError, KeyError, TypeError) as e:
        raise sqlite3.DatabaseError("a task's place is not what was written") from e
