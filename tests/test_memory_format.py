"""docs/memory-format.md is enough: a reader and a writer made from that page alone agree with the store."""

import fcntl
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from tests.conftest import Repo, run
from tests.store.conftest import ID, create

KEYS = ["v", "w", "seq", "lam", "ts", "actor", "epoch", "type", "data", "prev", "h"]


class Damaged(Exception):  # noqa: N818
    """What a reader has to refuse."""


class Segment(NamedTuple):
    writer: str
    number: int
    lines: list[str]


def segments(folder: Path) -> list[Segment]:
    """Where the plain file and the compressed one are both there, the plain one counts."""
    found: dict[tuple[str, int], bytes] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.name.endswith(".gz")):
        stem, suffix = path.name.split(".", 1)
        if suffix in ("jsonl", "jsonl.gz"):
            writer, _, number = stem.rpartition("-")
            content_b = path.read_bytes()
            found.setdefault((writer, int(number)), gzip.decompress(content_b) if suffix == "jsonl.gz" else content_b)
    # Lines end with a newline, and not with what else may end one: U+2028 is a character like others.
    split = {key: re.findall(r"[^\n]*\n|[^\n]+", content_b.decode()) for key, content_b in sorted(found.items())}
    return [Segment(*key, lines) for key, lines in split.items()]


def verified(line: str, seq: int, prev: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    body, _, end = line.rpartition(',"h":"')
    right = (
        list(record) == KEYS
        and record["v"] == 1
        and (json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" == line or "\\ud" in line)
        and end == hashlib.sha256(f"{body}}}".encode()).hexdigest() + '"}\n'
        and (record["seq"], record["prev"]) == (seq, prev)
    )
    if not right:
        raise Damaged(line)
    return record


def of_one_writer(parts: list[Segment]) -> Iterator[dict[str, Any]]:
    seq, prev, lam = 0, "0" * 64, 0
    if [part.number for part in parts] != list(range(1, len(parts) + 1)):
        raise Damaged("a segment is missing")
    for part in parts:
        batch: list[dict[str, Any]] = []
        for line in part.lines:
            if not line.endswith("\n"):
                break  # torn, or a write in flight
            record = verified(line, seq + 1, prev)
            if record["w"] != part.writer or record["lam"] <= lam:
                raise Damaged(line)
            seq, prev, lam = seq + 1, record["h"], record["lam"]
            more = record["data"].pop("more", 0)
            batch.append(record)
            if not more:
                yield from batch
                batch = []


def read(folder: Path) -> list[dict[str, Any]]:
    """The events of a task, in their order."""
    found = segments(folder)
    by_writer = {part.writer: [p for p in found if p.writer == part.writer] for part in found}
    events = [record for parts in by_writer.values() for record in of_one_writer(parts)]
    return sorted(events, key=lambda e: (e["lam"], e["w"], e["seq"]))


def render(w: str, seq: int, lam: int, type_: str, data: dict[str, Any], prev: str) -> str:
    ts = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = (1, w, seq, lam, ts, "other program", 0, type_, data, prev)
    body = json.dumps(dict(zip(KEYS, values, strict=False)), ensure_ascii=False, separators=(",", ":"))
    return f'{body[:-1]},"h":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'


def append(common: Path, task_id: str, w: str, *new: tuple[str, dict[str, Any]]) -> None:
    """The steps of the page, with the segment that there is."""
    root = common / "opencode-tasks"
    folder = root / "store" / task_id / "log"
    path = folder / f"{w}-000001.jsonl"
    with (root / "locks" / f"{task_id}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not (root / "transactions").exists()
        events = read(folder)
        own = [e for e in events if e["w"] == w]
        seq, prev, lam = len(own), own[-1]["h"] if own else "0" * 64, events[-1]["lam"]
        lines = ""
        for left, (type_, data) in zip(range(len(new) - 1, -1, -1), new, strict=True):
            seq, lam = seq + 1, lam + 1
            line = render(w, seq, lam, type_, data | ({"more": left} if left else {}), prev)
            prev = json.loads(line)["h"]
            lines += line
        feed = max((root / "feed").iterdir())
        with feed.open("a") as f:
            f.write(f"{task_id} {len(events) + len(new)} {new[-1][0]}\n")
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, lines.encode())
        os.fsync(fd)
        os.close(fd)


def as_the_store_says(store: Store, task_id: str = ID) -> list[dict[str, Any]]:
    return [{"v": 1, **{key: getattr(e, key) for key in KEYS[1:]}} for e in store.history(task_id)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.make()
    create(made)
    return made


@pytest.fixture
def log(store: Store) -> Path:
    """With batches, sealed segments, odd strings, and a torn end."""
    odd = 'Größe 日本 \\ " / \b \x00 \x7f \u2028 \U0001f993'
    for n in range(4):
        store.record(ID, ("note.added", {"n": n, "text": f"{odd}{n}" * 30_000}), ("note.added", {"x": 1.5}), actor=odd)
    store.record(ID, *(("note.added", {"n": n}) for n in range(70)), actor="test")
    store.record(ID, ("note.added", {"path": "odd\udcff", "é": None}), actor="sürrogate \udcff")
    folder = store.layout.log(ID)
    with max(folder.glob("*.jsonl")).open("ab") as f:
        f.write(b'{"v":1,"w":"torn')
    return folder


def test_a_reader_made_from_the_page_agrees_with_the_store(store: Store, log: Path) -> None:
    assert len(list(log.glob("*.gz"))) >= 2
    events = read(log)
    assert events == as_the_store_says(store)
    assert len(events) == store.get(ID).rev == 1 + 8 + 70 + 1


def test_it_refuses_what_the_store_refuses(store: Store, log: Path) -> None:
    path = max(log.glob("*.jsonl"))
    sound_b = path.read_bytes()
    lines = sound_b.splitlines(keepends=True)
    store.layout.state(ID).unlink()
    for snapshot in log.glob("*.snapshot.json"):
        snapshot.unlink()
    for damaged_b in (
        sound_b.replace(b'"n":42', b'"n":43'),
        b"".join([*lines[:5], *lines[6:]]),
        b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]),
        b"".join([lines[0], *lines]),
        sound_b.replace(b'"v":1', b'"v":2', 1),
        sound_b.replace(b',"type"', b', "type"', 1),
    ):
        path.write_bytes(damaged_b)
        with pytest.raises((Damaged, ValueError)):
            read(log)
        with pytest.raises(TaskError):
            list(store.events_after(ID, None))
    path.write_bytes(sound_b)
    assert read(log) == as_the_store_says(store)


def test_a_half_of_a_batch_is_none(store: Store, log: Path) -> None:
    path = max(log.glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:40]))
    store.layout.state(ID).unlink()
    for snapshot in log.glob("*.snapshot.json"):
        snapshot.unlink()
    assert read(log) == as_the_store_says(store)
    assert len(read(log)) < 40


