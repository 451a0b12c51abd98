"""What `index.db` holds of a task, and how it comes there: from the task's files, never from a row."""

import hashlib
import json
import os
import re
import sqlite3
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opencode_tasks import fold
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.events import SCHEMA, CorruptError
from opencode_tasks.store import index_texts as texts
from opencode_tasks.store import log, state, transactions
from opencode_tasks.store.index_texts import storable
from opencode_tasks.store.layout import UNFINISHED
from opencode_tasks.store.locks import locked
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.task import OPEN, Task
from opencode_tasks.values import names_of, value

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

VERSION = f"2 {fold.VERSION}"
PARTS = ("title", "branch", "plan", "decisions", "commands")
TABLES = """
create table meta (key text primary key, value text) without rowid;
create table waiting (id text primary key, rev integer) without rowid;
create table tasks (
    n integer primary key, id text not null, branch text, owner text, status text, parent text, created_at text,
    updated_at text, deleted integer, open integer, commands integer, failures integer, command_ms integer,
    checkpoints integer, decisions integer, pending_ms integer, running_ms integer, paused_ms integer,
    since_ms integer, decided integer, at text, plan_stamp text, damage text
);
create table docs (n integer primary key, doc text, crc integer);
create virtual table texts using fts5 (
    title, branch, plan, decisions, commands, tokenize = "unicode61 remove_diacritics 2"
);
"""
INDEXES = """
create unique index by_id on tasks (id);
create index by_time on tasks (deleted, created_at, id);
create index by_update on tasks (deleted, updated_at, id);
create index by_status on tasks (status, deleted, created_at, id);
create index by_status_update on tasks (status, deleted, updated_at, id);
create index by_owner on tasks (owner, deleted, created_at, id);
create index by_branch on tasks (branch);
create index by_parent on tasks (parent) where parent is not null;
create index by_open on tasks (open, updated_at);
create index by_damage on tasks (id) where damage is not null;
"""
_COLUMNS = (
    *("id", "branch", "owner", "status", "parent", "created_at", "updated_at", "deleted", "open", "commands"),
    *("failures", "command_ms", "checkpoints", "decisions", "pending_ms", "running_ms", "paused_ms", "since_ms"),
    *("decided", "at", "plan_stamp", "damage"),
)
_INSERT = f"insert into tasks ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))})"
_UPDATE = f"update tasks set {', '.join(f'{c} = ?' for c in _COLUMNS)} where n = ?"
_INSERT_TEXTS = f"insert into texts (rowid, {', '.join(PARTS)}) values (?{', ?' * len(PARTS)})"
# Of a record that another program wrote, with values of other kinds.
_ODD = (TypeError, ValueError, AttributeError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


@value
class _Read:
    """A task as its files have it: the fields of `doc`, which is what is kept; `at` is how far its log was read."""

    fields: dict[str, Any]
    doc: str
    at: str


@value
class _Known:
    """What there is of it already: up to where its log was read, and how much of what has texts."""

    n: int | None = None
    at: Position | None = None
    commands: int = 0
    decided: int = 0


class Rows:
    def __init__(self, store: "Store", db: sqlite3.Connection) -> None:
        self._store, self._db = store, db
        self._layout = store.layout
        self._store_folder = f"{store.layout.store}/"

    def insert(self, task_id: str, rev: int) -> None:
        """A task of which there is no row. `rev`: the revision that the feed has announced, or 0."""
        self._put(task_id, rev, _Known())

    def upsert(self, task_id: str, rev: int) -> None:
        found = self._db.execute("select n, at, commands, decided from tasks where id = ?", (task_id,)).fetchone()
        self._put(task_id, rev, _Known() if found is None else _known(*found))

    def refresh_plans(self) -> None:
        """Plans are edited by hand, and no feed tells: those of the open tasks that changed last are looked at."""
        rows = self._db.execute(
            "select n, id, plan_stamp from tasks where open = 1 order by updated_at desc limit 100"
        ).fetchall()
        plans = [(n, f"{self._store_folder}{i}/plan.md", stamp) for n, i, stamp in rows]
        changed = [(n, path) for n, path, stamp in plans if texts.stamp(path) != stamp]
        if not changed:
            return
        self._db.execute("begin")
        for n, path in changed:
            plan, stamp = texts.plan(path)
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

    def _put(self, task_id: str, rev: int, known: _Known) -> None:
        try:
            found = self._read(task_id)
            if rev and (found is None or found.fields["rev"] < rev):
                # The feed tells of it before it happens.
                if self._is_under_way(task_id):
                    self._db.execute("insert or replace into waiting values (?, ?)", (task_id, rev))
                else:
                    found = self._read(task_id)  # it ended between our two looks, or never will
            if found is not None:
                self._write(found, known)
            elif known.n is not None:
                self._remove(known.n)
        except TaskError as e:
            self._damaged(task_id, known, e.message)
        except OSError as e:
            self._damaged(task_id, known, f"{e.filename} cannot be read: {e.strerror}")
        except _ODD as e:
            self._damaged(task_id, known, f"A record of {task_id} holds what cannot be indexed: {e}")

    def _read(self, task_id: str) -> _Read | None:
        """None: there is no such task. Raises `TaskError` for one that cannot be read."""
        found = self._projected(task_id)
        if found is not None:
            return found
        try:
            task, at = self._store.load(task_id)
        except NoTaskError:
            return None
        except TaskError:
            if not self._layout.task(task_id).is_dir():
                return None  # removed just now
            raise
        fields = state.to_json(task)
        log_at = {"heads": {w: head._asdict() for w, head in at.heads.items()}, "last": at.last}
        return _Read(fields, json.dumps(fields), json.dumps(log_at))

    def _projected(self, task_id: str) -> _Read | None:
        """What most tasks are: one segment of one writer, and a projection that is right up to its end.

        At 100,000 tasks this is what counts, so no object is made that is not needed.
        """
        folder = self._store_folder + task_id
        try:
            with open(f"{folder}/state.json", "rb") as f:
                content_b = f.read()
            (name,) = os.listdir(f"{folder}/log")
            size_bytes = os.stat(f"{folder}/log/{name}").st_size
            parts = _STATE.fullmatch(content_b)
            if parts is None or hashlib.sha256(parts[1] + b"}").hexdigest().encode() != parts[4]:
                return None
            fields, logged = json.loads(parts[2]), json.loads(parts[3])
            ((writer, head),) = logged["heads"].items()
            if (name, size_bytes) != (log.name_of(writer, head["segment"]), head["size_bytes"]):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if fields.keys() != _FIELDS or fields["id"] != task_id:
            return None
        return _Read(fields, parts[2].decode(), parts[3].decode())

    def _is_under_way(self, task_id: str) -> bool:
        """Whether what the feed announced may still come."""
        if (self._layout.store / f"{UNFINISHED}{task_id}").exists():
            return True
        try:
            if transactions.concerns(self._layout, task_id):
                return True
            with locked(self._layout.lock(task_id), timeout_s=0, hot=True):
                return False
        except CorruptError:
            return False  # a transaction that nobody can finish
        except TaskError:
            return True

    def _write(self, found: _Read, known: _Known) -> None:
        fields, db = found.fields, self._db
        plan, stamp = texts.plan(f"{self._store_folder}{fields['id']}/plan.md")
        parts = (storable(fields["title"]), storable(fields["branch"]), plan, *self._logged(found, known))
        values = (*_values(fields), found.at, stamp, None)
        if known.n is None:
            n = db.execute(_INSERT, values).lastrowid
        else:
            n = known.n
            db.execute(_UPDATE, (*values, n))
            db.execute("delete from texts where rowid = ?", (n,))
        db.execute("insert or replace into docs values (?, ?, ?)", (n, found.doc, zlib.crc32(found.doc.encode())))
        db.execute(_INSERT_TEXTS, (n, *parts))

    def _remove(self, n: int) -> None:
        for table, key in (("texts", "rowid"), ("docs", "n"), ("tasks", "n")):
            self._db.execute(f"delete from {table} where {key} = ?", (n,))

    def _damaged(self, task_id: str, known: _Known, what: str) -> None:
        """What was known of it stays."""
        if known.n is None:
            self._db.execute(
                "insert into tasks (id, deleted, open, damage) values (?, 1, 0, ?)", (task_id, storable(what))
            )
        else:
            self._db.execute("update tasks set damage = ? where n = ?", (storable(what), known.n))

    def _logged(self, found: _Read, known: _Known) -> tuple[str, str]:
        """The texts of the decisions and of the commands; the log is only read when it has more of them."""
        fields, decided, commands = found.fields, "", ""
        has_decisions = fields["decision_events"] != known.decided
        has_commands = fields["commands"]["count"] != known.commands
        if known.n is not None:
            row = self._db.execute("select decisions, commands from texts where rowid = ?", (known.n,)).fetchone()
            decided, commands = row or ("", "")
        if has_decisions or has_commands:
            at = _position(found.at)
            if has_decisions:
                decided = texts.decisions(self._store, fields["id"], fields["title"], at)
            if has_commands:
                commands = texts.commands(self._store, fields["id"], at, known.at, commands)
        return decided, commands


# As `state.render` writes it: the body, the task and the log in it, the digest.
_STATE = re.compile(
    rb'(\{"v":%d,"fold":%d,"task":(\{.*\}),"log":(\{"heads":.*\}))(?:,"sha256":"([0-9a-f]{64})"\}\n)'
    % (SCHEMA, fold.VERSION),
    re.DOTALL,
)


def _values(fields: dict[str, Any]) -> tuple[Any, ...]:
    commands, spent = fields["commands"], fields["spent"]
    is_deleted = fields["deleted_at"] is not None
    return (
        fields["id"],
        storable(fields["branch"]),
        None if fields["owner"] is None else storable(fields["owner"]),
        fields["status"],
        fields["parent"],
        fields["created_at"],
        fields["updated_at"],
        int(is_deleted),
        int(not is_deleted and fields["status"] in OPEN),
        commands["count"],
        commands["failures"],
        commands["duration_ms"],
        fields["checkpoints"]["count"],
        fields["decisions"]["count"],
        spent["pending"],
        spent["running"],
        spent["paused"],
        _ms(fields["status_since"]),
        fields["decision_events"],
    )


_FIELDS = frozenset(names_of(Task))


def task_of(doc: str, crc: int) -> Task:
    """Raises `sqlite3.DatabaseError` when the row is not what was written: it is the index that is damaged."""
    if zlib.crc32(doc.encode()) != crc:
        raise sqlite3.DatabaseError("a task does not match its checksum")
    return state.from_json(json.loads(doc))


def _known(n: int, at: str | None, commands: int, decided: int) -> _Known:
    if at is None:
        return _Known(n)
    try:
        return _Known(n, _position(at), commands, decided)
    except (ValueError, KeyError, TypeError) as e:
        raise sqlite3.DatabaseError("a task's place is not what was written") from e


def _position(at: str) -> Position:
    found = json.loads(at)
    lam, w, seq = found["last"]
    return Position({writer: Head(**head) for writer, head in found["heads"].items()}, (lam, w, seq))


def _ms(ts: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(ts).timestamp() * 1000)
