"""`index.db`: list, find and count at any number of tasks without opening their files. SQLite with FTS5.

A projection: delete it and it comes back. Writers never touch it; whoever asks first reads what the
feed tells of. Every use holds `index.lock` from opening to closing, so the file may be replaced
between two uses, and SQLite's own locks are never needed.
"""

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencode_tasks.errors import NoTaskError, TaskError, UsageError
from opencode_tasks.events import CorruptError
from opencode_tasks.store import feed, files, state
from opencode_tasks.store.feed import Place
from opencode_tasks.store.leases import this_machine
from opencode_tasks.store.locks import LockTimeout, locked
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.task import Task
from opencode_tasks.values import value

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

_SCHEMA = """
create table meta (key text primary key, value text) without rowid;
create table tasks (
    n integer primary key, id text not null unique, branch text, owner text, status text, parent text,
    created_at text, updated_at text, deleted integer, rev integer, commands integer, failures integer,
    command_ms integer, checkpoints integer, decisions integer, pending_ms integer, running_ms integer,
    paused_ms integer, since text, doc text, at text, plan_stamp text, damage text
);
create index by_time on tasks (deleted, created_at, id);
create index by_status on tasks (status, deleted, created_at, id);
create index by_update on tasks (deleted, updated_at, id);
create index by_branch on tasks (branch);
create index by_parent on tasks (parent) where parent is not null;
create index by_owner on tasks (owner, deleted, created_at, id);
create virtual table texts using fts5 (title, branch, plan, decisions, commands, tokenize = "unicode61");
create table waiting (id text primary key, rev integer) without rowid;
"""
_VERSION = "1"
_PARTS = ("title", "branch", "plan", "decisions", "commands")
_WEIGHTS = (10.0, 6.0, 3.0, 4.0, 1.0)
_TEXT_BYTES = 64 * 1024
_MANY = 2000

Progress = Callable[[int, int], None]


@value
class Query:
    """What to list. Times are RFC 3339; `branch` and `owner` are exact."""

    status: tuple[str, ...] = ()
    owner: str | None = None
    branch: str | None = None
    parent: str | None = None
    created_after: str | None = None
    created_before: str | None = None
    ids: tuple[str, ...] = ()
    recent: bool = False
    deleted: bool = False


@value
class Match:
    """`part`: where the words were found; `line`: the line that has most of them."""

    task: Task
    part: str
    line: str
    score: float