def test_another_program_writes(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    task_id = repo.only_id()
    store = Store(repo.common)
    status = {"from": "running", "to": "paused", "reason": "tea"}
    append(repo.common, task_id, store.writer, ("status.changed", status), ("weather.changed", {"sky": "blue"}))
    repo.tasks("task-decisions", "--add", "Ours")
    decision = {"id": "other1", "text": "Theirs", "because": "Gründe", "alternatives": ["a"]}
    append(repo.common, task_id, "0badc0de-elsewhere", ("decision.added", decision))
    append(repo.common, task_id, store.writer, ("task.updated", {"changes": {"title": ["One", "Another"]}}))
    shown = repo.tasks("task-history", "--json").json["events"]
    assert [e["type"] for e in shown][2:] == [
        "status.changed",
        "weather.changed",
        "decision.added",
        "decision.added",
        "task.updated",
    ]
    assert [d["text"] for d in repo.tasks("task-decisions", "--json").json["decisions"]] == ["Ours", "Theirs"]
    task = repo.tasks("task-status", "--json").json
    assert (task["title"], task["status"], task["rev"]) == ("Another", "paused", 7)
    assert [t["id"] for t in repo.tasks("find-task", "another", "--json").json["tasks"]] == [task_id]
    assert read(repo.store / task_id / "log") == as_the_store_says(store, task_id)
    checks = repo.tasks("doctor", "--json", check=False).json["checks"]
    assert [c for c in checks if c["name"] == "store" and not c["ok"]] == []
    assert "weather.changed" in run(["git", "log", "-p"], cwd=repo.top / ".tasks").out


def test_the_projection_is_as_the_page_says(store: Store, log: Path) -> None:
    for path in (store.layout.state(ID), *log.glob("*.snapshot.json")):
        text = path.read_text()
        body, _, end = text.rpartition(',"sha256":"')
        assert end == hashlib.sha256(f"{body}}}".encode()).hexdigest() + '"}\n'
        found = json.loads(text)
        assert list(found) == ["v", "fold", "task", "log", "sha256"]
        assert json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n" == text
        events = read(log)
        (head,) = found["log"]["heads"].values()
        assert list(head) == ["segment", "seq", "h", "size_bytes"]
        at = next(e for e in events if e["seq"] == head["seq"])
        assert (at["h"], [at["lam"], at["w"], at["seq"]]) == (head["h"], found["log"]["last"])
        assert found["task"]["rev"] == events.index(at) + 1
