"""List, find and count at any number of tasks without opening their files. SQLite with FTS5.

A projection: delete it and it comes back. Writers never touch it; whoever asks first reads what
the feed tells of.
"""

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from opencode_tasks.errors import UsageError
from opencode_tasks.store.index_file import IndexFile, Progress
from opencode_tasks.store.index_find import Match, Search, words_of
from opencode_tasks.store.index_rows import Rows, task_of
from opencode_tasks.store.index_texts import storable
from opencode_tasks.task import STATUSES, Task
from opencode_tasks.values import replace, value

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store

_SUMS = (
    *("commands", "failures", "command_ms", "checkpoints", "decisions", "pending_ms", "running_ms", "paused_ms"),
    *("cpu_ms", "oom_kills", "held"),
)
_TIMED = ("pending", "running", "paused")
_MOST = 1_000_000
_SHORTEST_BEGINNING = 3


Page = tuple[list[Task], str | None]
"""Tasks, and the cursor of the next page."""


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


class Index:
    def __init__(self, store: "Store") -> None:
        self._store = store
        self._file = IndexFile(store)

    def page(self, query: Query, *, limit: int, after: str | None = None) -> Page:
        """The newest first (`recent`: the last changed first), and from where the next page goes on.

        Tasks that are created meanwhile change no page that follows; nor do those that change, but
        for themselves.
        """
        return self._file.ask(lambda db: _read_page(db, query, limit, after))

    def page_and_damaged(self, query: Query, *, limit: int, after: str | None) -> tuple[Page, dict[str, str]]:
        """Both in one look."""
        return self._file.ask(lambda db: (_read_page(db, query, limit, after), _read_damaged(db)))

    def count(self) -> int:
        """How many tasks it knows, deleted and damaged ones too."""
        return self._file.ask(lambda db: int(db.execute("select count(*) from tasks").fetchone()[0]))

    def damaged(self) -> dict[str, str]:
        """Tasks that could not be read when they changed last, and why."""
        return self._file.ask(_read_damaged)

    def named(self, text: str) -> tuple[list[str], list[str]]:
        """Ids that begin with `text` (at most 50), and those of the tasks whose branch it is, newest first."""
        text = storable(text)
        starting = "select id from tasks where id >= ? and id < ? and +deleted = 0 order by id limit 50"
        of_branch = "select id from tasks where branch = ? and +deleted = 0 order by created_at desc, id desc"

        def ask(db: sqlite3.Connection) -> tuple[list[str], list[str]]:
            found = db.execute(starting, (text, text + "\U0010ffff")).fetchall() if text else []
            return [i for (i,) in found], [i for (i,) in db.execute(of_branch, (text,))]

        return self._file.ask(ask)

    def find(self, text: str, *, limit: int, query: Query | None = None) -> list[Match]:
        """Tasks with all the words of `text`; the last may be a beginning, when it has three letters.

        Best first: those that have them in the title, then in the branch, the decisions, the plan, the
        commands; then the newest. (The usual bm25 reads every task that has any of the words.)
        """
        words, limit = words_of(text), min(limit, _MOST)
        if not words:
            raise UsageError("There is no word to look for", hint="opencode-tasks find-task WORD …")

        def ask(db: sqlite3.Connection) -> list[Match]:
            Rows(self._store, db).refresh_plans()
            search = Search(db, *_where(query or Query()), limit)
            found = search.matches(words, is_beginning=False)
            if len(found) < limit and (len(words[-1]) >= _SHORTEST_BEGINNING or not words[-1].isascii()):
                known = {match.task.id for match in found}
                found += [m for m in search.matches(words, is_beginning=True) if m.task.id not in known]
            return found[:limit]

        return self._file.ask(ask)

    def stats(self, query: Query | None = None) -> dict[str, Any]:
        """Sums over the tasks: how many in each status, commands, failures, checkpoints, decisions, ms per status."""
        where, values = _where(query or Query(), is_scan=True)
        now_ms = round(time.time() * 1000)
        # One pass, and no grouping, for which SQLite would sort them all.
        counts = ", ".join(f"sum(status = '{s}')" for s in STATUSES)
        since = ", ".join(f"sum((status = '{s}') * max(0, {now_ms} - since_ms))" for s in _TIMED)
        sums = ", ".join(f"sum({c})" for c in _SUMS)
        asked = f"select {counts}, {since}, max(memory_bytes), {sums} from tasks where {where}"
        row = [n or 0 for n in self._file.ask(lambda db: db.execute(asked, values).fetchone())]
        by_status = {s: n for s, n in zip(STATUSES, row, strict=False) if n}
        made: dict[str, Any] = {"tasks": sum(by_status.values()), "by_status": by_status}
        made |= dict(zip(_SUMS, row[-len(_SUMS) :], strict=True)) | {"memory_bytes": row[-len(_SUMS) - 1]}
        for status, passed_ms in zip(_TIMED, row[len(STATUSES) :], strict=False):
            made[f"{status}_ms"] += passed_ms  # in the status that it is in now
        return made

    def rebuild(self, progress: Progress = lambda _done, _all: None) -> int:
        """Made anew from every task's files; how many there are."""
        return self._file.rebuild(progress)


def _read_page(db: sqlite3.Connection, query: Query, limit: int, after: str | None) -> Page:
    by, limit = "updated_at" if query.recent else "created_at", min(limit, _MOST)
    asked, values = _page(query, by, limit + 1, None if after is None else _cursor(db, after, by))
    rows = db.execute(asked, values).fetchall()
    following = "/".join(rows[limit - 1][:2]) if len(rows) > limit > 0 else None
    return [task_of(doc, crc) for _, _, doc, crc in rows[:limit]], following


def _read_damaged(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("select id, damage from tasks where damage is not null order by id"))


def _page(query: Query, by: str, limit: int, after: tuple[str, str] | None) -> tuple[str, list[object]]:
    """One status at a time: of several, SQLite would sort all tasks instead of walking along an index."""
    parts, values = [], []
    for status in query.status or (STATUSES if query.owner is not None else (None,)):
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


def _where(query: Query, *, is_scan: bool = False) -> tuple[str, list[object]]:
    """`+` keeps SQLite from an index that it takes for a good one: most tasks are not deleted."""
    is_scan = is_scan or any((query.ids, query.branch is not None, query.parent is not None))
    mark = "+" if is_scan else ""
    parts: list[str] = [f"{mark}tasks.deleted = ?", "+tasks.status is not null"]
    values: list[object] = [int(query.deleted)]
    for column, several in ((f"{mark}tasks.status", query.status), ("tasks.id", query.ids)):
        if several:
            parts.append(f"{column} in ({', '.join('?' * len(several))})")
            values += map(storable, several)
    for column, one in (
        (f"{mark}tasks.owner", query.owner),
        ("tasks.branch", query.branch),
        ("tasks.parent", query.parent),
    ):
        if one is not None:
            parts.append(f"{column} = ?")
            values.append(storable(one))
    for sign, when in ((">=", query.created_after), ("<", query.created_before)):
        if when is not None:
            parts.append(f"tasks.created_at {sign} ?")
            values.append(storable(when))
    return " and ".join(parts), values