class Index:
    def __init__(self, store: "Store") -> None:
        self._store = store
        self._layout = store.layout

    def page(self, query: Query, *, limit: int, after: str | None = None) -> tuple[list[Task], str | None]:
        """The newest first (`recent`: the last changed first), and the id after which the next page begins."""
        with self._open() as db:
            where, values = _where(query)
            by = "updated_at" if query.recent else "created_at"
            if after is not None:
                row = db.execute(f"select {by}, id from tasks where id = ?", (after,)).fetchone()
                if row is None:
                    raise UsageError(f"--cursor {after}: there is no such task")
                where += f" and ({by}, id) < (?, ?)"
                values = [*values, *row]
            rows = db.execute(
                f"select id, doc from tasks where {where} order by {by} desc, id desc limit ?", (*values, limit + 1)
            ).fetchall()
        tasks = [_task(doc) for _, doc in rows[:limit]]
        return tasks, (tasks[-1].id if len(rows) > limit else None)

    def count(self) -> int:
        """How many tasks it knows, deleted and damaged ones too."""
        with self._open() as db:
            return int(db.execute("select count(*) from tasks").fetchone()[0])

    def damaged(self) -> dict[str, str]:
        """Tasks that could not be read when they changed last, and why."""
        with self._open() as db:
            return dict(db.execute("select id, damage from tasks where damage is not null order by id"))

    def named(self, text: str) -> tuple[list[str], list[str]]:
        """Ids that begin with `text` (at most 50), and those of the tasks whose branch it is, newest first."""
        with self._open() as db:
            starting = (
                []
                if not text
                else db.execute(
                    "select id from tasks where id >= ? and id < ? and deleted = 0 order by id limit 50",
                    (_storable(text), _storable(text) + "\U0010ffff"),
                ).fetchall()
            )
            of_branch = db.execute(
                "select id from tasks where branch = ? and deleted = 0 order by created_at desc, id desc",
                (_storable(text),),
            ).fetchall()
        return [i for (i,) in starting], [i for (i,) in of_branch]

    def find(self, text: str, *, limit: int, query: Query | None = None) -> list[Match]:
        """Tasks with all the words of `text`, best first; the last word may be a beginning."""
        words = re.findall(r"\w+", text)
        if not words:
            raise UsageError("There is no word to look for", hint="opencode-tasks find-task WORD …")
        wanted = " ".join(f'"{w}"' for w in words) + "*"
        where, values = _where(query or Query())
        with self._open() as db:
            self._refresh_plans(db)
            weights = ", ".join(map(str, _WEIGHTS))
            rows = db.execute(
                f"select tasks.doc, bm25(texts, {weights}) as score, {', '.join('texts.' + p for p in _PARTS)} "
                f"from texts join tasks on tasks.n = texts.rowid where texts match ? and {where} "
                "order by score, tasks.n desc limit ?",
                (wanted, *values, limit),
            ).fetchall()
        return [_match(_task(doc), score, parts, words) for doc, score, *parts in rows]

    def stats(self, query: Query | None = None) -> dict[str, Any]:
        """Sums over the tasks: how many in each status, commands, failures, checkpoints, decisions, ms per status."""
        where, values = _where(query or Query())
        sums = ("commands", "failures", "command_ms", "checkpoints", "decisions")
        times = ("pending_ms", "running_ms", "paused_ms")
        with self._open() as db:
            found = db.execute(
                f"select {', '.join(f'coalesce(sum({c}), 0)' for c in (*sums, *times))} from tasks where {where}",
                values,
            ).fetchone()
            by_status = dict(
                db.execute(f"select status, count(*) from tasks where {where} group by status order by 2 desc", values)
            )
            open_since = db.execute(
                f"select status, since from tasks where {where} and status in ('pending', 'running', 'paused')", values
            ).fetchall()
        made: dict[str, Any] = {"tasks": sum(by_status.values()), "by_status": by_status}
        made |= dict(zip((*sums, *times), found, strict=True))
        for status, since in open_since:
            made[f"{status}_ms"] += _since_ms(since)
        return made

    def rebuild(self, progress: Progress = lambda _done, _all: None) -> int:
        """Made anew from every task's files, and put in place when it is whole; how many tasks."""
        temp = self._layout.index.with_name(f"index.db.new-{os.getpid()}")
        for path in (temp, temp.with_name(temp.name + "-journal")):
            path.unlink(missing_ok=True)
        ids = self._store.ids()
        try:
            with closing(_connect(temp)) as db:
                start = feed.end(self._layout.feed)
                _begin(db, start)
                # It is nobody's before it is renamed.
                db.execute("pragma synchronous = off")
                db.execute("begin")
                for done, task_id in enumerate(ids):
                    if done % 500 == 0:
                        progress(done, len(ids))
                    self._upsert(db, task_id, fresh=True)
                db.execute("commit")
                progress(len(ids), len(ids))
            with self._locked():
                temp.replace(self._layout.index)
        finally:
            temp.unlink(missing_ok=True)
        return len(ids)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self._layout.lock("index"), hot=True, timeout_s=60):
            yield

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The index, brought up to date. Raises `TaskError` when even a new one cannot be made."""
        self._store.require()
        try:
            with self._locked():
                db = self._ready()
                with closing(db):
                    yield db
        except TaskError as e:
            if e.code not in ("read_only", "disk_full"):
                raise
            # Where nothing can be written, the same in memory.
            with closing(self._in_memory()) as db:
                yield db

    def _ready(self) -> sqlite3.Connection:
        """Under the lock."""
        path = self._layout.index
        for again in (True, False):
            fresh = not path.exists()
            db = None
            try:
                db = _connect(path)
                if fresh or _meta(db, "version") != _VERSION:
                    raise sqlite3.DatabaseError("of another version")
                self._catch_up(db)
            except sqlite3.Error as e:
                if db is not None:
                    db.close()
                if not again or _is_refusal(e):
                    raise _refused(path, e) from e
                self._make_anew(fresh)
            except BaseException:
                if db is not None:
                    db.close()
                raise
            else:
                return db
        raise AssertionError("unreachable")

    def _make_anew(self, fresh: bool) -> None:
        """Under the lock, so nobody has it open. A damaged one is kept for a person to look at."""
        path = self._layout.index
        with files.refused_writes(path):
            path.with_name(path.name + "-journal").unlink(missing_ok=True)
            if not fresh and path.stat().st_size > 0:
                path.replace(path.with_name(f"{path.name}.corrupt"))
            else:
                path.unlink(missing_ok=True)
        with closing(_connect(path)) as db:
            start = feed.end(self._layout.feed)
            _begin(db, start)
            db.execute("begin")
            for task_id in self._store.ids():
                self._upsert(db, task_id, fresh=True)
            db.execute("commit")

    def _in_memory(self) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:", isolation_level=None)
        try:
            with closing(sqlite3.connect(f"file:{self._layout.index}?mode=ro&immutable=1", uri=True)) as stored:
                if _meta(stored, "version") != _VERSION:
                    raise sqlite3.DatabaseError("of another version")
                stored.backup(db)
            self._catch_up(db)
        except sqlite3.Error:
            db.close()
            db = sqlite3.connect(":memory:", isolation_level=None)
            _begin(db, feed.end(self._layout.feed))
            for task_id in self._store.ids():
                self._upsert(db, task_id, fresh=True)
        return db

    def _catch_up(self, db: sqlite3.Connection) -> None:
        place = Place(int(_meta(db, "feed_file") or 1), int(_meta(db, "feed_offset") or 0))
        entries, reached = feed.after(self._layout.feed, place)
        wanted: dict[str, int] = dict(db.execute("select id, rev from waiting"))
        for entry in entries:
            wanted[entry.task_id] = max(entry.rev, wanted.get(entry.task_id, 0))
        booted = this_machine().boot_id or ""
        # What was not synced when the power went: compare everything, once.
        changed = {*wanted, *(self._differing(db) if _meta(db, "boot") != booted else self._strays(db))}
        if not changed and reached == place and _meta(db, "boot") == booted:
            return
        db.execute("begin")
        db.execute("delete from waiting")
        for task_id in changed:
            self._upsert(db, task_id, rev=wanted.get(task_id, 0))
        values = (("feed_file", reached.file), ("feed_offset", reached.offset), ("boot", booted))
        db.executemany("insert or replace into meta values (?, ?)", values)
        db.execute("commit")
        if reached.file > place.file:
            feed.forget(self._layout.feed, Place(min(reached.file, self._history_file()), 0))

    def _history_file(self) -> int:
        """What the store's history has not read yet must stay."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            return int((self._layout.memory_git / "opencode-tasks-place").read_text().split()[0])
        return 1

    def _strays(self, db: sqlite3.Connection) -> set[str]:
        """Tasks that came or went without us, by hand. At a number of tasks where looking costs nothing."""
        (rows,) = db.execute("select count(*) from tasks").fetchone()
        if rows > _MANY:
            return set()
        return set(self._store.ids()) ^ {i for (i,) in db.execute("select id from tasks")}

    def _differing(self, db: sqlite3.Connection) -> set[str]:
        known = dict(db.execute("select id, at from tasks"))
        return {i for i in {*known, *self._store.ids()} if known.get(i) is None or not self._is_at(i, known[i])}

    def _is_at(self, task_id: str, at: str) -> bool:
        with suppress(OSError, ValueError):
            for writer, head in json.loads(at)["heads"].items():
                folder = self._layout.log(task_id)
                if (folder / f"{writer}-{head['segment']:06d}.jsonl").stat().st_size != head["size_bytes"]:
                    return False
            return True
        return False

    def _upsert(self, db: sqlite3.Connection, task_id: str, *, rev: int = 0, fresh: bool = False) -> None:
        row = None if fresh else db.execute("select n, at from tasks where id = ?", (task_id,)).fetchone()
        try:
            task, at = self._store.load(task_id)
        except NoTaskError:
            if row is not None:
                db.execute("delete from texts where rowid = ?", row[:1])
                db.execute("delete from tasks where n = ?", row[:1])
            return
        except TaskError as e:
            if row is None:
                db.execute("insert into tasks (id, deleted, damage) values (?, 1, ?)", (task_id, e.message))
            else:
                db.execute("update tasks set damage = ? where n = ?", (e.message, row[0]))
            return
        if task.rev < rev and self._is_being_written(task_id):
            db.execute("insert or replace into waiting values (?, ?)", (task_id, rev))
        known = _position(row[1]) if row is not None and row[1] else None
        before = "" if known is None else _column(db, "commands", row[0])
        texts = self._texts(task, known, before)
        values = _values(task, at, self._plan_stamp(task_id))
        if row is None:
            n = db.execute(_INSERT, values).lastrowid
        else:
            n = row[0]
            db.execute(_UPDATE, (*values, n))
            db.execute("delete from texts where rowid = ?", (n,))
        db.execute(
            "insert into texts (rowid, title, branch, plan, decisions, commands) values (?,?,?,?,?,?)", (n, *texts)
        )

    def _is_being_written(self, task_id: str) -> bool:
        try:
            with locked(self._layout.lock(task_id), timeout_s=0, hot=True):
                return False
        except LockTimeout:
            return True

    def _texts(self, task: Task, known: Position | None, commands: str) -> Sequence[str]:
        plan = _text(self._layout.plan(task.id))
        decided = _text(self._layout.decisions(task.id)) if task.decision_events else ""
        if task.commands.count:
            commands += "".join(self._commands(task.id, known))
        told = (task.title, task.branch, plan, re.sub(r"<!--.*?-->", "", decided), commands[-_TEXT_BYTES:])
        return tuple(map(_storable, told))

    def _commands(self, task_id: str, known: Position | None) -> Iterable[str]:
        try:
            for event in self._store.events_after(task_id, known):
                if event.type == "command.started":
                    yield " ".join(map(str, event.data.get("argv", ()))) + "\n"
        except CorruptError:
            return  # told where it matters: in the task itself

    def _plan_stamp(self, task_id: str) -> str:
        with suppress(OSError):
            found = self._layout.plan(task_id).stat()
            return f"{found.st_mtime_ns} {found.st_size}"
        return ""

    def _refresh_plans(self, db: sqlite3.Connection) -> None:
        """Plans are edited by hand, and no feed tells: those of the open tasks that changed last are looked at."""
        rows = db.execute(
            "select n, id, plan_stamp from tasks where deleted = 0 and status in ('pending', 'running', 'paused') "
            "order by updated_at desc limit 100"
        ).fetchall()
        for n, task_id, stamp in rows:
            now = self._plan_stamp(task_id)
            if now != stamp:
                with suppress(sqlite3.Error):  # in memory, or a full disk: then the older text is searched
                    db.execute("update texts set plan = ? where rowid = ?", (_text(self._layout.plan(task_id)), n))
                    db.execute("update tasks set plan_stamp = ? where n = ?", (now, n))


