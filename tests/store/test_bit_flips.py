"""Wrong bytes anywhere in a task's files never make a wrong state.

What may be claimed. Let the *truth* be the events that were acknowledged. After any harm to
`state.json`, segments, packed segments or snapshots, `Store.get` has exactly three answers:

1. the true state. If the log had to be mended for it, the task's log says so: records
   `log.repaired` follow, which count in `rev` and change nothing else;
2. `CorruptError` (or, where the harm made a record say that it is of a later schema,
   `newer_schema`): nothing is guessed;
3. an older state, and only where no bytes are left that tell of a newer one: the log ends after
   a whole batch, or in a fragment without a newline, as a killed writer leaves it, and no sound
   `state.json` or snapshot knows more.

The second line of defence is `from_start`, which reads every record and believes no projection:
it has the same three answers, and never the first one when a record is wrong.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, decode
from opencode_tasks.fold import Folding
from opencode_tasks.store import Store, log, state
from opencode_tasks.task import Task
from tests.store.conftest import ID, new
from tests.store.faults import in_memory

CASES = 100_000
_WORKERS = 2
Files = dict[Path, bytes]


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def store(memory: Path) -> Iterator[Store]:
    """A task of four segments, with batches, decisions, statuses, and a projection that is two events behind."""
    made = Store(memory, hot=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_FSYNC", lambda _: None)
        patch.setattr(log, "SEAL_BYTES", 1700)
        made.make()
        made.create(new(), actor="test")
        made.ensure_status(ID, "running", reason="", actor="test")
        for n in range(4):
            made.record(ID, _note(n), actor="test")
            made.record(ID, ("commit.recorded", {"sha": f"{n}" * 40}), _note(n), _note(n), actor="agent:ü")
            made.update(ID, {"title": f"Fix the parser {n} ⚙"}, actor="test")
        made.attach(ID, "agent", actor="agent")
        made.record(ID, _counted(1), _counted(2), actor="test")
        made.record(ID, _counted(3), actor="test")
        yield made


def _note(n: int) -> tuple[str, dict[str, object]]:
    return "note.added", {"n": n, "text": "naïve ⚙ \u2028 text\n\0" * 3}


def _counted(n: int) -> tuple[str, dict[str, object]]:
    return "command.output", {"n": n, "run": "r1", "text": "ok\n"}


class Truth:
    """What was acknowledged, and what each file was."""

    def __init__(self, store: Store) -> None:
        self.layout = store.layout
        self.files: Files = {p: p.read_bytes() for p in sorted(_harmable(store))}
        self.segments = [s.path for s in log.segments(store.layout.log(ID))[store.writer]]
        self.events = list(store.history(ID))
        folding = Folding()
        self.states: list[Task] = []
        """After each whole batch; the last is the truth."""
        for event in self.events:
            folding.step(event)
            if not event.follow_on:
                self.states.append(folding.task())

    @property
    def state(self) -> Task:
        return self.states[-1]

    def is_told(self, task: Task) -> bool:
        """The truth, and, if the log was mended, what says so."""
        if task == self.state:
            return True
        stream = Store(self.layout.common_dir, hot=True)._stream(ID)
        more = list(stream.events())[len(self.events) :]
        folding = Folding(self.state)
        for event in more:
            folding.step(event)
        return bool(more) and {e.type for e in more} == {"log.repaired"} and folding.task() == task

    def may_be_older(self, task: Task) -> bool:
        """Whether nothing that is left in the files tells of more than `task` has."""
        if task not in self.states:
            return False
        known = [0]
        for path in self.files:
            if path.name.endswith((".json", ".json.corrupt")):
                with suppress(TaskError, OSError):
                    known.append(state.read(path)[0].rev)
        if task.rev < max(known):
            return False
        lines = b"".join(_content(path) for path in self.segments)
        rest = lines
        for event in self.events[: task.rev]:
            line, newline, rest = rest.partition(b"\n")
            if not newline or decode(line + newline) != event:
                return False
        return _is_end_of_killed(rest)


def _content(path: Path) -> bytes:
    segment = log.parse_name(path)
    assert segment is not None
    with suppress(TaskError):
        return log.content(segment)
    return b""


def _is_end_of_killed(rest: bytes) -> bool:
    """Whole records that announce more of their batch, and a fragment."""
    *whole, fragment = rest.split(b"\n")
    for line in whole:
        try:
            if not decode(line + b"\n").follow_on:
                return False
        except TaskError:
            return False
    with suppress(TaskError):
        decode(fragment[:-1] + b"\n")
        return False
    return True


def _harmable(store: Store) -> list[Path]:
    return [store.layout.state(ID), *store.layout.log(ID).iterdir()]


@pytest.fixture(scope="module")
def truth(store: Store) -> Truth:
    made = Truth(store)
    kinds = {path.name.partition(".")[2] for path in made.files}
    assert kinds == {"json", "jsonl", "jsonl.gz", "snapshot.json"}
    assert state.read(store.layout.state(ID))[0].rev == made.state.rev - 3
    assert store.get(ID) == made.state
    return made


Harm = Callable[[random.Random, bytes, bytes], bytes]
"""Of a file's bytes and those of some other file."""


