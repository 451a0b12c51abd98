"""Who gets a lease and who keeps it: by proof of life on this machine, by time elsewhere."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store import Store, leases, log
from opencode_tasks.store.leases import GRACE_S, FencedError, Life, Process
from opencode_tasks.task import Base, Lease, Mode, Task, Workspace
from opencode_tasks.values import replace
from tests.store.conftest import ID

_HERE = leases.this_machine()
_ME = leases.process(os.getpid())
_OTHER = Process("elsewhere", "other-boot", 7, "5@pid:[1]")
_NOW_S = 1_000_000.0


def _lease(agent: str, mode: Mode = "exclusive", epoch: int = 1, who: Process = _OTHER, ttl_s: int = 60) -> Lease:
    return Lease(agent, mode, epoch, ttl_s, "2026-01-01T00:00:00.000Z", **vars(who))


def _task(*held: Lease, epoch: int = 1) -> Task:
    base, workspace, ts = Base("main", "a" * 40), Workspace("in-place", "/src"), "2026-01-01T00:00:00.000Z"
    return Task(ID, "Fix", "task/fix", base, "running", workspace, ts, ts, 3, leases=held, epoch=epoch)


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that was."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize(
    ("fields", "ago_s", "expected"),
    [
        ({}, 10**9, "alive"),
        ({"pid_start": "1@" + (_ME.pid_start or "").partition("@")[2]}, 0, "dead"),
        ({"pid": -1}, 0, "dead"),
        ({"host": "renamed-by-dhcp"}, 10**9, "alive"),
        ({"boot_id": "before"}, 0, "dead"),
        ({"boot_id": "before", "host": "elsewhere"}, 0, "fresh"),
        # What cannot be proved is left to time.
        ({"pid_start": "1@pid:[1]"}, 0, "fresh"),
        ({"pid_start": "1@pid:[1]"}, 10**9, "expired"),
        ({"pid_start": None}, 10**9, "expired"),
        ({"pid": None, "pid_start": None}, 0, "fresh"),
        ({"boot_id": None}, 0, "fresh"),
        ({"boot_id": None}, 59 + GRACE_S, "fresh"),
        ({"boot_id": None}, 60 + GRACE_S, "expired"),
    ],
)
def test_whether_a_holder_lives(fields: dict[str, Any], ago_s: int, expected: Life, gone: int) -> None:
    lease = replace(_lease("x", who=_ME), **fields)
    if lease.pid == -1:
        lease = replace(lease, pid=gone)
    assert leases.life(lease, _NOW_S - ago_s, _HERE, _NOW_S) == expected


def test_without_a_name_of_the_boot_only_time_tells() -> None:
    lease, here = _lease("x", who=_ME), replace(_HERE, boot_id=None)
    assert [leases.life(lease, at_s, here, _NOW_S) for at_s in (_NOW_S, 0)] == ["fresh", "expired"]


_X, _Y = _lease("x"), _lease("y", epoch=2)
_XC, _YC = _lease("x", "collaborative"), _lease("y", "collaborative")
_MINE = _lease("x", who=_ME)


@pytest.mark.parametrize(
    ("held", "wanted", "lives", "take_over", "expected"),
    [
        ([], "x exclusive", "", False, (2, [])),
        ([], "x collaborative", "", False, (1, [])),
        # The same process again, in the same mode or the other.
        ([_MINE], "x exclusive", "alive", False, _MINE),
        ([_MINE], "x collaborative", "alive", False, (1, [])),
        ([replace(_MINE, mode="collaborative")], "x exclusive", "alive", False, (2, [])),
        ([replace(_MINE, mode="collaborative"), _YC], "x exclusive", "alive dead", False, (2, ["y"])),
        ([replace(_MINE, mode="collaborative"), _YC], "x exclusive", "alive fresh", False, "y"),
        # Its name is not enough.
        ([_X], "x exclusive", "alive", False, "x"),
        ([_X], "x exclusive", "dead", False, (2, ["x"])),
        ([_XC], "x collaborative", "fresh", False, "x"),
        ([_XC], "x collaborative", "expired", False, (2, ["x"])),
        ([replace(_MINE, host="elsewhere")], "x exclusive", "fresh", False, "x"),
        # Others.
        ([_Y], "x exclusive", "alive", False, "y"),
        ([_Y], "x exclusive", "fresh", False, "y"),
        ([_Y], "x exclusive", "alive", True, (2, ["y"])),
        ([_Y], "x exclusive", "expired", False, (2, ["y"])),
        ([_Y], "x collaborative", "fresh", False, "y"),
        ([_Y], "x collaborative", "dead", False, (2, ["y"])),
        ([_YC], "x collaborative", "alive", False, (1, [])),
        ([_YC], "x collaborative", "dead", False, (1, [])),
        ([_YC], "x exclusive", "alive", False, "y"),
        ([_YC, _XC], "z exclusive", "dead alive", False, "x"),
        ([_YC, _XC], "z exclusive", "dead alive", True, (2, ["y", "x"])),
    ],
)
def test_who_gets_a_lease(held: list[Lease], wanted: str, lives: str, take_over: bool, expected: object) -> None:
    agent, _, kind = wanted.partition(" ")
    mode: Mode = "exclusive" if kind == "exclusive" else "collaborative"
    known: dict[str, Any] = dict(zip([h.agent for h in held], lives.split(), strict=True))

    def made() -> object:
        return leases.decide(_task(*held), agent, mode, 60, _ME, known, take_over=take_over)

    if isinstance(expected, str):
        with pytest.raises(ConflictError) as refused:
            made()
        assert refused.value.code == "held"
        assert f"is held by agent {expected} (" in refused.value.message
        assert f"detach {ID} --agent {expected}" in refused.value.hint
    elif isinstance(expected, tuple):
        data = {"agent": agent, "mode": mode, "epoch": expected[0], "ttl_s": 60, **vars(_ME), "took_over": expected[1]}
        assert made() == ("lease.taken", data)
    else:
        assert made() is expected


@pytest.mark.parametrize(
    "now",
    [[], [_Y], [replace(_X, epoch=2)], [replace(_X, agent="z"), _Y], [replace(_X, since="2026-01-02T00:00:00.000Z")]],
)
def test_a_lease_that_is_not_held_any_more_is_refused_with_the_name_of_who_has_it(now: list[Lease]) -> None:
    leases.require_held(_task(_X, _Y), _X)
    with pytest.raises(FencedError) as refused:
        leases.require_held(_task(*now), _X)
    assert refused.value.code == "fenced"
    assert (now[0].agent if now else "nobody") in refused.value.message.partition("now it is held by")[2]
    assert "task-history" in refused.value.hint


def test_a_process_is_known_again_until_it_ends() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        first = leases.started(child.pid)
        assert first is not None
        assert leases.started(child.pid) == first != leases.started(os.getpid())
    finally:
        child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert leases.started(child.pid) is None, "ended, though nobody has asked how"
    child.wait()
    assert leases.started(child.pid) is None


def test_the_same_process_attaches_again_and_has_the_same_lease(store: Store, task: Task) -> None:
    first = store.attach(ID, "x", actor="test", pid=os.getpid())
    assert store.attach(ID, "x", actor="test", pid=os.getpid()) == first
    assert Store(store.layout.common_dir).attach(ID, "x", actor="test", pid=os.getpid()) == first
    assert store.get(ID).rev == 2
    other_mode = store.attach(ID, "x", actor="test", pid=os.getpid(), mode="collaborative")
    assert (store.get(ID).leases, store.get(ID).conflicts) == ((other_mode,), ())


def test_detach_is_idempotent_and_ends_no_later_lease(store: Store, task: Task) -> None:
    lease = store.attach(ID, "x", actor="test")
    done = store.detach(ID, "x", actor="test", reason="enough")
    assert (done.leases, done.epoch, done.rev) == ((), 1, 3)
    assert store.detach(ID, "x", actor="test") == done
    assert store.detach(ID, "unheard-of", actor="test") == done
    again = store.attach(ID, "x", actor="test")
    assert again.epoch == 2
    assert store.detach(ID, "x", actor="test", epoch=lease.epoch).leases == (again,)
    assert store.detach(ID, "x", actor="test").leases == ()


def test_who_was_detached_is_fenced_also_when_the_name_and_the_epoch_come_again(store: Store, task: Task) -> None:
    first = store.attach(ID, "x", actor="test", mode="collaborative", pid=os.getpid())
    store.detach(ID, "x", actor="user")
    while log.now() == first.since:
        pass  # what tells the two apart is when they were taken, in ms
    second = store.attach(ID, "x", actor="test", mode="collaborative", pid=os.getppid())
    assert (first.agent, first.epoch) == (second.agent, second.epoch)
    with pytest.raises(FencedError):
        store.record(ID, ("note.added", {}), actor="test", lease=first)
    assert store.record(ID, ("note.added", {}), actor="test", lease=second).rev == 5


def test_nobody_attaches_to_a_task_that_is_over(store: Store, task: Task) -> None:
    store.ensure_status(ID, "cancelled", reason="x", actor="test")
    with pytest.raises(TaskError) as refused:
        store.attach(ID, "x", actor="test")
    assert refused.value.code == "not_running"


def _elsewhere(store: Store, agent: str, mode: Mode = "exclusive", ttl_s: int = 60) -> Lease:
    """As it comes from another clone, on another machine."""
    data = {"agent": agent, "mode": mode, "epoch": 1, "ttl_s": ttl_s, **vars(_OTHER), "took_over": []}
    return store.record(ID, ("lease.taken", data), actor="test").leases[-1]


def _notes(store: Store) -> dict[str, float]:
    found: dict[str, float] = json.loads(store.layout.lease(ID).read_bytes())
    return found


def test_a_holder_on_another_machine_has_the_time_of_its_lease_from_when_it_is_first_seen(
    store: Store, task: Task
) -> None:
    _elsewhere(store, "far")
    for _ in range(2):
        with pytest.raises(ConflictError, match=f"far .*renewed its lease within {60 + GRACE_S} s"):
            store.attach(ID, "near", actor="test")
    seen_s = _notes(store)["1 far"]
    store.layout.lease(ID).write_text(json.dumps({"1 far": seen_s - 60 - GRACE_S}))
    taken = store.attach(ID, "near", actor="test")
    assert (taken.epoch, store.get(ID).agents) == (2, ("near",))
    assert list(_notes(store)) == ["2 near"]


@pytest.mark.parametrize("ahead_s", [60, 10**9])
def test_a_note_from_the_future_neither_ends_a_lease_nor_keeps_it_for_ever(
    store: Store, task: Task, ahead_s: int
) -> None:
    _elsewhere(store, "far")
    store.layout.leases.mkdir()
    store.layout.lease(ID).write_text(json.dumps({"1 far": time.time() + ahead_s}))
    with pytest.raises(ConflictError, match="far"):
        store.attach(ID, "near", actor="test")
    assert _notes(store)["1 far"] <= time.time()


@pytest.mark.parametrize(
    "content_b", [b"", b"\xff", b"[]", b"null", b'{"1 far":null}', b'{"1 far":NaN}', b'{"1 far":1e999}', b"[" * 99_999]
)
def test_damaged_notes_are_none(store: Store, task: Task, content_b: bytes) -> None:
    _elsewhere(store, "far")
    store.layout.leases.mkdir()
    store.layout.lease(ID).write_bytes(content_b)
    with pytest.raises(ConflictError, match="far"):
        store.attach(ID, "near", actor="test")
    assert _notes(store)["1 far"] <= time.time()


def test_seeing_one_holder_renews_no_other(store: Store, task: Task) -> None:
    for agent in ("far", "farther"):
        _elsewhere(store, agent, "collaborative")
    store.layout.leases.mkdir()
    store.layout.lease(ID).write_text('{"1 far": 5.0}')
    assert leases.lives(store.get(ID), store.layout.lease(ID)) == {"far": "expired", "farther": "fresh"}
    assert _notes(store)["1 far"] == 5.0
    with pytest.raises(ConflictError, match="held by agent farther"):
        store.attach(ID, "near", actor="test")


def test_a_renewed_lease_lives_on_and_those_beside_it_do_not(store: Store, task: Task) -> None:
    far = _elsewhere(store, "far", "collaborative")
    near = store.attach(ID, "near", actor="test", mode="collaborative")
    store.layout.lease(ID).write_text('{"1 far": 5.0, "1 near": 5.0, "9 gone": 5.0}')
    store.renew(ID, near)
    notes = _notes(store)
    assert (sorted(notes), notes["1 far"]) == (["1 far", "1 near"], 5.0)
    assert leases.lives(store.get(ID), store.layout.lease(ID)) == {"far": "expired", "near": "fresh"}
    assert store.get(ID).rev == 3, "a renewal is no event"
    store.detach(ID, "far", actor="test")
    with pytest.raises(FencedError):
        store.renew(ID, far)
