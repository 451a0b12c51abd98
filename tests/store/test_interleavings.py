"""Several writers of one task, whatever of each other they know when: all come to the same bytes."""

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_tasks import fold
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.events import Event, New
from opencode_tasks.store import Store, leases, log, state
from opencode_tasks.store.leases import FencedError, Life, Process
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.task import OPEN, STATUSES, TRANSITIONS, Lease, Mode, Status, Task
from tests.store.conftest import ID, create, new

_AGENTS = ("x", "y")
_MODES: tuple[Mode, ...] = ("exclusive", "collaborative")
_LIVES: tuple[Life, ...] = ("alive", "dead")

_Action = tuple[str, Any]
_Step = tuple[str, int, int, _Action]
"""`act`: the first clone does the action. `deliver`: the second one's log reaches the first, `part` of it: torn."""

_actions: st.SearchStrategy[_Action] = st.one_of(
    st.tuples(st.just("status"), st.sampled_from(STATUSES)),
    st.tuples(st.just("title"), st.sampled_from("abc")),
    st.tuples(st.just("depends"), st.lists(st.sampled_from(["d-000000", "e-000000"]), max_size=2, unique=True)),
    st.tuples(
        st.just("attach"),
        st.tuples(st.sampled_from(_AGENTS), st.sampled_from(_MODES), st.sampled_from(_LIVES), st.integers(1, 2)),
    ),
    st.tuples(
        st.just("attach"), st.tuples(st.sampled_from(_AGENTS), st.sampled_from(_MODES), st.just("dead"), st.just(1))
    ),
    st.tuples(st.just("detach"), st.sampled_from(_AGENTS)),
    st.tuples(st.just("event"), st.sampled_from(["command.started", "note.added", "from.the.future", "log.repaired"])),
    st.tuples(st.just("batch"), st.integers(2, 4)),
    st.tuples(st.just("child"), st.sampled_from(["c-000000", "c-000001"])),
    st.tuples(st.just("delete"), st.just(None)),
)
_steps = st.lists(
    st.tuples(st.sampled_from(["act"] * 3 + ["deliver", "part"]), st.integers(0, 3), st.integers(0, 3), _actions),
    min_size=4,
    max_size=24,
)
_clones = st.integers(2, 4)


def _said(task: Task, action: _Action, who: int) -> list[New]:  # noqa: PLR0911 (a table)
    """What clone `who` records; nothing where that is not possible. Raises `TaskError` as the commands do."""
    match action:
        case ("status", to) if to != task.status:
            return [("status.changed", {"from": task.status, "to": to, "reason": ""})]
        case ("title", title):
            return [fold.update(task, {"title": title})]
        case ("depends", ids):
            return [fold.update(task, {"depends_on": ids})]
        case ("attach", (str(agent), mode, life, int(pid))):
            here = Process(f"host{who}", f"boot{who}", pid, "1@x")
            lives = {held.agent: life for held in task.leases}
            made = leases.decide(task, agent, mode, 60, here, lives, take_over=False)
            return [] if isinstance(made, Lease) else [made]
        case ("detach", agent):
            held = [lease for lease in task.leases if lease.agent == agent]
            return [("lease.released", {"agent": h.agent, "epoch": h.epoch, "since": h.since}) for h in held]
        case ("event", str(type_)):
            return [(type_, {"lost": f"{who}", "n": 1})]
        case ("batch", int(n)):
            return [("note.added", {"n": at}) for at in range(n)]
        case ("child", child):
            return [("child.added", {"id": child})]
        case ("delete", _):
            return [("task.deleted", {"reason": ""})]
    return []


class Clone:
    """What one clone knows, without files."""

    def __init__(self, n: int, first: Event | None = None) -> None:
        self.n, self.writer, self.head = n, f"clone{n}-host", Head()
        self.known: dict[tuple[str, int], Event] = {} if first is None else {(first.w, first.seq): first}

    def write(self, *said: New) -> list[Event]:
        lam = max((event.lam for event in self.known.values()), default=0)
        events, _, self.head = log.lines(self.writer, self.head, lam, "test", 0, said)
        self.known |= {(event.w, event.seq): event for event in events}
        return events

    def act(self, action: _Action) -> None:
        task = self.task()
        try:
            said = _said(task, action, self.n)
            fold.check(task, said)
        except TaskError:
            return
        if said:
            self.write(*said)

    def task(self) -> Task:
        task = fold.fold(self.known.values())
        require_possible(task, self.known.values())
        return task