_COLUMNS = (
    "id branch owner status parent created_at updated_at deleted rev commands failures command_ms checkpoints "
    "decisions pending_ms running_ms paused_ms since doc at plan_stamp damage"
).split()
_INSERT = f"insert into tasks ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))})"
_UPDATE = f"update tasks set {', '.join(f'{c} = ?' for c in _COLUMNS)} where n = ?"


def _values(task: Task, at: Position, plan_stamp: str) -> tuple[object, ...]:
    return (
        task.id,
        _storable(task.branch),
        None if task.owner is None else _storable(task.owner),
        task.status,
        task.parent,
        task.created_at,
        task.updated_at,
        int(task.deleted_at is not None),
        task.rev,
        task.commands.count,
        task.commands.failures,
        task.commands.duration_ms,
        task.checkpoints.count,
        task.decisions.count,
        task.spent.pending,
        task.spent.running,
        task.spent.paused,
        task.status_since,
        json.dumps(state.to_json(task)),
        json.dumps({"heads": {w: h._asdict() for w, h in at.heads.items()}, "last": at.last}),
        plan_stamp,
        None,
    )


def _storable(text: str) -> str:
    """SQLite takes UTF-8 only; a name that is none (a branch, a path) stands there escaped."""
    return text.encode(errors="backslashreplace").decode()


