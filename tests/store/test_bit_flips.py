"""Wrong bytes anywhere in a task's files never make a wrong state.

What may be claimed. Let the *truth* be the events that were acknowledged. After any harm to
`state.json`, segments, packed segments or snapshots, `Store.get`, and `load`, which mends nothing,
have exactly three answers:

1. the true state. If the log had to be mended for it, the task's log says so: records
   `log.repaired` follow, which count in `rev` and change nothing else;
2. `CorruptError` (or, where the harm made a record say that it is of a later schema,
   `newer_schema`): nothing is guessed;
3. an older state (with such records on top, if it had to be mended), and only where no bytes are
   left that tell of a newer one: no sound `state.json` or snapshot knows more, and the log ends
   after a whole batch, or in a fragment without a newline, as a killed writer leaves it.

`from_start`, which believes no projection, has the same three answers.
"""

import gc
import gzip
import os
import random
import shutil
import signal
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pytest

from opencode_tasks import events
from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError
from opencode_tasks.fold import Folding
from opencode_tasks.store import Store, damage, log, state
from opencode_tasks.task import Task
from tests.store.conftest import ID, new
from tests.store.faults import in_memory

CASES = 100_000
_WORKERS = os.cpu_count() or 2

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")
Files = dict[Path, bytes]


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def store(memory: Path) -> Iterator[Store]:
    """A task of three segments, with batches, decisions, statuses, and a projection that is three events behind."""
    made = Store(memory, hot=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_FSYNC", lambda _: None)
        patch.setattr(log, "SEAL_BYTES", 1800)
        made.make()
        made.create(new(), actor="test")
        made.ensure_status(ID, "running", reason="", actor="test")
        for n in range(2):
            made.record(ID, _note(n), actor="test")
            made.record(ID, ("commit.recorded", {"sha": f"{n}" * 40}), _note(n), _note(n), actor="agent:ü")
            made.update(ID, {"title": f"Fix the parser {n} ⚙"}, actor="test")
            made.attach(ID, f"agent-{n}", actor="agent", take_over=True)
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
        self.state_path = store.layout.state(ID)
        self._store = store
        self.files: Files = {p: p.read_bytes() for p in sorted(_harmable(store))}
        self.no_projections: Files = {path: b"" for path in self.files if path.name.endswith(".json")}
        folders = store.layout.task(ID), store.layout.log(ID)
        self.names = {folder: {found.name for found in os.scandir(folder)} for folder in folders}
        self.segments = [s.path for s in log.segments(store.layout.log(ID))[store.writer]]
        self.lines = [line for path in self.segments for line in _content(path).splitlines(keepends=True)]
        self.events = [events.decode(line) for line in self.lines]
        folding = Folding()
        self.states: dict[int, Task] = {}
        """After so many events, where a batch ends; the last is the truth."""
        for count, event in enumerate(self.events, 1):
            folding.step(event)
            if not event.follow_on:
                self.states[count] = folding.task()

    @property
    def state(self) -> Task:
        return self.states[len(self.events)]

    def open(self) -> Store:
        """As another process sees it."""
        self._store._streams.clear()  # all that it remembers
        return self._store

    def count(self, task: Task) -> int | None:
        """How many of the true events make up `task`; there may be repairs on top. None: it is something else."""
        if self.states.get(task.rev) == task:
            return task.rev
        found = list(self.open()._stream(ID).events())
        count = sum(mine == true for mine, true in zip(found, self.events, strict=False))
        if count not in self.states or not found[count:] or {e.type for e in found[count:]} != {"log.repaired"}:
            return None
        folding = Folding(self.states[count])
        for event in found[count:]:
            folding.step(event)
        return count if folding.task() == task else None

    def tells_of_more(self, harmed: Files, count: int) -> bool:
        """Whether in what was left of the files there is anything of a later event than the first `count`."""
        left = {**self.files, **harmed}
        for path, content_b in left.items():
            if path.name.endswith(".json"):
                with suppress(TaskError):
                    if state.parse(content_b, path)[0].rev > count:
                        return True
        content = b"".join(_content(path, left[path]) for path in self.segments)
        *whole, fragment = content.split(b"\n")
        lines = Counter(line + b"\n" for line in whole)
        later = set(self.lines[count:]) & set(lines)
        # Unless the rest of their batch is gone: they do not count without it.
        if any(not events.decode(line).follow_on for line in later):
            return True
        unsound_bytes = sum(len(line) * n for line, n in lines.items() if line not in self.lines)
        missing_bytes = sum(len(line) for line in self.lines[:count] if line not in lines)
        return unsound_bytes > missing_bytes or fragment[:-1] + b"\n" in self.lines[count:]


def _content(path: Path, content_b: bytes | None = None) -> bytes:
    content_b = path.read_bytes() if content_b is None else content_b
    if path.name.endswith(log.PACKED):
        try:
            return gzip.decompress(content_b)
        except (OSError, EOFError, zlib.error):
            return b""
    return content_b


def _harmable(store: Store) -> list[Path]:
    return [store.layout.state(ID), *store.layout.log(ID).iterdir()]


@pytest.fixture(scope="module")
def truth(store: Store) -> Truth:
    made = Truth(store)
    kinds = {path.name.partition(".")[2] for path in made.files}
    assert kinds == {"json", "jsonl", "jsonl.gz", "snapshot.json"}
    assert state.read(store.layout.state(ID))[0].rev == made.state.rev - 3
    assert store.get(ID) == made.state == made.open().from_start(ID)
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


def test_the_tail_cut_at_every_byte(truth: Truth) -> None:
    """With the projection, a cut below what it knows is refused; without any, the whole batches that are left count."""
    newest = truth.segments[-1]
    for gone in ({}, truth.no_projections):
        answers = []
        for left in range(len(truth.files[newest])):
            _restore(truth, all_of_it=True)
            harmed = {**gone, newest: truth.files[newest][:left]}
            _harm(harmed)
            answers.append(_answer(truth, harmed))
            if gone and left % 7 == 0:
                written = truth.open().record(ID, ("went.on", {}), actor="test")
                assert written == truth.open().from_start(ID)
        assert set(answers) == ({"older"} if gone else {"older", "refused"})
    _restore(truth, all_of_it=True)


def _harm(harmed: Files) -> None:
    """No bytes: the file is gone."""
    for path, content_b in harmed.items():
        if content_b:
            _write(path, content_b)
        else:
            path.unlink()


def _answer(truth: Truth, harmed: Files, way: str = "get") -> str:
    store = truth.open()
    try:
        task = {"get": store.get, "load": lambda i: store.load(i)[0], "from_start": store.from_start}[way](ID)
    except TaskError as e:
        return "refused" if e.code in ("corrupt", "newer_schema") else f"{e.code}: {e.message}"
    if way == "from_start":
        harmed = {**harmed, **truth.no_projections}
    return _judged(truth, harmed, task)


def _judged(truth: Truth, harmed: Files, task: Task) -> str:
    count = truth.count(task)
    if count is None:
        return f"WRONG {task}"
    if count == len(truth.events):
        return "true"
    return f"LOST all after {count}" if truth.tells_of_more(harmed, count) else "older"


def _restore(truth: Truth, harmed: Files | None = None, *, all_of_it: bool = False) -> None:
    for folder, names in truth.names.items():
        for found in os.scandir(folder):
            if found.name not in names:
                Path(found.path).unlink()
                all_of_it = True
    for path in truth.files if all_of_it or harmed is None else harmed:
        _write(path, truth.files[path])


def _write(path: Path, content_b: bytes) -> None:
    """As `Path.write_bytes`, in half the time."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, content_b)
    finally:
        os.close(fd)


@pytest.mark.timeout(600)
def test_no_harm_makes_a_wrong_state(store: Store, truth: Truth, memory: Path) -> None:
    """100,000 of them, the same in every run. Often another file is harmed as well, or missing."""
    workers = []
    try:
        for n in range(_WORKERS):
            place = memory / f"worker-{n}"
            shutil.copytree(store.layout.root, place / store.layout.root.name)
            workers.append(_fork(place, range(n, CASES, _WORKERS)))
        found = [_said(out) for _, out in workers]
    finally:
        for pid, _ in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
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
            gc.freeze()  # what pytest has made is not looked through, and so not copied
            os.write(into, _run(place, seeds).encode())
        finally:
            os._exit(0)
    os.close(into)
    return pid, out


def _said(out: int) -> tuple[dict[str, int], str]:
    with os.fdopen(out) as f:
        said = f.read()
    counts, _, problem = said.partition("\n")
    return {k: int(v) for k, v in (word.split("=") for word in counts.split())}, problem


def _remember() -> None:
    """What the same bytes gave is not worked out again, where that is all that counts; an error is."""
    events.decode = log.decode = damage.decode = lru_cache(4096)(events.decode)  # type: ignore[attr-defined]
    state.parse = lru_cache(256)(state.parse)
    log.parse_name = lru_cache(256)(log.parse_name)
    gzip.decompress = lru_cache(256)(gzip.decompress)  # type: ignore[assignment]


def _run(place: Path, seeds: range) -> str:
    _remember()
    truth = Truth(Store(place, hot=True))
    counts: dict[str, int] = {}
    for seed in seeds:
        try:
            answer = _case(truth, seed)
        except Exception as e:  # whatever it is, it is a finding
            answer = f"RAISED {e!r}"
        if answer not in ("true", "older", "refused"):
            return f"\ncase {seed}: {answer}"
        counts[answer] = counts.get(answer, 0) + 1
    return " ".join(f"{k}={v}" for k, v in counts.items()) + "\n"


def _case(truth: Truth, seed: int) -> str:
    luck = random.Random(seed)
    harmed = _harms(truth, luck)
    _harm(harmed)
    answer = _answer(truth, harmed, luck.choices(("get", "load", "from_start"), (3, 6, 1))[0])
    goes_on = answer in ("true", "older") and seed % 32 == 1
    if goes_on:
        _check_going_on(truth)
    _restore(truth, harmed, all_of_it=goes_on)
    return answer


def _harms(truth: Truth, luck: random.Random) -> Files:
    paths = list(truth.files)
    projections = list(truth.no_projections)
    # Where the newest events are, and what is read first, more often than chance would have it.
    harmed = luck.choice((luck.choice(paths), truth.segments[-1], truth.segments[-1], truth.state_path))
    made: Files = {}
    if luck.random() < 0.35:
        for path in luck.sample(projections, luck.randint(1, len(projections))):
            made[path] = b"" if luck.random() < 0.7 else _flip(luck, truth.files[path], b"")
    harm = luck.choices([h for h, _ in HARM], [w for _, w in HARM])[0]
    made[harmed] = harm(luck, truth.files[harmed], truth.files[luck.choice(paths)])
    return made


def _check_going_on(truth: Truth) -> None:
    """A write is refused, or comes after everything that was read."""
    with suppress(CorruptError):
        before = truth.open().get(ID)
        after = truth.open().record(ID, ("went.on", {}), actor="test")
        assert (after.rev, after.title) == (before.rev + 1, before.title), "record"
        assert truth.open().get(ID) == after, "what was written"