def _flip(luck: random.Random, b: bytes, _: bytes) -> bytes:
    at = luck.randrange(len(b))
    return b[:at] + bytes([b[at] ^ (1 << luck.randrange(8))]) + b[at + 1 :]


def _flip_several(luck: random.Random, b: bytes, other: bytes) -> bytes:
    for _ in range(luck.randint(2, 9)):
        b = _flip(luck, b, other)
    return b


def _slice(luck: random.Random, b: bytes) -> tuple[int, int]:
    return tuple(sorted((luck.randint(0, len(b)), luck.randint(0, len(b)))))  # type: ignore[return-value]


def _splice(luck: random.Random, b: bytes, other: bytes) -> bytes:
    """A piece of another file in the place of a piece of this one."""
    start, end = _slice(luck, b)
    first, last = _slice(luck, other)
    return b[:start] + other[first:last] + b[end:]


def _splice_lines(luck: random.Random, b: bytes, other: bytes) -> bytes:
    """Whole lines of another file, or of this one again, or none, in the place of whole lines."""
    lines, others = b.splitlines(keepends=True), luck.choice((b, other)).splitlines(keepends=True)
    start, end = _slice(luck, bytes(len(lines)))
    first, last = _slice(luck, bytes(len(others)))
    return b"".join([*lines[:start], *others[first:last], *lines[end:]])


def _cut(luck: random.Random, b: bytes, _: bytes) -> bytes:
    return b[: luck.randrange(len(b))]


def _cut_out(luck: random.Random, b: bytes, _: bytes) -> bytes:
    start, end = _slice(luck, b)
    return b[:start] + b[end:]


def _zeros(luck: random.Random, b: bytes, _: bytes) -> bytes:
    """What a power loss leaves of blocks that were allocated and not written."""
    start, end = _slice(luck, b)
    return b[:start] + bytes(end - start) + b[end:]


def _bad_utf8(luck: random.Random, b: bytes, _: bytes) -> bytes:
    at = luck.randrange(len(b))
    bad = luck.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x28"))
    return b[:at] + bad + b[at + luck.choice((0, len(bad))) :]


HARM: Sequence[tuple[Harm, float]] = (
    (_flip, 0.55),
    (_flip_several, 0.1),
    (_splice, 0.08),
    (_splice_lines, 0.05),
    (_cut, 0.05),
    (_cut_out, 0.05),
    (_zeros, 0.04),
    (_bad_utf8, 0.08),
)


def test_the_tail_cut_at_every_byte(store: Store, truth: Truth) -> None:
    """With the projection, a cut below what it knows is refused; without any, the whole batches that are left count."""
    newest = truth.segments[-1]
    content_b = truth.files[newest]
    for projected in (True, False):
        seen = set()
        for left in range(len(content_b)):
            _restore(truth)
            if not projected:
                _without_projections(truth)
            newest.write_bytes(content_b[:left])
            answer = _answer(truth)
            seen.add(answer)
            assert answer in ("true", "older", "refused")
            if not projected:
                assert answer == "older"
                written = Store(truth.layout.common_dir, hot=True).record(ID, ("went.on", {}), actor="test")
                assert written == Store(truth.layout.common_dir, hot=True).from_start(ID)
        assert seen == ({"older", "refused"} if projected else {"older"})
    _restore(truth)


def _without_projections(truth: Truth) -> None:
    for path in truth.files:
        if path.name.endswith(".json"):
            path.unlink()


