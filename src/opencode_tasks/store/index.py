"""List, find and count at any number of tasks without opening their files. SQLite with FTS5.

A projection: delete it and it comes back. Writers never touch it; whoever asks first reads what
the feed tells of.
"""

import re
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opencode_tasks.errors import UsageError
from opencode_tasks.store.index_file import IndexFile, Progress
from opencode_tasks.store.index_rows import PARTS, Rows, task_of
from opencode_tasks.store.index_texts import storable
from opencode_tasks.task import Task
from opencode_tasks.values import replace, value

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

_WEIGHTS = (10.0, 6.0, 3.0, 4.0, 1.0)
_SUMS = ("commands", "failures", "command_ms", "checkpoints", "decisions", "pending_ms", "running_ms", "paused_ms")
_MOST = 1_000_000
_MOST_WORDS = 32


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
        self._file = IndexFile(store)

    def page(self, query: Query, *, limit: int, after: str | None = None) -> tuple[list[Task], str | None]:
        """The newest first (`recent`: the last changed first), and from where the next page goes on.

        Tasks that are created meanwhile change no page that follows; nor do those that change, but
        for themselves.
        """
        by, limit = "updated_at" if query.recent else "created_at", min(limit, _MOST)

        def ask(db: sqlite3.Connection) -> list[tuple[str, str, Task]]:
            asked, values = _page(query, by, limit + 1, None if after is None else _cursor(db, after, by))
            return [(when, task_id, task_of(doc, crc)) for when, task_id, doc, crc in db.execute(asked, values)]

        rows = self._file.ask(ask)
        following = "/".join(rows[limit - 1][:2]) if len(rows) > limit > 0 else None
        return [task for _, _, task in rows[:limit]], following

    def count(self) -> int:
        """How many tasks it knows, deleted and damaged ones too."""
        return self._file.ask(lambda db: int(db.execute("select count(*) from tasks").fetchone()[0]))

    def damaged(self) -> dict[str, str]:
        """Tasks that could not be read when they changed last, and why."""
        asked = "select id, damage from tasks where damage is not null order by id"
        return self._file.ask(lambda db: dict(db.execute(asked)))

    def named(self, text: str) -> tuple[list[str], list[str]]:
        """Ids that begin with `text` (at most 50), and those of the tasks whose branch it is, newest first."""
        text = storable(text)
        starting = "select id from tasks where id >= ? and id < ? and deleted = 0 order by id limit 50"
        of_branch = "select id from tasks where branch = ? and deleted = 0 order by created_at desc, id desc"

        def ask(db: sqlite3.Connection) -> tuple[list[str], list[str]]:
            found = db.execute(starting, (text, text + "\U0010ffff")).fetchall() if text else []
            return [i for (i,) in found], [i for (i,) in db.execute(of_branch, (text,))]

        return self._file.ask(ask)

    def find(self, text: str, *, limit: int, query: Query | None = None) -> list[Match]:
        """Tasks with all the words of `text`, best first; the last word may be a beginning."""
        words = _words(text)[:_MOST_WORDS]
        if not words:
            raise UsageError("There is no word to look for", hint="opencode-tasks find-task WORD …")
        wanted = " ".join(f'"{w}"' for w in words) + "*"
        where, values = _where(query or Query())
        weights = ", ".join(map(str, _WEIGHTS))
        best = (
            f"select texts.rowid as n, bm25(texts, {weights}) as score from texts join tasks on tasks.n = texts.rowid "
            f"where texts match ? and {where} order by score, n desc limit ?"
        )
        asked = (
            f"select docs.doc, docs.crc, best.score, {', '.join(f'texts.{p}' for p in PARTS)} from ({best}) as best "
            "join docs on docs.n = best.n join texts on texts.rowid = best.n order by best.score, best.n desc"
        )

        def ask(db: sqlite3.Connection) -> list[Match]:
            Rows(self._store, db).refresh_plans()
            rows = db.execute(asked, (wanted, *values, min(limit, _MOST))).fetchall()
            return [_match(task_of(doc, crc), score, parts, words) for doc, crc, score, *parts in rows]

        return self._file.ask(ask)

    def stats(self, query: Query | None = None) -> dict[str, Any]:
        """Sums over the tasks: how many in each status, commands, failures, checkpoints, decisions, ms per status."""
        where, values = _where(query or Query())
        sums = ", ".join(f"coalesce(sum({c}), 0)" for c in _SUMS)
        passed = "coalesce(sum(case when open then max(0, ? - since_ms) end), 0)"
        asked = f"select status, count(*), {sums}, {passed} from tasks where {where} group by status order by 2 desc, 1"
        now_ms = round(time.time() * 1000)
        rows = self._file.ask(lambda db: db.execute(asked, (now_ms, *values)).fetchall())
        made: dict[str, Any] = {"tasks": sum(row[1] for row in rows), "by_status": {row[0]: row[1] for row in rows}}
        made |= {name: sum(row[n] for row in rows) for n, name in enumerate(_SUMS, 2)}
        for status, *_, since in rows:
            if since:
                made[f"{status}_ms"] += since
        return made

    def rebuild(self, progress: Progress = lambda _done, _all: None) -> int:
        """Made anew from every task's files; how many there are."""
        return self._file.rebuild(progress)


