"""Many processes at one task, and at one claim: nobody's update is lost, and nobody's claim is won twice."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError
from opencode_tasks.store import Store, log, state
from tests.store.conftest import ID, create, new
from tests.store.faults import in_memory

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")

Work = Callable[[Store, int], object]


@pytest.fixture
def store() -> Iterator[Store]:
    with in_memory() as place:
        made = Store(place, hot=True)
        made.make()
        yield made


def _together(store: Store, count: int, work: Work) -> list[str]:
    """`work` in so many processes, begun at the same moment; what each returned. All live until all are done."""
    go, start = os.pipe()
    stay, end = os.pipe()
    started = [_started(store.layout.common_dir, work, n, (go, stay), (start, end)) for n in range(count)]
    os.close(go)
    os.close(stay)
    os.close(start)
    said = []
    for _, out in started:
        said.append(_line(out))
    os.close(end)
    for pid, out in started:
        os.close(out)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    return said


def _started(place: Path, work: Work, n: int, wait: tuple[int, int], mine: tuple[int, int]) -> tuple[int, int]:
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    try:
        for fd in mine:
            os.close(fd)
        os.read(wait[0], 1)  # until the parent closes its end
        os.write(into, f"{work(Store(place, hot=True), n)}\n".encode())
        os.read(wait[1], 1)
        os._exit(0)
    except BaseException as e:  # it has to be told in the other process
        os.write(into, f"{type(e).__name__}: {e}\n".encode())
    finally:
        os._exit(1)


def _line(fd: int) -> str:
    said = b""
    while not said.endswith(b"\n") and (more := os.read(fd, 65536)):
        said += more
    return said.decode().strip()


def _is_consistent(store: Store) -> None:
    stream = store._stream(ID)
    assert Store(store.layout.common_dir, hot=True).get(ID) == stream.from_start()[0]
    store.rebuild(ID)
    assert store.layout.state(ID).read_bytes() == state.render(*stream.from_start())


@pytest.mark.timeout(600)
def test_32_processes_make_exactly_32_000_revisions(store: Store) -> None:
    """Compare and swap: each goes on from the revision that it has seen, or looks again."""
    create(store)

    def swap(mine: Store, n: int) -> int:
        rev, conflicts = mine.get(ID).rev, 0
        for i in range(1000):
            while True:
                try:
                    rev = mine.record(ID, ("counted", {"by": n, "i": i, "from": rev}), actor="t", expected_rev=rev).rev
                    break
                except ConflictError:
                    conflicts += 1
                    rev = mine.get(ID).rev
        return conflicts

    conflicts = [int(said) for said in _together(store, 32, swap)]
    assert sum(conflicts) > 0
    assert store.get(ID).rev == 32_001
    seen = [e.data for e in store.history(ID) if e.type == "counted"]
    # Each was written on top of exactly what its writer knew.
    assert [data["from"] for data in seen] == list(range(1, 32_001))
    for n in range(32):
        assert [data["i"] for data in seen if data["by"] == n] == list(range(1000))
    _is_consistent(store)


def test_each_of_1000_claims_has_exactly_one_winner(store: Store) -> None:
    ids = [f"t{n}-7k3q9m" for n in range(1000)]
    store.create_many([new(task_id) for task_id in ids], actor="test")

    def claim(mine: Store, n: int) -> str:
        won = []
        for task_id in ids:
            with suppress(ConflictError):
                mine.attach(task_id, f"agent-{n}", actor=f"agent-{n}", pid=os.getpid())
                won.append(task_id)
        return " ".join(won)

    said = [line.split() for line in _together(store, 8, claim)]
    assert sorted(task_id for won in said for task_id in won) == sorted(ids)
    assert sum(bool(won) for won in said) > 1
    for n, won in enumerate(said):
        for task_id in won:
            task = store.get(task_id)
            assert (task.rev, task.epoch, task.agents) == (2, 1, (f"agent-{n}",))


def test_ten_writers_lose_no_update(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through many segments. Most events leave `state.json` as it is: whoever remembers must see them all the same."""
    monkeypatch.setattr(log, "SEAL_BYTES", 20_000)
    create(store)

    def write(mine: Store, n: int) -> int:
        for i in range(200):
            kind = "command.output" if i % 20 else "note.added"
            mine.record(ID, (kind, {"by": n, "i": i, "run": "r", "text": ""}), actor="t")
        return n

    assert _together(store, 10, write) == [str(n) for n in range(10)]
    seen = [e.data for e in store.history(ID)][1:]
    assert len(seen) == 2000
    for n in range(10):
        assert [data["i"] for data in seen if data["by"] == n] == list(range(200))
    assert store.get(ID).rev == 2001
    _is_consistent(store)


def test_readers_never_see_a_task_damaged_or_younger(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock, while others write, seal and pack."""
    monkeypatch.setattr(log, "SEAL_BYTES", 2_000)
    create(store)

    def work(mine: Store, n: int) -> str:
        if n < 2:
            for i in range(300):
                mine.record(ID, ("note.added", {"by": n, "i": i}), actor="t")
            return "wrote"
        rev = count = 0
        while rev < 601:
            task, _ = mine.load(ID)
            events = [e.type for e in mine.history(ID)]
            assert task.rev >= rev
            assert len(events) >= task.rev
            rev, count = task.rev, count + 1
        return "read" if count > 2 else "too late"

    assert _together(store, 6, work) == ["wrote"] * 2 + ["read"] * 4
