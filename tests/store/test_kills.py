"""Eight writers, killed at any moment, again and again: what was acknowledged is there, and every task can be read."""

import gc
import json
import os
import random
import select
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.errors import ConflictError
from opencode_tasks.store import Store, documents, files, leases, log, state, transactions
from opencode_tasks.store.index import Query
from opencode_tasks.store.locks import LockTimeout
from opencode_tasks.task import new_id
from tests.store.conftest import new
from tests.store.faults import in_memory

_LOADED = (documents, leases, transactions)  # here, once, and not in every new writer

WRITERS = 8
ROUND = 500
"""So many kills in one store; then it is verified, and the next one begins."""
SILENCE_S = 60
Said = dict[str, Any]

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")


class Writer:
    """One process after the other; each prints what it is about to do, and that it has returned."""

    def __init__(self, place: Path, luck: random.Random) -> None:
        self._place, self._luck = place, luck
        self.said: list[Said] = []
        self._start()

    def _start(self) -> None:
        self.out, into = os.pipe()
        self._rest = b""
        seed = self._luck.random()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self.out)
                gc.freeze()  # what pytest has made is not looked through, and so not copied
                _write_for_ever(self._place, random.Random(seed), into)
            except BaseException as e:  # it has to be told in the other process
                os.write(into, json.dumps({"failed": repr(e)}).encode() + b"\n")
            finally:
                os._exit(1)
        os.close(into)

    def listen(self) -> bool:
        """What it has printed since; False at its end."""
        found = os.read(self.out, 65536)
        *lines, self._rest = (self._rest + found).split(b"\n")
        self.said += map(json.loads, lines)
        return bool(found)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        while self.listen():
            pass
        os.close(self.out)
        assert os.WIFSIGNALED(status), self.said[-1:]

    def again(self) -> None:
        self.kill()
        self.said.append({"killed": self._pid})
        self._start()


def _write_for_ever(place: Path, luck: random.Random, into: int) -> None:
    log.SEAL_BYTES = 100_000
    write_all = files.write_all

    def announced(fd: int, content_b: bytes) -> None:
        if len(content_b) > 500_000:
            os.write(into, b'{"begun": 1}\n')
        write_all(fd, content_b)

    files.write_all = announced
    store = Store(place, hot=luck.random() < 0.9)
    while True:
        call = luck.choices(list(_CALLS), [weight for _, weight in _CALLS.values()])[0]
        token = f"{luck.randrange(1 << 60):x}"
        try:
            says = _CALLS[call][0](store, luck, token)
        except LockTimeout:
            says = {"refused": token}
        os.write(into, json.dumps({"done": call, "token": token, **says}).encode() + b"\n")


def _some(store: Store, luck: random.Random, count: int = 1) -> list[str]:
    return sorted(luck.sample([i for i in store.ids() if i.startswith("base")], count))


def _size(luck: random.Random) -> int:
    """300 B, mostly; up to 8 MB."""
    return luck.choices((300, 4000, 64_000, 1_000_000, 8_000_000), (100, 10, 4, 1.5, 0.3))[0]


def _event(luck: random.Random, token: str, **more: object) -> tuple[str, dict[str, object]]:
    kind = luck.choice(("note.added", "command.output", "checkpoint.restored"))
    return kind, {"token": token, "run": "r", "text": "", "pad": "x" * _size(luck), **more}


