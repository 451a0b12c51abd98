"""Who holds a task, after writers that knew of each other and after those that did not."""

from typing import Any

import pytest

from opencode_tasks.task import Lease
from tests.test_fold import Said, folded, merged

_HOLDER: dict[str, Any] = {"ttl_s": 300, "host": "here", "boot_id": "b1", "pid": 11, "pid_start": "5@x"}
_THERE = {"host": "there", "boot_id": "b2"}


def _taken(agent: str, mode: str, epoch: int, *over: str, **fields: Any) -> Said:
    return "lease.taken", {"agent": agent, "mode": mode, "epoch": epoch, **_HOLDER, "took_over": list(over), **fields}


def _released(agent: str, epoch: int, **fields: Any) -> Said:
    return "lease.released", {"agent": agent, "epoch": epoch, **fields}


@pytest.mark.parametrize(
    ("said", "held", "epoch"),
    [
        ([_taken("x", "exclusive", 1)], ["x 1"], 1),
        ([_taken("x", "exclusive", 1), _released("x", 1)], [], 1),
        ([_taken("x", "exclusive", 1), _released("x", 1), _taken("y", "exclusive", 2)], ["y 2"], 2),
        ([_taken("x", "exclusive", 1), _taken("y", "exclusive", 2, "x")], ["y 2"], 2),
        ([_taken("x", "exclusive", 1), _taken("y", "exclusive", 2, "x"), _released("x", 1)], ["y 2"], 2),
        ([_taken("x", "exclusive", 1), _taken("x", "exclusive", 2, "x", pid=12), _released("x", 1)], ["x 2"], 2),
        ([_taken("x", "collaborative", 1), _taken("y", "collaborative", 1)], ["x 1", "y 1"], 1),
        ([_taken("x", "collaborative", 1), _taken("y", "collaborative", 1), _released("x", 1)], ["y 1"], 1),
        ([_taken("x", "collaborative", 1), _taken("y", "exclusive", 2, "x")], ["y 2"], 2),
        ([_taken("x", "exclusive", 1), _taken("y", "collaborative", 2, "x")], ["y 2"], 2),
        # The very same process changes its mode.
        ([_taken("x", "exclusive", 1), _taken("x", "collaborative", 1)], ["x 1"], 1),
        ([_taken("x", "exclusive", 1), _released("y", 1), _released("x", 2)], ["x 1"], 1),
        ([_taken("x", "exclusive", 1), _released("x", 1, since="2026-01-01T00:00:02.000Z")], [], 1),
        ([_taken("x", "exclusive", 1), _released("x", 1, since="2026-01-01T00:00:01.000Z")], ["x 1"], 1),
    ],
)
def test_leases_of_writers_that_know_of_each_other(said: list[Said], held: list[str], epoch: int) -> None:
    task = folded(*said)
    assert [f"{lease.agent} {lease.epoch}" for lease in task.leases] == held
    assert (task.epoch, task.conflicts) == (epoch, ())


def test_a_lease_has_what_its_event_says_and_what_a_newer_version_adds_is_left_out() -> None:
    task = folded(_taken("x", "exclusive", 1, colour="red"))
    assert task.leases == (Lease("x", "exclusive", 1, 300, "2026-01-01T00:00:02.000Z", "here", "b1", 11, "5@x"),)
    assert task.agents == ("x",)


@pytest.mark.parametrize(
    ("here", "there", "held", "conflict"),
    [
        (_taken("x", "exclusive", 1), _taken("y", "exclusive", 1, **_THERE), ["y here-not"], ("y", "x")),
        (_taken("x", "exclusive", 1), _taken("x", "exclusive", 1, **_THERE), ["x here-not"], ("x", "x")),
        (_taken("x", "collaborative", 1), _taken("x", "collaborative", 1, **_THERE), ["x here-not"], ("x", "x")),
        (_taken("x", "collaborative", 1), _taken("y", "exclusive", 1, **_THERE), ["y here-not"], ("y", "x")),
        # Who has the task alone has it alone, also where the other is later.
        (_taken("x", "exclusive", 1), _taken("y", "collaborative", 1, **_THERE), ["x here"], ("x", "y")),
        (_taken("x", "exclusive", 1), _taken("x", "collaborative", 1, **_THERE), ["x here"], ("x", "x")),
        (_taken("x", "collaborative", 1), _taken("y", "collaborative", 1, **_THERE), ["x here", "y here-not"], None),
    ],
)
def test_leases_of_writers_that_do_not(
    here: Said, there: Said, held: list[str], conflict: tuple[str, str] | None
) -> None:
    task = merged((2, "aaaa-host", *here), (2, "bbbb-host", *there))
    shown = [f"{lease.agent} {'here' if lease.host == 'here' else 'here-not'}" for lease in task.leases]
    assert shown == held
    assert [(c.field, c.kept, c.lost) for c in task.conflicts] == ([("lease", *conflict)] if conflict else [])
    assert task.epoch == 1


def test_taking_over_what_was_renewed_meanwhile_is_a_conflict() -> None:
    task = merged(
        (2, "aaaa-host", *_taken("x", "exclusive", 1)),
        (3, "aaaa-host", *_taken("x", "exclusive", 2, "x", pid=12)),  # a new process, which the other does not know
        (3, "bbbb-host", *_taken("y", "exclusive", 2, "x", **_THERE)),
    )
    assert task.agents == ("y",)
    assert [(c.kept, c.lost) for c in task.conflicts] == [("y", "x")]


def test_a_release_ends_nobody_elses_lease_of_the_same_name() -> None:
    task = merged(
        (2, "aaaa-host", *_taken("x", "exclusive", 1)),
        (2, "bbbb-host", *_taken("x", "exclusive", 1, **_THERE)),
        (3, "aaaa-host", *_released("x", 1, since="2026-01-01T00:00:01.500Z")),
    )
    assert [lease.host for lease in task.leases] == ["there"]
