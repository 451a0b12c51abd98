"""Processes that hold leases: the dead are not waited for, the living not shut out unasked, who lost one is fenced."""

import os
import signal

import pytest

from opencode_tasks.errors import ConflictError
from opencode_tasks.store import Store, leases
from opencode_tasks.task import Mode, Task
from tests.store.conftest import ID, Spawn, create

# One command a line: `write N`, `renew` or `detach`.
_AGENT = """
from opencode_tasks.errors import TaskError
task_id = "fix-parser-7k3q9m"
def act(word, n):
    if word == "write":
        return store.record(task_id, ("note.added", {"n": n}), actor=sys.argv[3], lease=lease).rev
    if word == "renew":
        return store.renew(task_id, lease)
    return store.detach(task_id, lease.agent, actor=sys.argv[3], epoch=lease.epoch).rev
try:
    lease = store.attach(task_id, sys.argv[3], actor=sys.argv[3], mode=sys.argv[4], pid=os.getpid())
except TaskError as e:
    sys.exit(print(e.code, e.message))
print("epoch", lease.epoch, flush=True)
for n, line in enumerate(sys.stdin):
    try:
        print("done", act(line.strip(), n), flush=True)
    except TaskError as e:
        print(e.code, e.message, flush=True)
"""


class Agent:
    """A process that holds, or asked for, a lease."""

    def __init__(self, spawn: Spawn, name: str, mode: Mode = "exclusive", *, hot: bool = True) -> None:
        self.process = spawn(_AGENT, name, mode, hot=hot)
        self.attached = self._said()

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def do(self, word: str) -> str:
        self.send(word)
        return self._said()


def _authors(store: Store) -> list[str]:
    return [e.actor for e in store.history(ID) if e.type == "note.added"]


def test_a_second_exclusive_holder_is_refused_with_the_name_of_the_first(
    store: Store, task: Task, spawn: Spawn
) -> None:
    first = Agent(spawn, "agent-one")
    assert first.attached == "epoch 1"
    second = Agent(spawn, "agent-two", hot=False)
    assert second.attached.startswith(f"held Task {ID} is held by agent agent-one (exclusive, since ")
    assert f"process {first.process.pid} on {leases.this_machine().host}), which is running" in second.attached
    assert first.do("write") == "done 3"
    assert store.get(ID).agents == ("agent-one",)


def test_a_holder_that_was_killed_is_not_waited_for(store: Store, task: Task, spawn: Spawn) -> None:
    first = Agent(spawn, "agent-one")
    first.process.kill()
    os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
    second = Agent(spawn, "agent-two")
    assert second.attached == "epoch 2"
    *_, taken = store.history(ID)
    assert (taken.type, taken.data["took_over"]) == ("lease.taken", ["agent-one"])
    assert second.do("write") == "done 4"


def test_a_stalled_holder_that_wakes_is_fenced(store: Store, task: Task, spawn: Spawn) -> None:
    first = Agent(spawn, "agent-one")
    assert first.do("write") == "done 3"
    first.process.send_signal(signal.SIGSTOP)
    with pytest.raises(ConflictError, match="agent-one"):
        store.attach(ID, "agent-two", actor="test", pid=os.getpid())  # stopped is not dead
    lease = store.attach(ID, "agent-two", actor="test", pid=os.getpid(), take_over=True)
    assert lease.epoch == 2
    store.record(ID, ("note.added", {}), actor="agent-two", lease=lease)
    first.send("write")
    before = store.get(ID), next(store.layout.log(ID).iterdir()).read_bytes()
    first.process.send_signal(signal.SIGCONT)
    for said in (first._said(), first.do("renew"), first.do("write")):
        assert said.startswith(f"fenced The lease of agent-one on {ID} (epoch 1) ended; now it is held by agent-two")
    assert first.do("detach") == f"done {before[0].rev}"
    assert (store.get(ID), next(store.layout.log(ID).iterdir()).read_bytes()) == before
    assert [e.epoch for e in store.history(ID) if e.type == "note.added"] == [1, 2]


def test_collaborators_write_side_by_side_and_shut_out_who_wants_it_alone(
    store: Store, task: Task, spawn: Spawn
) -> None:
    one, two = (Agent(spawn, name, "collaborative") for name in ("agent-one", "agent-two"))
    assert (one.attached, two.attached) == ("epoch 1", "epoch 1")
    for agent in (one, two, one, two):
        assert agent.do("write").startswith("done ")
    assert Agent(spawn, "agent-three").attached.startswith("held ")
    assert one.do("detach").startswith("done ")
    assert one.do("write").startswith("fenced ")
    assert two.do("write").startswith("done ")
    assert _authors(store) == ["agent-one", "agent-two", "agent-one", "agent-two", "agent-two"]


def test_of_eight_that_claim_a_task_at_once_one_gets_it(store: Store, spawn: Spawn) -> None:
    claimer = """
from opencode_tasks.errors import ConflictError
from opencode_tasks.values import replace
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    try:
        store.attach(f"claim-{n:06d}", f"agent-{os.getpid()}", actor="test", pid=os.getpid())
        print(n)
    except ConflictError:
        pass
print("end", flush=True)
sys.stdin.readline()
"""
    rounds = 40
    for n in range(rounds):
        create(store, f"claim-{n:06d}")
    claimers = [spawn(claimer, str(rounds), hot=n % 2 == 0) for n in range(8)]
    outs = [c.stdout for c in claimers if c.stdout is not None]
    for out in outs:
        out.readline()
    for process in claimers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [[int(line) for line in iter(out.readline, "end\n")] for out in outs]
    assert sorted(n for mine in won for n in mine) == list(range(rounds))
    assert [store.get(f"claim-{n:06d}").rev for n in range(rounds)] == [2] * rounds
