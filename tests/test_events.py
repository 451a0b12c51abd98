import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.events import (
    GENESIS,
    CorruptError,
    Event,
    check,
    decode,
    encode,
    fold,
    from_json,
    state_line,
    to_json,
)
from opencode_tasks.task import Tally

_CREATED = {
    "id": "fix-7k3q9m",
    "title": "Fix",
    "branch": "task/fix",
    "base": {"branch": "main", "commit": "a" * 40},
    "workspace": {"kind": "in-place", "path": "/src/repo"},
    "image": None,
}


def _event(type_: str, data: dict[str, Any], seq: int = 1) -> Event:
    ts = f"2026-01-01T00:00:{seq:02d}.000Z"
    return Event("c0ffee-host", seq, seq, ts, "user:me", 0, type_, data, GENESIS)


def _line(data: dict[str, Any]) -> bytes:
    return encode(_event("note.added", data))[1]


def _signed(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":"))
    return f'{body[:-1]},"h":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def test_a_line_has_the_fields_of_the_design_in_their_order() -> None:
    event, line_b = encode(_event("task.created", _CREATED))
    assert line_b.endswith(b"\n")
    assert line_b.count(b"\n") == 1
    assert list(json.loads(line_b)) == ["v", "w", "seq", "lam", "ts", "actor", "epoch", "type", "data", "prev", "h"]
    assert len(event.h) == 64


def test_the_hash_is_that_of_the_line_without_it() -> None:
    event, line_b = encode(_event("task.created", _CREATED))
    without = line_b.decode().replace(f',"h":"{event.h}"', "").rstrip("\n")
    assert hashlib.sha256(without.encode()).hexdigest() == event.h


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"text": "line\nbreak\r\n\x00 and \u2028"},
        {"text": "日本語 é 🎉"},
        {"path": "caf\udce9"},
        {"text": '","h":"0000","prev":"', "h": "f" * 64},
        {"nested": {"h": "f" * 64}},
        {"deep": [[{"a": [None, True, 1.5, -3]}]]},
    ],
)
def test_a_record_survives_being_written_and_read(data: dict[str, Any]) -> None:
    event, line_b = encode(_event("note.added", data))
    assert decode(line_b) == event
    assert decode(line_b).data == data


def test_every_flipped_bit_of_a_line_is_noticed() -> None:
    line_b = _line({"n": 1, "text": "é"})
    for at in range(len(line_b) - 1):
        for bit in range(8):
            damaged = bytearray(line_b)
            damaged[at] ^= 1 << bit
            with pytest.raises(TaskError) as refused:
                decode(bytes(damaged))
            # A flip in the schema's number looks like a newer one: refused as well.
            assert refused.value.code in ("corrupt", "newer_schema"), (at, bit)


