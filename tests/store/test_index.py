"""What the index answers: the same as all tasks, one by one, would."""

import sqlite3
from collections.abc import Callable

import pytest

from opencode_tasks.errors import UsageError
from opencode_tasks.store import Store, index
from opencode_tasks.store.index import Query
from opencode_tasks.task import STATUSES, Task
from tests.store.conftest import ID, new

_STEPS = {
    "pending": [],
    "running": ["running"],
    "paused": ["running", "paused"],
    "completed": ["running", "completed"],
    "failed": ["running", "failed"],
    "cancelled": ["cancelled"],
}


@pytest.fixture
def tasks(store: Store) -> list[Task]:
    """One in every status, of two owners, some of them children, two on one branch, one deleted."""
    for n, status in enumerate([*STATUSES, *STATUSES]):
        owner = ("ana", "bob", None)[n % 3]
        parent = "task-000000" if n in (3, 4, 7) else None
        branch = f"task/{n % 11}"
        store.create(new(f"task-{n:06d}", title=f"Task {n}", branch=branch, owner=owner, parent=parent), actor="test")
        for to in _STEPS[status]:
            store.ensure_status(f"task-{n:06d}", to, reason="x", actor="test")  # type: ignore[arg-type]
    store.delete("task-000011", reason="x", actor="test")
    return sorted((store.get(i) for i in store.ids()), key=lambda t: (t.created_at, t.id), reverse=True)


def _ids(found: list[Task]) -> list[str]:
    return [task.id for task in found]


_ALL = Query()
_FILTERS: list[tuple[Query, Callable[[Task], bool]]] = [
    (_ALL, lambda t: t.deleted_at is None),
    (Query(deleted=True), lambda t: t.deleted_at is not None),
    *((Query(status=(s,)), lambda t, s=s: t.deleted_at is None and t.status == s) for s in STATUSES),
    (Query(status=("running", "failed")), lambda t: t.deleted_at is None and t.status in ("running", "failed")),
    (Query(owner="ana"), lambda t: t.deleted_at is None and t.owner == "ana"),
    (Query(owner="ana", status=("paused",)), lambda t: t.owner == "ana" and t.status == "paused"),
    (Query(owner="bob", deleted=True), lambda t: t.owner == "bob" and t.deleted_at is not None),
    (Query(branch="task/0"), lambda t: t.deleted_at is None and t.branch == "task/0"),
    (Query(branch="task"), lambda t: t.branch == "task"),
    (Query(parent="task-000000"), lambda t: t.deleted_at is None and t.parent == "task-000000"),
    (Query(parent="task-000000", status=("completed",)), lambda t: t.parent is not None and t.status == "completed"),
    (Query(ids=("task-000001", "task-000009", "absent-000000")), lambda t: t.id in ("task-000001", "task-000009")),
]


@pytest.mark.parametrize(("query", "is_wanted"), _FILTERS)
@pytest.mark.parametrize("recent", [False, True])
def test_a_filter_finds_what_it_should(
    store: Store, tasks: list[Task], query: Query, is_wanted: Callable[[Task], bool], recent: bool
) -> None:
    if recent:
        query = Query(**{**vars(query), "recent": True})
        tasks = sorted(tasks, key=lambda t: (t.updated_at, t.id), reverse=True)
    wanted = [task for task in tasks if is_wanted(task)]
    assert store.index.page(query, limit=50) == (wanted, None)
    paged, cursor = [], None
    for _ in range(20):
        found, cursor = store.index.page(query, limit=2, after=cursor)
        paged += found
        assert len(found) == 2 or cursor is None
        if cursor is None:
            break
    assert paged == wanted


def test_times(store: Store, tasks: list[Task]) -> None:
    at = tasks[5].created_at
    alive = [t for t in tasks if t.deleted_at is None]
    before, _ = store.index.page(Query(created_before=at), limit=50)
    after, _ = store.index.page(Query(created_after=at), limit=50)
    assert before == [t for t in alive if t.created_at < at]
    assert after == [t for t in alive if t.created_at >= at]


@pytest.mark.parametrize("recent", [False, True])
def test_pages_are_stable_while_tasks_are_created_and_change(store: Store, tasks: list[Task], recent: bool) -> None:
    query = Query(recent=recent)
    wanted, _ = store.index.page(query, limit=50)
    paged, cursor, n = [], None, 0
    while True:
        found, cursor = store.index.page(query, limit=3, after=cursor)
        paged += _ids(found)
        if cursor is None:
            break
        n += 1
        store.create(new(f"late-00000{n}"), actor="test")
        store.update(found[-1].id, {"title": "changed"}, actor="test")
    assert paged == _ids(wanted), "every task once, in the order it had; those that came late are on the first page"


def test_a_page_goes_on_after_a_task_that_is_gone(store: Store, tasks: list[Task]) -> None:
    first, cursor = store.index.page(_ALL, limit=4)
    store.delete(first[-1].id, reason="x", actor="test")
    rest, _ = store.index.page(_ALL, limit=50, after=cursor)
    assert [*first, *rest] == [t for t in tasks if t.deleted_at is None]


def test_a_cursor_may_be_an_id(store: Store, tasks: list[Task]) -> None:
    alive = [t for t in tasks if t.deleted_at is None]
    assert store.index.page(_ALL, limit=50, after=alive[3].id)[0] == alive[4:]
    for absent in ("absent-000000", "", "x' or 1=1", "\udcff"):
        with pytest.raises(UsageError, match="after which to go on"):
            store.index.page(_ALL, limit=5, after=absent)
    assert store.index.page(_ALL, limit=10**30, after=None)[0] == alive


