"""`state.json` is believed only when it is sound; whatever becomes of it, the task is what the log says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks import fold
from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, dumps
from opencode_tasks.store import Store, state
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.task import Conflict, Lease, Task
from opencode_tasks.values import replace
from tests.store.conftest import ID, create

_AT = Position({"b-host": Head(3, 4, "f" * 64, 1234), "a-host": Head(1, 2, "e" * 64, 99)}, (7, "b-host", 4))


def _signed(document: dict[str, Any]) -> bytes:
    body = dumps(document)
    return f'{body[:-1]},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def _full(task: Task) -> Task:
    """With something in every list."""
    lease = Lease("a", "exclusive", 3, 300, "2026-01-01T00:00:00.000Z", "here", "b1", 11, "5@x")
    conflict = Conflict("depends_on", ["x"], None, "2026-01-01T00:00:00.000Z", "b-host")
    lists: dict[str, Any] = {"children": ("c",), "depends_on": ("d",), "blocked": ("e",), "degraded": ("f",)}
    return replace(task, parent="p", leases=(lease, lease), conflicts=(conflict,), **lists)


def test_what_is_written_is_read(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.write(path, _full(task), _AT)
    assert state.read(path) == (_full(task), _AT)
    state.write(path, task, _AT)
    assert state.read(path) == (task, _AT)
    assert path.read_bytes() == state.render(task, _AT)


def test_one_line_of_json_with_a_checksum(task: Task) -> None:
    content_b = state.render(task, _AT)
    document = json.loads(content_b)
    assert list(document) == ["v", "fold", "task", "log", "sha256"]
    assert list(document["log"]["heads"]) == ["a-host", "b-host"]
    assert content_b.count(b"\n") == 1
    assert _signed({k: document[k] for k in ("v", "fold", "task", "log")}) == content_b


def test_a_path_that_is_not_utf8(task: Task, tmp_path: Path) -> None:
    odd = replace(task, workspace=replace(task.workspace, path="/src/caf\udce9"))
    state.write(tmp_path / "state.json", odd, _AT)
    assert state.read(tmp_path / "state.json") == (odd, _AT)


def test_every_flipped_bit_is_noticed(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    good_b = state.render(task, _AT)
    for at in range(len(good_b) - 1):
        damaged = bytearray(good_b)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptError):
            state.read(path)


def test_every_truncation_is_noticed(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    good_b = state.render(task, _AT)
    for size in range(len(good_b) - 1):
        path.write_bytes(good_b[:size])
        with pytest.raises(CorruptError):
            state.read(path)


@pytest.mark.parametrize("content_b", [b"", b"null", b"[]", b"{}", b"\xff", b"\0" * 4096, b'"text"', b'{"sha256":1}'])
def test_what_is_no_state_is_corrupt(tmp_path: Path, content_b: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content_b)
    with pytest.raises(CorruptError):
        state.read(path)


def test_a_newer_schema_is_refused_and_left_alone(store: Store, task: Task) -> None:
    path = store.layout.state(task.id)
    newer_b = _signed({"v": 2, "shape": "unknown"})
    path.write_bytes(newer_b)
    uses: list[Callable[[], object]] = [
        lambda: store.get(task.id),
        lambda: store.record(task.id, ("note.added", {}), actor="test"),
    ]
    for refuse in uses:
        with pytest.raises(TaskError) as refused:
            refuse()
        assert refused.value.code == "newer_schema"
        assert "upgrade" in refused.value.hint
    assert path.read_bytes() == newer_b
    assert not list(path.parent.glob("*.corrupt-*"))
    assert len(list(store.history(task.id))) == 1


@pytest.mark.parametrize("damage", ["missing", "surplus", "nested", "item", "list"])
def test_other_fields_than_ours_are_corrupt(task: Task, damage: str) -> None:
    fields = json.loads(dumps(state.to_json(_full(task))))
    assert state.from_json(fields) == _full(task)
    if damage == "missing":
        del fields["branch"]
    elif damage == "surplus":
        fields["unheard"] = "of"
    elif damage == "nested":
        fields["base"]["unheard"] = "of"
    elif damage == "item":
        del fields["leases"][0]["agent"]
    else:
        fields["children"] = None
    with pytest.raises(CorruptError):
        state.from_json(fields)


def test_a_state_of_another_fold_is_made_anew_and_not_kept(store: Store, task: Task) -> None:
    path = store.layout.state(task.id)
    sound_b = path.read_bytes()
    path.write_bytes(_signed({"v": 1, "fold": fold.VERSION + 1, "task": "of another form", "log": []}))
    assert store.get(task.id) == task
    store.rebuild(task.id)
    assert path.read_bytes() == sound_b
    assert not list(path.parent.glob("*.corrupt-*"))


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    path.write_bytes(damaged)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _foreign(path: Path) -> None:
    path.write_bytes(_signed({"v": 1, "fold": fold.VERSION, "task": {"id": ID}, "log": {}}))


_KEPT = {_empty, _flip, _truncate, _foreign}


@pytest.mark.parametrize("damage", [_remove, _empty, _flip, _truncate, _foreign])
def test_a_damaged_projection_is_kept_aside_and_rebuilt(store: Store, task: Task, damage: Any) -> None:
    store.ensure_status(task.id, "running", reason="test", actor="test")
    store.record(task.id, ("checkpoint.created", {"id": "1"}), ("commit.recorded", {"sha": "b" * 40}), actor="test")
    path, sound = store.layout.state(task.id), store.get(task.id)
    sound_b = path.read_bytes()
    damage(path)
    damaged_b = path.read_bytes() if path.exists() else None
    assert store.get(task.id) == sound
    kept = [p.read_bytes() for p in path.parent.glob("state.json.corrupt-*")]
    assert kept == ([damaged_b] if damage in _KEPT else [])
    assert state.render(*store.load(task.id)) == sound_b
    store.rebuild(task.id)
    assert path.read_bytes() == sound_b


def test_each_damaged_projection_is_kept(store: Store, task: Task) -> None:
    path = store.layout.state(task.id)
    for n in range(3):
        path.write_text(f"damage {n}")
        assert store.get(task.id) == task
    kept = sorted(path.parent.glob("state.json.corrupt-*"))
    assert [p.read_text() for p in kept] == ["damage 0", "damage 1", "damage 2"]


def test_an_older_projection_catches_up(store: Store, task: Task) -> None:
    path = store.layout.state(task.id)
    older_b = path.read_bytes()
    running = store.ensure_status(task.id, "running", reason="test", actor="test")
    newer_b = path.read_bytes()
    path.write_bytes(older_b)
    assert store.get(task.id) == running
    path.write_bytes(older_b)
    with pytest.raises(TaskError, match="is running and cannot become running"):
        store.record(task.id, ("status.changed", {"from": "pending", "to": "running", "reason": "x"}), actor="test")
    assert state.render(*store.load(task.id)) == newer_b


def test_the_projection_of_another_task_is_not_believed(store: Store, task: Task) -> None:
    other = create(store, "fix-parser-000000")  # as long as ours: the sizes of the logs agree
    store.layout.state(task.id).write_bytes(store.layout.state(other.id).read_bytes())
    assert store.get(task.id) == task


def test_a_log_that_lacks_what_the_projection_knows_is_reported(store: Store, task: Task, log_path: Path) -> None:
    shorter_b = log_path.read_bytes()
    store.ensure_status(task.id, "running", reason="test", actor="test")
    log_path.write_bytes(shorter_b)
    with pytest.raises(CorruptError, match="ends before, or differs at, what was written"):
        store.get(task.id)
    assert log_path.read_bytes() == shorter_b
    repaired = store.repair(task.id)
    assert (repaired.status, len(repaired.degraded)) == ("pending", 1)
    assert "2" in repaired.degraded[0]


def test_a_sound_projection_outlives_a_damaged_log(store: Store, task: Task, log_path: Path) -> None:
    path = store.layout.state(task.id)
    before_b = path.read_bytes()
    store.ensure_status(task.id, "running", reason="test", actor="test")
    path.write_bytes(before_b)
    damaged = bytearray(log_path.read_bytes())
    damaged[-10] ^= 1
    log_path.write_bytes(damaged)
    with pytest.raises(CorruptError):
        store.get(task.id)
    assert path.read_bytes() == before_b
    assert log_path.read_bytes() == bytes(damaged)