def _page(query: Query, by: str, limit: int, after: tuple[str, str] | None) -> tuple[str, list[object]]:
    """One status at a time: of several, SQLite would sort all tasks instead of walking along an index."""
    parts, values = [], []
    for status in query.status or (None,):
        where, given = _where(query if status is None else replace(query, status=(status,)))
        if after is not None:
            where, given = f"{where} and ({by}, id) < (?, ?)", [*given, *after]
        parts.append(
            f"select * from (select {by} as at, id, n from tasks where {where} order by 1 desc, 2 desc limit ?)"
        )
        values += [*given, limit]
    asked = (
        f"select found.at, found.id, docs.doc, docs.crc from ({' union all '.join(parts)}) as found "
        "join docs on docs.n = found.n order by 1 desc, 2 desc limit ?"
    )
    return asked, [*values, limit]


def _cursor(db: sqlite3.Connection, after: str, by: str) -> tuple[str, str]:
    """`after`: what `page` gave, or just the id of a task."""
    when, _, task_id = storable(after).rpartition("/")
    if when:
        return when, task_id
    row = db.execute(f"select {by}, id from tasks where id = ? and {by} is not null", (task_id,)).fetchone()
    if row is None:
        raise UsageError(
            f"There is no task {after}, after which to go on", hint="--cursor takes `next` of the page before"
        )
    return str(row[0]), str(row[1])


def _where(query: Query) -> tuple[str, list[object]]:
    parts: list[str] = ["tasks.deleted = ?", "tasks.at is not null"]
    values: list[object] = [int(query.deleted)]
    for column, several in (("status", query.status), ("id", query.ids)):
        if several:
            parts.append(f"tasks.{column} in ({', '.join('?' * len(several))})")
            values += map(storable, several)
    for column, one in (("owner", query.owner), ("branch", query.branch), ("parent", query.parent)):
        if one is not None:
            parts.append(f"tasks.{column} = ?")
            values.append(storable(one))
    for sign, when in ((">=", query.created_after), ("<", query.created_before)):
        if when is not None:
            parts.append(f"tasks.created_at {sign} ?")
            values.append(when)
    return " and ".join(parts), values


def _words(text: str) -> list[str]:
    """As the index splits texts: letters and digits, without accents. `max_size` is two words that stand together."""
    found = re.findall(r"\w+", _folded(text))
    return [" ".join(_PART.findall(word)) for word in found if _PART.search(word)]


_PART = re.compile(r"[^\W_]+")


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    import unicodedata

    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))
    return plain.lower()


def _match(task: Task, score: float, parts: Sequence[str], words: Sequence[str]) -> Match:
    best = (0, PARTS[0], task.title)
    for part, text in zip(PARTS, parts, strict=True):
        lines = text.splitlines()
        for line, folded in zip(lines, map(_folded, lines), strict=True):
            if any(word in folded for word in words) or " " in "".join(words):
                count = _count(folded, words)
                if count > best[0]:
                    best = (count, part, line.strip())
            if best[0] == len(words):
                return Match(task, best[1], best[2][:200], -score)
    return Match(task, best[1], best[2][:200], -score)


def _count(folded: str, words: Sequence[str]) -> int:
    """How many of the words are in the line; the last may be a beginning."""
    line = f" {' '.join(_PART.findall(folded))} "
    return sum(f" {w} " in line for w in words[:-1]) + (f" {words[-1]}" in line)