def _answer(truth: Truth) -> str:
    store = Store(truth.layout.common_dir, hot=True)
    try:
        task = store.get(ID)
    except CorruptError:
        return "refused"
    except TaskError as e:
        return "refused" if e.code == "newer_schema" else f"{e.code}: {e.message}"
    if truth.is_told(task):
        return "true"
    return "older" if truth.may_be_older(task) else f"WRONG {task}"


def _restore(truth: Truth) -> None:
    folder = truth.layout.task(ID)
    for path in (*folder.iterdir(), *(folder / "log").iterdir()):
        if ".corrupt-" in path.name or ".torn-" in path.name or path.name.startswith("."):
            path.unlink()
    for path in set(_harmable(Store(truth.layout.common_dir))) - set(truth.files):
        path.unlink(missing_ok=True)
    for path, content_b in truth.files.items():
        path.write_bytes(content_b)


def test_no_harm_makes_a_wrong_state(store: Store, truth: Truth, memory: Path) -> None:
    """100,000 of them, the same in every run. Half the time another file is harmed as well, or missing."""
    workers = []
    for n in range(_WORKERS):
        place = memory / f"worker-{n}"
        shutil.copytree(store.layout.root, place / store.layout.root.name)
        workers.append(_fork(place, range(n, CASES, _WORKERS)))
    found = [_joined(pid, out) for pid, out in workers]
    assert [problem for told, problem in found if problem] == []
    counts = {answer: sum(told.get(answer, 0) for told, _ in found) for answer in ("true", "older", "refused")}
    assert sum(counts.values()) == CASES
    assert min(counts.values()) > CASES // 200, counts


def _fork(place: Path, seeds: range) -> tuple[int, int]:
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(out)
            os.write(into, _run(place, seeds).encode())
        finally:
            os._exit(0)
    os.close(into)
    return pid, out


def _joined(pid: int, out: int) -> tuple[dict[str, int], str]:
    with open(out) as f:
        said = f.read()
    os.waitpid(pid, 0)
    counts, _, problem = said.partition("\n")
    return dict((k, int(v)) for k, v in (word.split("=") for word in counts.split())), problem


def _run(place: Path, seeds: range) -> str:
    truth = Truth(Store(place, hot=True))
    counts: dict[str, int] = {}
    for seed in seeds:
        try:
            answer = _case(truth, seed)
        except Exception as e:  # noqa: BLE001 (whatever it is, it is a finding)
            answer = f"RAISED {e!r}"
        if answer not in ("true", "older", "refused"):
            return f"\ncase {seed}: {answer}"
        counts[answer] = counts.get(answer, 0) + 1
    return " ".join(f"{k}={v}" for k, v in counts.items()) + "\n"


def _case(truth: Truth, seed: int) -> str:
    luck = random.Random(seed)
    _restore(truth)
    paths = list(truth.files)
    newest = truth.segments[-1]
    # Where the newest events are, and what is read first, more often than chance would have it.
    harmed = luck.choice((luck.choice(paths), newest, newest, truth.layout.state(ID)))
    if luck.random() < 0.5:
        others = [p for p in paths if p.name.endswith(".json") and p != harmed]
        for path in luck.sample(others, luck.randint(1, len(others))):
            if luck.random() < 0.7:
                path.unlink()
            else:
                path.write_bytes(_flip(luck, truth.files[path], b""))
    harm = luck.choices([h for h, _ in HARM], [w for _, w in HARM])[0]
    harmed.write_bytes(harm(luck, truth.files[harmed], truth.files[luck.choice(paths)]))
    if seed % 8 == 0:
        _check_from_start(truth)
    answer = _answer(truth)
    if answer in ("true", "older") and seed % 16 == 0:
        _check_going_on(truth)
    return answer


def _check_from_start(truth: Truth) -> None:
    with suppress(TaskError):
        task = Store(truth.layout.common_dir, hot=True).from_start(ID)
        assert task == truth.state or truth.may_be_older(task), "from_start"


def _check_going_on(truth: Truth) -> None:
    """A write is refused, or comes after everything that was read."""
    before = Store(truth.layout.common_dir, hot=True).get(ID)
    with suppress(TaskError):
        after = Store(truth.layout.common_dir, hot=True).record(ID, ("went.on", {}), actor="test")
        assert (after.rev, after.title) == (before.rev + 1, before.title), "record"
        assert Store(truth.layout.common_dir, hot=True).get(ID) == after, "what was written"
