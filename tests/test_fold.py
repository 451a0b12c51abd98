"""What each event means, and that every machine comes to the same task."""

from typing import Any

import pytest

from opencode_tasks import fold
from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, CorruptError, Event, dumps
from opencode_tasks.task import STATUSES, TRANSITIONS, Commands, Conflict, Container, Spent, Tally, Task
from opencode_tasks.values import replace

_ID = "fix-7k3q9m"
_CREATED: dict[str, Any] = {
    "id": _ID,
    "title": "Fix",
    "branch": "task/fix",
    "base": {"branch": "main", "commit": "a" * 40},
    "workspace": {"kind": "in-place", "path": "/src/repo"},
    "image": None,
    "owner": "me",
}
Said = tuple[str, dict[str, Any]]


def event(type_: str, data: dict[str, Any], n: int = 1, *, w: str = "aaaa-host", seq: int = 0, ts: str = "") -> Event:
    """The `n`th event: its Lamport time, and its second."""
    at = ts or f"2026-01-01T00:00:{n:02d}.000Z"
    return Event(w, seq or n, n, at, "user:me", 0, type_, dumps(data).encode(), GENESIS, f"{w}{n}{type_}{dumps(data)}")


def folded(*rest: Said) -> Task:
    """One writer's task."""
    return fold.fold([event("task.created", _CREATED), *(event(t, d, n) for n, (t, d) in enumerate(rest, 2))])


def merged(*rest: tuple[int, str, str, dict[str, Any]]) -> Task:
    """Several writers': Lamport time, writer, type, data. Whatever the order, it is the same task."""
    seqs: dict[str, int] = {}
    made = [event("task.created", _CREATED, w="aaaa-host")]
    for lam, w, type_, data in rest:
        seqs[w] = seqs.get(w, 1) + 1
        made.append(event(type_, data, lam, w=w, seq=seqs[w]))
    task = fold.fold(made)
    assert fold.fold([*made[::-1], *made]) == task
    return task


def _status(before: str, to: str) -> Said:
    return "status.changed", {"from": before, "to": to, "reason": "x"}


def _updated(**changes: tuple[object, object]) -> Said:
    return "task.updated", {"changes": {name: list(change) for name, change in changes.items()}}


def test_a_created_task_is_pending_and_has_what_it_was_given() -> None:
    task = folded()
    assert (task.id, task.status, task.rev, task.branch, task.owner) == (_ID, "pending", 1, "task/fix", "me")
    assert task.created_at == task.updated_at == task.status_since == "2026-01-01T00:00:01.000Z"
    rest = {"parent": "up-000000", "depends_on": ["one-000000"], "image": "python"}
    more = fold.fold([event("task.created", {**_CREATED, **rest})])
    assert (more.parent, more.depends_on, more.image) == ("up-000000", ("one-000000",), "python")


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ([_status("pending", "running")], "status", "running"),
        ([_updated(title=("Fix", "Mend"))], "title", "Mend"),
        ([_updated(owner=("me", None))], "owner", None),
        ([_updated(image=(None, "node"))], "image", "node"),
        ([_updated(parent=(None, "up-000000"))], "parent", "up-000000"),
        ([_updated(depends_on=([], ["a-000000", "b-000000"]))], "depends_on", ("a-000000", "b-000000")),
        ([_updated(colour=("red", "blue"))], "title", "Fix"),
        ([("branch.renamed", {"from": "task/fix", "to": "task/mend"})], "branch", "task/mend"),
        ([("child.added", {"id": "c-000000"})] * 2, "children", ("c-000000",)),
        ([("container.changed", {"state": "running", "id": "c1"})], "container", Container("running", "c1")),
        (
            [("container.changed", {"state": "running", "engine": "e"}), ("container.failed", {"message": "gone"})],
            "container",
            Container("running", engine="e", error="gone"),
        ),
        (
            [("container.failed", {"message": "gone"}), ("container.changed", {"state": "created"})],
            "container",
            Container("created"),
        ),
        ([("checkpoint.created", {"id": str(n)}) for n in (1, 2)], "checkpoints", Tally(2, "2")),
        ([("commit.recorded", {"sha": "b" * 40})], "commits", Tally(1, "b" * 40)),
        ([("decision.added", {"id": "d1"})], "decisions", Tally(1, "d1")),
        ([("decision.added", {"id": "d1"}), ("decision.edited", {"id": "d1"})], "decisions", Tally(1, "d1")),
        ([("decision.added", {"id": "d1"}), ("decision.removed", {"id": "d1"})], "decisions", Tally(0, "d1")),
        ([("decision.removed", {"id": "d0"})], "decisions", Tally(0, None)),
        ([(f"decision.{done}", {"id": "d1"}) for done in ("added", "edited", "removed")], "decision_events", 3),
        ([("command.started", {})], "commands", Commands(1)),
        ([("command.finished", {"exit_code": 0, "duration_ms": 7})], "commands", Commands(0, 0, 7)),
        ([("command.finished", {"exit_code": 2, "duration_ms": 7})] * 2, "commands", Commands(0, 2, 14)),
        ([("command.finished", {"exit_code": None, "duration_ms": 0})], "commands", Commands(0, 1, 0)),
        ([("log.repaired", {"lost": "records 3 to 4 of x"})], "degraded", ("records 3 to 4 of x",)),
        ([("log.repaired", {"lost": ""})], "degraded", ()),
        ([("task.deleted", {"reason": "x"})] * 2, "deleted_at", "2026-01-01T00:00:02.000Z"),
    ],
)
def test_what_events_mean(said: list[Said], field: str, value: object) -> None:
    task = folded(*said)
    assert getattr(task, field) == value
    assert (task.rev, task.updated_at) == (1 + len(said), f"2026-01-01T00:00:{1 + len(said):02d}.000Z")
    assert task.conflicts == ()