def _record(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    return {"task": task_id, "rev": store.record(task_id, _event(luck, token, of=1), actor="w").rev}


def _batch(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    of = luck.randint(2, 6)
    store.record(task_id, *(_event(luck, token, of=of) for _ in range(of)), actor="w")
    return {"task": task_id}


def _swap(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    rev = store.get(task_id).rev
    try:
        store.record(task_id, _event(luck, token, of=1, after=rev), actor="w", expected_rev=rev)
    except ConflictError:
        return {"refused": token}
    return {"task": task_id}


def _many(store: Store, luck: random.Random, token: str) -> Said:
    ids = _some(store, luck, luck.randint(2, 3))
    store.record_many({i: [_event(luck, token, of=1, tasks=ids)] for i in ids}, actor="w")
    return {"tasks": ids}


def _decide(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    return {"task": task_id, "decision": store.decide(task_id, token, because="it is so", actor="w").id}


def _create(store: Store, luck: random.Random, token: str) -> Said:
    (parent,) = _some(store, luck)
    child = new_id(token[:10])
    store.create(new(child, parent=parent if luck.random() < 0.5 else None, title=token), actor="w")
    return {"created": child}


def _status(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    store.ensure_status(task_id, "running", reason=token, actor="w")
    return {}


def _lease(store: Store, luck: random.Random, token: str) -> Said:
    (task_id,) = _some(store, luck)
    try:
        store.attach(task_id, f"agent-{token}", actor="w", pid=os.getpid())
        store.detach(task_id, f"agent-{token}", actor="w")
    except ConflictError:
        return {"refused": token}
    return {"task": task_id, "lease": f"agent-{token}"}


def _read(store: Store, luck: random.Random, token: str) -> Said:
    """Whatever is going on, every task can be read."""
    for task_id in store.ids():
        rev = store.get(task_id).rev
        assert sum(1 for _ in store.history(task_id)) >= rev
    return {}


_CALLS: dict[str, Any] = {
    "record": (_record, 40),
    "batch": (_batch, 12),
    "swap": (_swap, 12),
    "many": (_many, 12),
    "decide": (_decide, 1),
    "create": (_create, 3),
    "status": (_status, 3),
    "lease": (_lease, 4),
    "read": (_read, 0.1),
}


@pytest.mark.timeout(0)  # --cycles 10000 takes its time; that nothing hangs is seen to below
def test_kill_9_loses_nothing_that_was_acknowledged(pytestconfig: pytest.Config) -> None:
    luck = random.Random(2026)
    cycles: int = pytestconfig.getoption("cycles")
    for first in range(0, cycles, ROUND):
        with in_memory(free_bytes=1 << 30) as place:  # a kill loses nothing that a sync would have saved
            store = Store(place, hot=True)
            store.make()
            store.create_many([new(f"base{n}-7k3q9m") for n in range(6)], actor="test")
            _verify(store, _killed(store.layout.common_dir, luck, min(ROUND, cycles - first)))


def _killed(place: Path, luck: random.Random, times: int) -> list[Said]:
    """Everything that the writers said."""
    writers = [Writer(place, luck) for _ in range(WRITERS)]
    for _ in range(times):
        heard = _heard(writers) + luck.randint(1, 5)
        while _heard(writers) < heard and not _busy(writers):
            assert _listen(writers, SILENCE_S), "nobody gets on"
        until = time.monotonic() + luck.uniform(0, 0.005)
        while (left := until - time.monotonic()) > 0 and not _busy(writers):
            _listen(writers, left)
        luck.choice(_busy(writers) or writers).again()
    # Whatever the killed held, nobody waits for it: each of the living gets something done.
    for writer in writers:
        before = len(writer.said)
        while len(writer.said) == before:
            assert _listen(writers, SILENCE_S), "nobody gets on"
    for writer in writers:
        writer.kill()
    return [said for writer in writers for said in writer.said]


def _heard(writers: list[Writer]) -> int:
    return sum(len(w.said) for w in writers)


def _busy(writers: list[Writer]) -> list[Writer]:
    """Those in the middle of a large write: a good moment."""
    return [w for w in writers if w.said and "begun" in w.said[-1]]


def _listen(writers: list[Writer], timeout_s: float) -> bool:
    ready, _, _ = select.select([w.out for w in writers], [], [], timeout_s)
    for writer in writers:
        if writer.out in ready and not writer.listen():
            writer.kill()  # it ended by itself, and has said why
    return bool(ready)


def _verify(store: Store, said: list[Said]) -> None:
    done = [s for s in said if "done" in s and "refused" not in s]
    assert done
    for task_id in store.ids():  # also finishes what was committed and not carried out
        store.get(task_id)
    events = {task_id: _verified(store, task_id) for task_id in store.ids()}
    _verify_whole(events)
    _verify_families(store)
    for s in done:
        _verify_acknowledged(store, events, s)
    page, _ = store.index.page(Query(), limit=100_000)
    assert sorted(page, key=lambda t: t.id) == [store.get(i) for i in store.ids()]


def _verified(store: Store, task_id: str) -> list[Said]:
    """The data of all events: the chain is whole from the start, and the projections are what is made from it."""
    task = store.rebuild(task_id)
    stream = store._stream(task_id)
    assert stream.from_start()[0] == task == Store(store.layout.common_dir, hot=True).get(task_id)
    assert store.layout.state(task_id).read_bytes() == state.render(*stream.from_start())
    return [{**e.data, "pad": ""} for e in store.history(task_id)]


def _verify_whole(events: dict[str, list[Said]]) -> None:
    """Batches and transactions are there wholly or not at all, and nothing is there twice."""
    tokens = {task_id: [data["token"] for data in found if "of" in data] for task_id, found in events.items()}
    for task_id, found in events.items():
        count = Counter(tokens[task_id])
        known = {other: set(tokens[other]) for other in tokens}
        for rev, data in enumerate(found):
            if "of" in data:
                assert count[data["token"]] == data["of"]
                assert data.get("after", rev) == rev
                assert all(data["token"] in known[other] for other in data.get("tasks", ()))


def _verify_families(store: Store) -> None:
    tasks = [store.get(task_id) for task_id in store.ids()]
    of_parents = {(child, task.id) for task in tasks for child in task.children}
    assert of_parents == {(task.id, task.parent) for task in tasks if task.parent is not None}


def _verify_acknowledged(store: Store, events: dict[str, list[Said]], said: Said) -> None:
    token = said["token"]
    if said["done"] == "record":
        assert events[said["task"]][said["rev"] - 1]["token"] == token
    if said["done"] in ("batch", "swap"):
        assert token in _told(events[said["task"]], "token")
    if said["done"] == "many":
        assert all(token in _told(events[task_id], "token") for task_id in said["tasks"])
    if said["done"] == "create":
        assert store.get(said["created"]).title == token
    if said["done"] == "decide":
        assert said["decision"] in _told(events[said["task"]], "id")
        assert said["decision"] in store.layout.decisions(said["task"]).read_text()
    if said["done"] == "lease":
        assert [data["agent"] for data in events[said["task"]] if data.get("agent") == said["lease"]] == [
            said["lease"]
        ] * 2


def _told(found: list[Said], key: str) -> set[object]:
    return {data[key] for data in found if key in data}