def require_possible(task: Task, events: Iterable[Event]) -> None:
    """What is true of a task, whatever was merged."""
    once = {(event.w, event.seq): event for event in events}
    assert task.rev == len(once)
    assert task.epoch == max([e.data["epoch"] for e in once.values() if e.type == "lease.taken"], default=0)
    assert min(vars(task.spent).values()) >= 0
    assert len(set(task.agents)) == len(task.agents)
    assert "exclusive" not in [lease.mode for lease in task.leases] or len(task.leases) == 1


def _rendered(events: Iterable[Event]) -> bytes:
    return state.render(fold.fold(events), Position())


@settings(derandomize=True, deadline=None, max_examples=250)
@given(_clones, _steps, st.randoms(use_true_random=False))
def test_any_order_of_events_and_any_duplication_folds_to_the_same_bytes(
    n: int, steps: list[_Step], chance: random.Random
) -> None:
    origin = Clone(0)
    data = {**vars(new()), "base": vars(new().base), "workspace": vars(new().workspace), "limits": {}}
    (created,) = origin.write(("task.created", data))
    clones = [origin, *(Clone(i, created) for i in range(1, n))]
    for do, i, j, action in steps:
        here, there = clones[i % n], clones[j % n]
        if do == "act":
            here.act(action)
        else:
            # All of it, or what the other wrote itself: then what that built on may be missing here.
            here.known |= {k: e for k, e in there.known.items() if do == "deliver" or e.w == there.writer}
            here.task()
    events = [event for clone in clones for event in clone.known.values()]
    require_possible(fold.fold(events), events)
    wanted_b = _rendered(events)
    for _ in range(3):
        shuffled = events + chance.choices(events, k=chance.randrange(10))
        chance.shuffle(shuffled)
        assert _rendered(shuffled) == wanted_b


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([s for s in STATUSES if s in OPEN or s == "completed"]), max_size=6), _clones)
def test_a_task_that_any_writer_closed_is_closed_for_all(path: list[Status], n: int) -> None:
    origin = Clone(0)
    data = {**vars(new()), "base": vars(new().base), "workspace": vars(new().workspace), "limits": {}}
    (created,) = origin.write(("task.created", data))
    clones = [origin, *(Clone(i, created) for i in range(1, n))]
    for at, to in enumerate(path):
        clones[at % n].act(("status", "running"))
        clones[at % n].act(("status", to))
    clones[-1].act(("status", "cancelled"))
    alone = [clone.task().status for clone in clones]
    merged = fold.fold(event for clone in clones for event in clone.known.values())
    assert not TRANSITIONS[merged.status]
    assert merged.status in alone