def test_an_empty_store(store: Store) -> None:
    assert store.index.page(_ALL, limit=5) == ([], None)
    assert store.index.named("x") == ([], [])
    assert store.index.find("x", limit=5) == []
    assert store.index.damaged() == {}
    assert store.index.count() == 0
    assert store.index.stats()["tasks"] == 0


def test_named(store: Store, tasks: list[Task]) -> None:
    alive = sorted(t.id for t in tasks if t.deleted_at is None)
    assert store.index.named("task-")[0] == alive
    assert store.index.named("task-000004") == (["task-000004"], [])
    assert store.index.named("") == ([], [])
    assert store.index.named("task/0") == ([], ["task-000000"])
    store.create(new("again-000000", branch="task/0"), actor="test")
    assert store.index.named("task/0")[1] == ["again-000000", "task-000000"], "the newest first"
    for odd in ("task%", "task_000001", "'", "\0", "\udcff", "\U0010ffff"):
        assert store.index.named(odd) == ([], [])


def _direct(tasks: list[Task], now_ms: int) -> dict[str, object]:
    made: dict[str, object] = {
        "tasks": len(tasks),
        "by_status": {s: n for s in STATUSES if (n := sum(t.status == s for t in tasks))},
        "commands": sum(t.commands.count for t in tasks),
        "failures": sum(t.commands.failures for t in tasks),
        "command_ms": sum(t.commands.duration_ms for t in tasks),
        "checkpoints": sum(t.checkpoints.count for t in tasks),
        "decisions": sum(t.decisions.count for t in tasks),
        "cpu_ms": sum(t.use.cpu_ms for t in tasks),
        "memory_bytes": max((t.use.memory_bytes for t in tasks), default=0),
        "oom_kills": sum(t.use.oom_kills for t in tasks),
        "held": sum(t.use.memory_held + t.use.disk_held for t in tasks),
    }
    for status in ("pending", "running", "paused"):
        passed = [now_ms - index_ms(t.status_since) for t in tasks if t.status == status]
        made[f"{status}_ms"] = sum(getattr(t.spent, status) for t in tasks) + sum(max(0, ms) for ms in passed)
    return made


def index_ms(ts: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(ts).timestamp() * 1000)


@pytest.mark.parametrize("clock_ms", [1_000_000, -1_000_000_000])
def test_stats_are_the_sums(store: Store, tasks: list[Task], monkeypatch: pytest.MonkeyPatch, clock_ms: int) -> None:
    """Also after the clock was set back."""
    for n in range(4):
        run = {"run": f"r{n}", "argv": ["make"], "cwd": "/"}
        done = {"run": f"r{n}", "exit_code": n % 2, "duration_ms": 10 + n, "output_tail": "", "signals": []}
        done["use"] = {"memory": 100 * n, "cpu_ms": 7, "oom_kills": n // 3}
        store.record(f"task-00000{n}", ("command.started", run), ("command.finished", done), actor="test")
        reached = {"kind": ("memory", "disk")[n % 2], "used_bytes": 1, "limit_bytes": 2}
        store.record(f"task-00000{n}", ("limit.reached", reached), actor="test")
        store.decide(f"task-00000{n}", "x", actor="test")
    now_s = index_ms(tasks[0].updated_at) / 1000 + clock_ms / 1000
    monkeypatch.setattr("opencode_tasks.store.index.time.time", lambda: now_s)
    all_tasks = [store.get(i) for i in store.ids()]
    alive = [t for t in all_tasks if t.deleted_at is None]
    assert store.index.stats() == _direct(alive, round(now_s * 1000))
    of_ana = [t for t in alive if t.owner == "ana"]
    assert store.index.stats(Query(owner="ana")) == _direct(of_ana, round(now_s * 1000))
    one = [t for t in all_tasks if t.id == "task-000011"]
    assert store.index.stats(Query(ids=("task-000011",), deleted=True)) == _direct(one, round(now_s * 1000))


_ODD = "caf\udce9 \0 \ud800 '\"%_ \N{PILE OF POO}"


def test_odd_names_come_back_as_they_are(store: Store) -> None:
    made = store.create(new(title=_ODD, branch=f"task/{_ODD}", owner=_ODD), actor=_ODD)
    store.record(ID, ("command.started", {"run": "r", "argv": ["cat", _ODD, 3], "cwd": "/"}), actor="test")
    store.decide(ID, f"decided {_ODD}", actor="test")
    for query in (_ALL, Query(owner=_ODD), Query(branch=made.branch)):
        assert store.index.page(query, limit=5)[0] == [store.get(ID)]
    assert store.index.named(made.branch)[1] == [ID]
    assert [m.task.title for m in store.index.find("decided caf", limit=5)] == [_ODD]
    assert store.index.damaged() == {}
    store.index.rebuild()
    assert store.index.page(Query(owner=_ODD), limit=5)[0] == [store.get(ID)]


_FAST = [
    *(q for q, _ in _FILTERS),
    Query(recent=True),
    Query(status=("pending", "running", "paused"), recent=True),
    Query(owner="ana", recent=True),
    Query(created_after="2026"),
]


@pytest.mark.parametrize("query", _FAST)
@pytest.mark.parametrize("after", [None, ("2026", "x")])
def test_a_page_never_reads_all_tasks(store: Store, query: Query, after: tuple[str, str] | None) -> None:
    """SQLite walks along an index, and sorts nothing but what it found."""
    asked, values = index._page(query, "updated_at" if query.recent else "created_at", 50, after)

    def explain(db: sqlite3.Connection) -> list[str]:
        return [row[3] for row in db.execute(f"explain query plan {asked}", values)]

    plan = store.index._file.ask(explain)
    reads = [step for step in plan if "tasks" in step]
    assert reads
    assert all("SEARCH tasks USING" in step for step in reads), plan