def _where(query: Query) -> tuple[str, list[object]]:
    parts: list[str] = ["tasks.deleted = ?", "tasks.doc is not null"]
    values: list[object] = [int(query.deleted)]
    for column, several in (("status", query.status), ("id", query.ids)):
        if several:
            parts.append(f"tasks.{column} in ({', '.join('?' * len(several))})")
            values += several
    for column, value in (("owner", query.owner), ("branch", query.branch), ("parent", query.parent)):
        if value is not None:
            parts.append(f"tasks.{column} = ?")
            values.append(_storable(value))
    for sign, value in ((">=", query.created_after), ("<", query.created_before)):
        if value is not None:
            parts.append(f"tasks.created_at {sign} ?")
            values.append(value)
    return " and ".join(parts), values


def _connect(path: Path) -> sqlite3.Connection:
    with files.refused_writes(path):
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise PermissionError(13, "Permission denied", str(path))
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            raise OSError(30, "Read-only file system", str(path))
    db = sqlite3.connect(path, isolation_level=None)
    # Under our own lock a rollback journal is the least there is to go wrong.
    db.execute("pragma journal_mode = truncate").fetchall()
    db.execute("pragma synchronous = normal")
    db.execute("pragma locking_mode = exclusive")
    return db


def _begin(db: sqlite3.Connection, place: Place) -> None:
    db.executescript(_SCHEMA)
    values = {
        "version": _VERSION,
        "feed_file": place.file,
        "feed_offset": place.offset,
        "boot": this_machine().boot_id or "",
    }
    db.executemany("insert into meta values (?, ?)", values.items())