class Place:
    """A clone with its store, in a directory of its own."""

    def __init__(self, n: int, top: Path) -> None:
        self.n, self.top = n, top / f"clone{n}"
        self.top.mkdir()
        self.store = self.opened()
        self.store.make()
        self.store.layout.clone.write_text(f"clone{n}\n")
        self.store = self.opened()
        if n == 0:
            create(self.store)
        self.log = self.store.layout.log(ID)
        self.log.mkdir(parents=True, exist_ok=True)

    def opened(self) -> Store:
        return Store(self.top, hot=True)

    def act(self, action: _Action) -> None:
        task = self.store.get(ID)
        try:
            said = _said(task, action, self.n)
            if said:
                self.store.record(ID, *said, actor="test")
        except TaskError as e:
            assert e.code in ("held", "transition", "deleted")  # noqa: PT017 (else it succeeds)

    def receive(self, other: "Place", *, part: float = 1.0) -> None:
        """The other's own segments, as a copy that may be broken off anywhere, but never takes back."""
        for path in other.log.glob(f"{other.store.writer}-*.jsonl*"):
            content_b, mine = path.read_bytes(), self.log / path.name
            if path.name.endswith(".gz"):
                mine.write_bytes(content_b)
                mine.with_suffix("").unlink(missing_ok=True)
            elif not mine.exists() or mine.stat().st_size < len(content_b):
                # Only the newest may be short: what follows a segment continues it.
                short = (
                    int(len(content_b) * part) if path == max(other.log.glob(f"{other.store.writer}-*.jsonl")) else None
                )
                if not mine.exists() or short is None or mine.stat().st_size < short:
                    mine.write_bytes(content_b[:short])

    def require_sound(self) -> bytes:
        """The task is what its log says, to this and to a new process, with the projection or without."""
        task, at = self.store.load(ID)
        events = list(self.store.history(ID))
        require_possible(task, events)
        newest = {event.w: event for event in events}
        assert not any(event.follow_on for event in newest.values()), "part of a batch"
        rendered_b = state.render(task, at)
        assert task == self.store.from_start(ID) == fold.fold(events)
        assert state.render(*self.opened().load(ID)) == rendered_b
        return rendered_b


@settings(derandomize=True, deadline=None, max_examples=40)
@given(_clones, _steps, st.sampled_from([400, 1500, log.SEAL_BYTES]), st.randoms(use_true_random=False))
def test_clones_that_exchange_their_logs_come_to_the_same_bytes(
    n: int, steps: list[_Step], seal_bytes: int, chance: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as sealing:
        sealing.setattr(log, "SEAL_BYTES", seal_bytes)
        places = [Place(i, Path(top)) for i in range(n)]
        for place in places[1:]:
            place.receive(places[0])
        for do, i, j, action in steps:
            here, there = places[i % n], places[j % n]
            if do == "act":
                here.act(action)
            elif here is not there:
                here.receive(there, part=chance.random() if do == "part" else 1.0)
            here.require_sound()
        for place in chance.sample(places, n):
            for other in chance.sample(places, n):
                if other is not place:
                    place.receive(other)
        rendered = {place.require_sound() for place in places}
        assert len(rendered) == 1
        for place in places:
            place.store.rebuild(ID)
            projected_b = place.store.layout.state(ID).read_bytes()
            assert {projected_b} == rendered


def test_a_revision_counts_what_other_clones_wrote(tmp_path: Path) -> None:
    here, there = Place(0, tmp_path), Place(1, tmp_path)
    there.receive(here)
    there.act(("event", "note.added"))
    here.act(("title", "b"))
    here.receive(there)
    assert here.opened().get(ID).rev == 3
    with pytest.raises(ConflictError, match="at revision 3, and you go by 2"):
        here.opened().record(ID, ("note.added", {}), actor="test", expected_rev=2)
    assert here.opened().record(ID, ("note.added", {}), actor="test", expected_rev=3).rev == 4


def test_two_clones_that_gave_one_name_the_same_epoch_find_out(tmp_path: Path) -> None:
    places = [Place(0, tmp_path), Place(1, tmp_path)]
    places[1].receive(places[0])
    held: list[Lease] = []
    for place in places:
        place.act(("attach", ("x", "exclusive", "dead", 1)))
        held += place.store.get(ID).leases
        while log.now() == held[0].since:
            pass  # what tells the two apart is when they were taken, in ms
    assert [(lease.agent, lease.epoch) for lease in held] == [("x", 1), ("x", 1)]
    places[0].receive(places[1])
    merged = places[0].opened()
    assert merged.get(ID).leases == (held[1],)
    assert [(c.field, c.kept, c.lost) for c in merged.get(ID).conflicts] == [("lease", "x", "x")]
    with pytest.raises(FencedError, match=rf"now it is held by x \(epoch 1, since {held[1].since}"):
        merged.record(ID, ("note.added", {}), actor="test", lease=held[0])
    assert merged.record(ID, ("note.added", {}), actor="test", lease=held[1]).rev == 4