def test_a_workspace_that_moved_and_what_a_newer_version_adds_to_it() -> None:
    task = folded(("workspace.moved", {"workspace": {"kind": "worktree", "path": "/elsewhere", "disk": 1}}))
    assert (task.workspace.kind, task.workspace.path) == ("worktree", "/elsewhere")


def test_an_unknown_type_is_a_revision_and_nothing_else() -> None:
    before, after = folded(), folded(("from.the.future", {"anything": [1]}))
    assert after == replace(before, rev=2, updated_at=after.updated_at)


def test_step_by_step_is_the_same_as_at_once() -> None:
    said = [
        _status("pending", "running"),
        ("command.started", {}),
        ("from.the.future", {}),
        _updated(title=("Fix", "x")),
    ]
    task = folded()
    for n, (type_, data) in enumerate(said, 2):
        task = fold.apply(task, event(type_, data, n))
    assert task == folded(*said)


@pytest.mark.parametrize("events", [[], [event("status.changed", {"from": "pending", "to": "running"})]])
def test_a_log_that_does_not_begin_with_the_creation_is_corrupt(events: list[Event]) -> None:
    with pytest.raises(CorruptError):
        fold.fold(events)


@pytest.mark.parametrize(
    "said",
    [
        ("status.changed", {"to": "running"}),
        ("status.changed", {"from": "pending"}),
        _status("pending", "exploded"),
        ("checkpoint.created", {}),
        ("command.finished", {"exit_code": 0}),
        ("command.finished", {"exit_code": 0, "duration_ms": float("inf")}),
        ("task.updated", {"changes": {"title": ["one"]}}),
        ("task.updated", {"changes": ["title"]}),
        ("workspace.moved", {"workspace": None}),
        ("workspace.moved", {"workspace": {"kind": "worktree"}}),
        ("lease.taken", {"agent": "a"}),
        ("lease.taken", {"agent": "a", "mode": "exclusive", "epoch": "1", "ttl_s": 3, "host": "h"}),
        ("lease.released", {"agent": "a"}),
        ("log.repaired", {}),
        ("task.restored", {"status": "running"}),
    ],
)
def test_an_event_that_lacks_what_its_type_says_is_corrupt(said: Said) -> None:
    with pytest.raises(CorruptError, match=r"Record 2 of aaaa-host"):
        folded(said)


def test_a_record_that_is_there_twice_counts_once_and_two_that_differ_are_corrupt() -> None:
    first, second = event("task.created", _CREATED), event("commit.recorded", {"sha": "b"}, 2)
    assert fold.fold([second, first, second, first]).commits == Tally(1, "b")
    with pytest.raises(CorruptError, match="two records 2 of aaaa-host"):
        fold.fold([first, second, event("commit.recorded", {"sha": "c"}, 2)])