def _meta(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("select value from meta where key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _is_refusal(e: sqlite3.Error) -> bool:
    return "full" in str(e) or "readonly" in str(e) or "disk I/O" in str(e)


def _refused(path: Path, e: sqlite3.Error) -> TaskError:
    code = (
        "disk_full" if "full" in str(e) or "disk I/O" in str(e) else "read_only" if "readonly" in str(e) else "failed"
    )
    return TaskError(f"{path} cannot be used: {e}", hint="opencode-tasks doctor --rebuild", code=code)


def _position(text: str) -> Position:
    found = json.loads(text)
    lam, w, seq = found["last"]
    return Position({writer: Head(**head) for writer, head in found["heads"].items()}, (lam, w, seq))


def _column(db: sqlite3.Connection, name: str, n: int) -> str:
    row = db.execute(f"select {name} from texts where rowid = ?", (n,)).fetchone()
    return "" if row is None else str(row[0])


def _task(doc: str) -> Task:
    return state.from_json(json.loads(doc))


def _text(path: Path) -> str:
    with suppress(OSError), path.open("rb") as f:
        return f.read(_TEXT_BYTES).decode(errors="replace")
    return ""


def _match(task: Task, score: float, parts: Sequence[str], words: Sequence[str]) -> Match:
    lowered = [w.lower() for w in words]
    best = (0, "title", task.title)
    for part, text in zip(_PARTS, parts, strict=True):
        for line in text.splitlines():
            count = sum(w in line.lower() for w in lowered)
            if count > best[0]:
                best = (count, part, line.strip())
    return Match(task, best[1], best[2][:200], -score)


def _since_ms(since: str) -> int:
    from datetime import datetime

    return max(0, round((time.time() - datetime.fromisoformat(since).timestamp()) * 1000))