@pytest.mark.parametrize(
    "line_b",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'"text"\n',
        b"\xff\xfe\n",
        b'{"v":1}\n',
        b'{"h":"x"}\n',
        b'{"v":null,"h":"x"}\n',
        b'{"v":Infinity,"h":"x"}\n',
        b'{"v":1,"h":"x"}\n',
        b"[" * 100_000 + b"\n",
        _line({})[:-2] + b"\n",
        _line({}) * 2,
    ],
)
def test_what_is_no_record_is_corrupt(line_b: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(line_b)


def test_a_newer_schema_is_refused_with_the_way_out() -> None:
    with pytest.raises(TaskError) as refused:
        decode(_signed({"v": 2, "unheard": "of"}))
    assert refused.value.code == "newer_schema"
    assert "schema 2" in refused.value.message
    assert "upgrade" in refused.value.hint


def _folded(*rest: tuple[str, dict[str, Any]]) -> Any:
    created = _event("task.created", _CREATED)
    return fold([created, *(_event(t, d, n) for n, (t, d) in enumerate(rest, start=2))])


def test_a_created_task_is_pending() -> None:
    task = _folded()
    assert (task.id, task.status, task.rev, task.branch) == ("fix-7k3q9m", "pending", 1, "task/fix")
    assert task.created_at == task.updated_at == "2026-01-01T00:00:01.000Z"


@pytest.mark.parametrize(
    ("type_", "data", "field", "value"),
    [
        ("status.changed", {"from": "pending", "to": "running", "reason": "x"}, "status", "running"),
        ("checkpoint.created", {"id": "3"}, "checkpoints", Tally(1, "3")),
        ("commit.recorded", {"sha": "b" * 40}, "commits", Tally(1, "b" * 40)),
    ],
)
def test_fold_of_one_event(type_: str, data: dict[str, Any], field: str, value: object) -> None:
    task = _folded((type_, data))
    assert getattr(task, field) == value
    assert (task.rev, task.updated_at) == (2, "2026-01-01T00:00:02.000Z")


def test_fold_of_container_and_workspace() -> None:
    changed = {"state": "running", "id": "c1", "name": "n", "image": "i", "engine": "unix:///x"}
    task = _folded(
        ("container.changed", changed),
        ("workspace.moved", {"workspace": {"kind": "worktree", "path": "/elsewhere"}}),
    )
    assert (task.container.state, task.container.id, task.container.engine) == ("running", "c1", "unix:///x")
    assert (task.workspace.kind, task.workspace.path) == ("worktree", "/elsewhere")


def test_an_unknown_type_is_a_revision_and_nothing_else() -> None:
    before, after = _folded(), _folded(("from.the.future", {"anything": [1]}))
    assert after == replace(before, rev=2, updated_at=after.updated_at)


def test_counts_go_up_and_the_newest_is_last() -> None:
    task = _folded(("checkpoint.created", {"id": "1"}), ("checkpoint.created", {"id": "2"}))
    assert task.checkpoints == Tally(2, "2")


def test_a_log_that_does_not_begin_with_the_creation_is_corrupt() -> None:
    with pytest.raises(CorruptError, match=r"begins with status\.changed"):
        fold([_event("status.changed", {"to": "running"})])
    with pytest.raises(CorruptError, match="empty"):
        fold([])


def _status(to: str) -> tuple[str, dict[str, Any]]:
    return ("status.changed", {"to": to})


@pytest.mark.parametrize(
    ("batch", "possible"),
    [
        ([_status("running")], True),
        ([_status("running"), _status("completed")], True),
        ([_status("running"), ("note.added", {}), _status("paused"), _status("running")], True),
        ([_status("completed")], False),
        ([_status("running"), _status("running")], False),
        ([_status("cancelled"), _status("running")], False),
        ([_status("exploded")], False),
    ],
)
def test_a_batch_is_checked_step_by_step(batch: list[tuple[str, dict[str, Any]]], possible: bool) -> None:
    task = _folded()
    if possible:
        check(task, batch)
    else:
        with pytest.raises(TaskError) as refused:
            check(task, batch)
        assert refused.value.code == "transition"
        assert refused.value.hint


def test_a_task_survives_json() -> None:
    task = replace(_folded(), agents=("a", "b"), children=("c",), depends_on=("d",), blocked=("e",), parent="p")
    stored = state_line(to_json(task))
    assert from_json(json.loads(stored)) == task
    assert state_line(to_json(from_json(json.loads(stored)))) == stored


@pytest.mark.parametrize("damage", ["missing", "surplus", "nested", "type"])
def test_other_fields_than_ours_are_corrupt(damage: str) -> None:
    fields = json.loads(state_line(to_json(_folded())))
    if damage == "missing":
        del fields["branch"]
    elif damage == "surplus":
        fields["unheard"] = "of"
    elif damage == "nested":
        fields["base"]["unheard"] = "of"
    else:
        fields["agents"] = None
    with pytest.raises(CorruptError):
        from_json(fields)