@pytest.mark.parametrize(
    ("seconds", "spent"),
    [
        ([2, 5, 9], Spent(1000, 3000, 4000)),
        ([2, 5, 3], Spent(1000, 3000, 0)),  # the clock was set back
        ([0, 1, 1], Spent(0, 1000, 0)),
        ([59, 0, 1], Spent(58000, 0, 1000)),
    ],
)
def test_time_spent_is_never_negative(seconds: list[int], spent: Spent) -> None:
    path = ("pending", "running", "paused", "completed")
    made = [event("task.created", _CREATED)]
    for n, second in enumerate(seconds, 2):
        type_, data = _status(path[n - 2], path[n - 1])
        made.append(event(type_, data, n, ts=f"2026-01-01T00:00:{second:02d}.000Z"))
    task = fold.fold(made)
    assert (task.spent, task.status) == (spent, "completed")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_time_without_its_zone_is_the_same_everywhere(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        type_, data = _status("pending", "running")
        task = fold.fold([event("task.created", _CREATED), event(type_, data, 2, ts="2026-01-01T00:00:04")])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert task.spent.pending == 3000


@pytest.mark.parametrize(
    ("first", "second", "field", "kept", "lost"),
    [
        (_updated(title=("Fix", "A")), _updated(title=("Fix", "B")), "title", "B", "A"),
        (_updated(depends_on=([], ["a-1"])), _updated(depends_on=([], ["b-1"])), "depends_on", ["b-1"], ["a-1"]),
        (
            ("branch.renamed", {"from": "task/fix", "to": "x"}),
            ("branch.renamed", {"from": "task/fix", "to": "y"}),
            "branch",
            "y",
            "x",
        ),
        (_status("pending", "running"), _status("pending", "cancelled"), "status", "cancelled", "running"),
        # What is closed stays closed.
        (_status("pending", "cancelled"), _status("pending", "running"), "status", "cancelled", "running"),
        (_updated(title=("Fix", "A")), _updated(title=("Fix", "A")), "title", "A", None),
        (_updated(title=("Fix", "A")), _updated(owner=("me", "you")), "title", "A", None),
    ],
)
def test_two_writers_that_began_with_the_same_value(
    first: Said, second: Said, field: str, kept: object, lost: object
) -> None:
    task = merged((2, "aaaa-host", *first), (2, "bbbb-host", *second))
    assert getattr(task, field) == (tuple(kept) if isinstance(kept, list) else kept)
    told = [] if lost is None else [Conflict(field, kept, lost, "2026-01-01T00:00:02.000Z", "bbbb-host")]
    assert list(task.conflicts) == told


@pytest.mark.parametrize("closed", [s for s in STATUSES if not TRANSITIONS[s]])
@pytest.mark.parametrize("to", STATUSES)
def test_nothing_opens_a_closed_task(closed: str, to: str) -> None:
    said = [_status("pending", "running"), _status("running", closed), _status(closed, to)]
    task = folded(*said)
    assert task.status == closed
    assert [(c.kept, c.lost) for c in task.conflicts] == ([] if to == closed else [(closed, to)])


@pytest.mark.parametrize("closed", [s for s in STATUSES if not TRANSITIONS[s]])
def test_only_what_a_cleanup_cancelled_is_brought_back(closed: str) -> None:
    said: list[Said] = [_status("pending", "running"), _status("running", closed)]
    task = folded(*said, ("task.restored", {"branch": "b", "tip": None, "status": "paused"}))
    assert task.status == ("paused" if closed == "cancelled" else closed)
    assert task.conflicts == ()
    closed_before = folded(*said, ("task.restored", {"branch": "b", "tip": None, "status": None}))
    assert closed_before.status == closed


def test_what_was_paused_here_and_finished_there_is_finished() -> None:
    task = merged(
        (2, "aaaa-host", *_status("pending", "running")),
        (3, "aaaa-host", *_status("running", "paused")),
        (3, "bbbb-host", *_status("running", "completed")),
        (4, "aaaa-host", *_status("paused", "running")),
    )
    assert task.status == "completed"
    assert [(c.kept, c.lost) for c in task.conflicts] == [("completed", "paused"), ("completed", "running")]


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        ([_status("pending", "running")], None),
        ([_status("pending", "running"), _status("running", "completed")], None),
        ([_status("", "running"), ("note.added", {}), _status("", "paused"), _status("", "running")], None),
        ([_status("pending", "completed")], "transition"),
        ([_status("pending", "running")] * 2, "transition"),
        ([_status("pending", "cancelled"), _status("cancelled", "running")], "transition"),
        ([_status("pending", "exploded")], "transition"),
        ([("task.deleted", {})], None),
        ([("task.deleted", {}), ("note.added", {})], "deleted"),
    ],
)
def test_a_batch_is_checked_step_by_step(batch: list[Said], code: str | None) -> None:
    if code is None:
        fold.check(folded(), batch)
        return
    with pytest.raises(TaskError) as refused:
        fold.check(folded(), batch)
    assert refused.value.code == code


def test_a_deleted_task_takes_nothing_more_and_nobody_holds_it() -> None:
    lease = {"agent": "a", "mode": "exclusive", "epoch": 1, "ttl_s": 300, "host": "here"}
    task = folded(("lease.taken", lease), ("task.deleted", {"reason": "x"}))
    assert (task.leases, task.is_open) == ((), False)
    with pytest.raises(TaskError, match="was deleted at 2026-01-01T00:00:03"):
        fold.check(task, [("note.added", {})])


def test_an_update_says_what_it_changes_from() -> None:
    made = fold.update(folded(), {"title": "Mend", "depends_on": ["one-000000"]})
    assert made == ("task.updated", {"changes": {"title": ["Fix", "Mend"], "depends_on": [[], ["one-000000"]]}})
    task = folded(made)
    assert (task.title, task.depends_on, task.conflicts) == ("Mend", ("one-000000",), ())


@pytest.mark.parametrize("field", ["status", "rev", "branch", "leases", "colour", ""])
def test_other_fields_are_not_updated(field: str) -> None:
    with pytest.raises(TaskError) as refused:
        fold.update(folded(), {"title": "x", field: "y"})
    assert refused.value.code == "usage"
    assert "title" in refused.value.hint
