"""What the store costs, beside what the disk costs: a bare append + fdatasync in the same run.

    python -m benchmarks.store [--tasks N] [--events N] [--json]

`docs/benchmarks.md` has the method and figures.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import timing
from benchmarks.timing import Row
from opencode_tasks.events import New
from opencode_tasks.store import Store, log
from opencode_tasks.store.index import Query
from opencode_tasks.store.log import Head
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace, new_id

_WORDS = [
    "parser",
    "login",
    "timeout",
    "cache",
    "retry",
    "schema",
    "index",
    "worker",
    "queue",
    "token",
    "session",
    "upload",
    "render",
    "filter",
    "export",
    "import",
    "search",
    "layout",
    "button",
    "dialog",
    "report",
    "invoice",
    "payment",
    "webhook",
    "socket",
    "buffer",
    "thread",
    "lock",
    "config",
    "docs",
    "test",
    "build",
]
_FEW = 1000
_COMMAND: New = ("command.finished", {"run": "0" * 32, "exit_code": 0, "duration_ms": 812, "output_tail": "3 passed"})
_STARTED: New = ("command.started", {"run": "0" * 32, "argv": ["pytest", "-x", "tests"], "cwd": "/src/project"})


def p99(samples: Sequence[float]) -> float:
    return statistics.quantiles(samples, n=100)[98]


def sampled_ms(times: int, call: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


@contextmanager
def _store() -> Iterator[Store]:
    """On the disk that temporary files are on, which must be none in memory."""
    place = Path(tempfile.mkdtemp(prefix="opencode-tasks-bench-", dir="/var/tmp"))
    try:
        made = Store(place, hot=True)
        made.make()
        yield made
    finally:
        shutil.rmtree(place)


def _new(rng: random.Random) -> NewTask:
    title = " ".join(rng.sample(_WORDS, 5))
    task_id = new_id(title)
    base, workspace = Base("main", "a" * 40), Workspace("in-place", "/src/project")
    return NewTask(task_id, title, f"task/{task_id}", base, workspace, owner=rng.choice(("ana", "bo", "cy")))


def _fill(store: Store, tasks: int) -> list[str]:
    """Not what is measured, so not synced."""
    rng, ids = random.Random(tasks), []
    synced, log._FSYNC = log._FSYNC, lambda _fd: None
    try:
        for done in range(0, tasks, 500):
            new = [_new(rng) for _ in range(min(500, tasks - done))]
            ids += [task.id for task in store.create_many(new, actor="bench")]
            _tell(f"making {tasks} tasks", done + len(new), tasks)
    finally:
        log._FSYNC = synced
    return ids


def _tell(what: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done}", end="" if done < of else "\n", file=sys.stderr, flush=True)


def durable_event(rounds: int = 20, each: int = 100) -> list[Row]:
    """A record as `Store.record` writes it, and as many bytes in a bare loop, by turns."""
    ours: list[float] = []
    floor: list[float] = []
    with _store() as store:
        task = store.create(_new(random.Random(1)), actor="bench")
        store.record(task.id, _COMMAND, actor="user:ana")
        (path,) = store.layout.log(task.id).iterdir()
        line_b = path.read_bytes().splitlines(keepends=True)[-1]
        fd = os.open(store.layout.root / "floor", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def bare() -> None:
            os.write(fd, line_b)
            os.fdatasync(fd)

        for _ in range(rounds):
            floor += sampled_ms(each, bare)
            ours += sampled_ms(each, lambda: store.record(task.id, _COMMAND, actor="user:ana"))
        os.close(fd)
    ratio = statistics.median(floor) / statistics.median(ours)
    figure = f"{1000 / statistics.median(ours):,.0f} a second"
    bare_figure = f"{1000 / statistics.median(floor):,.0f} a second ({statistics.median(floor) * 1000:.0f} µs)"
    return [Row("durable event, one process", figure, bare_figure, ratio, "≥ 0.5 times", ratio >= 0.5)]


def _agent(place: str, task_id: str, count: int, number: int) -> None:
    store = Store(Path(place), hot=True)
    for n in range(count):
        store.record(task_id, ("note.added", {"agent": number, "n": n}), actor=f"agent-{number}")


def ten_agents(count: int = 500) -> list[Row]:
    with _store() as store:
        task = store.create(_new(random.Random(2)), actor="bench")
        place = str(store.layout.common_dir)
        spawn = multiprocessing.get_context("fork")
        agents = [spawn.Process(target=_agent, args=(place, task.id, count, n)) for n in range(10)]
        began = time.perf_counter()
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.join()
        rate = 10 * count / (time.perf_counter() - began)
        seen = [(e.data["agent"], e.data["n"]) for e in store.history(task.id) if e.type == "note.added"]
    lost = 10 * count - len(set(seen))
    holds = lost == 0 and rate >= 1000
    goal = "≥ 1,000 a second, none lost"
    return [Row("10 processes, one task", f"{rate:,.0f} a second, {lost} lost", goal=goal, holds=holds)]


def registry(tasks: int) -> list[Row]:
    rows: list[Row] = []
    rng = random.Random(3)
    with _store() as small, _store() as large:
        _fill(small, _FEW)
        ids = _fill(large, tasks)
        created: dict[str, list[float]] = {"small": [], "large": []}
        for _ in range(300):
            for name, store in (("small", small), ("large", large)):
                new = _new(rng)
                created[name] += sampled_ms(1, lambda s=store, n=new: s.create(n, actor="bench"))  # type: ignore[misc]
        at_few = statistics.median(created["small"])
        ratio = statistics.median(created["large"]) / at_few
        slowest = p99(created["large"])
        holds = slowest <= 10 and ratio <= 1.2
        what = f"create a task, durable, at {tasks:,}: p99"
        rows.append(
            Row(what, f"{slowest:.1f} ms", f"{at_few:.2f} ms median at {_FEW:,}", ratio, "≤ 10 ms, ≤ 1.2 times", holds)
        )
        began = time.perf_counter()
        large.index.rebuild()
        took_s = time.perf_counter() - began
        rows.append(Row(f"rebuild the index of {tasks:,}", f"{took_s:.1f} s", goal="≤ 10 s", holds=took_s <= 10))
        calls: dict[str, Callable[[], object]] = {
            "list 50": lambda: large.index.page(Query(), limit=50),
            "get": lambda: large.get(rng.choice(ids)),
            "find, best 20": lambda: large.index.find(" ".join(rng.sample(_WORDS, 3)), limit=20),
        }
        for name, call in calls.items():
            slowest = p99(sampled_ms(300, call))
            what = f"{name} at {tasks:,}, in process: p99"
            rows.append(Row(what, f"{slowest:.1f} ms", goal="≤ 5 ms", holds=slowest <= 5))
        rows.append(_command(large.layout.store))
    return rows


def _command(store: Path) -> Row:
    """The whole process of `list-tasks`, in a repository whose store is a link to the one at hand."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        subprocess.run(("git", "init", "--quiet", folder), check=True)
        Path(folder, ".git", "opencode-tasks").symlink_to(store.parent)
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        stderr = Path(folder, "stderr")
        ours = timing.Step("ours", (sys.executable, "-I", "-m", "opencode_tasks", "list-tasks"), env)
        bare = timing.Step("bare", (sys.executable, "-I", "-c", "pass"), env)
        with contextlib.chdir(folder):
            samples = timing.measure([[ours], [bare]], rounds=20, stderr=stderr)
    ours_ms, bare_ms = samples.median_ms("ours"), samples.median_ms("bare")
    ratio = ours_ms / bare_ms
    return Row("`list-tasks`, whole process", f"{ours_ms:.0f} ms", f"{bare_ms:.0f} ms", ratio, "≤ 5 times", ratio <= 5)


def _written(store: Store, task_id: str, events: int) -> None:
    """As many events as agents would have written one by one, in segments of the usual size; not synced."""
    _, at = store.load(task_id)
    head, lam = at.heads[store.writer], at.lam
    folder = store.layout.log(task_id)
    done = 0
    while done < events:
        if head.size_bytes >= log.SEAL_BYTES:
            head = Head(head.segment + 1, head.seq, head.h, 0)
        with (folder / log.name_of(store.writer, head.segment)).open("ab") as f:
            while head.size_bytes < log.SEAL_BYTES and done < events:
                new = _COMMAND if done % 2 else _STARTED
                _, line_b, head = log.lines(store.writer, head, lam, "user:ana", 0, [new])
                f.write(line_b)
                done, lam = done + 1, lam + 1
        _tell(f"making {events} events", done, events)


def fold(events: int) -> list[Row]:
    """Every record read, verified and folded, without a projection; beside it json and SHA-256 of the same lines."""
    with _store() as store:
        task = store.create(_new(random.Random(4)), actor="bench")
        _written(store, task.id, events)
        began = time.perf_counter()
        folded = store.from_start(task.id)
        took_s = time.perf_counter() - began
        if folded.rev != events + 1:
            raise timing.BenchmarkError(f"{folded.rev} events folded, not {events + 1}")
        segments = log.segments(store.layout.log(task.id))
        lines = log.content(next(iter(segments.values()))[0]).splitlines(keepends=True)
    began = time.perf_counter()
    for line_b in lines:
        json.loads(line_b)
        hashlib.sha256(line_b).hexdigest()
    floor_s = (time.perf_counter() - began) / len(lines) * events
    floor = f"{floor_s:.1f} s: json and SHA-256"
    return [Row(f"fold {events:,} events", f"{took_s:.1f} s", floor, took_s / floor_s, "≤ 5 s", took_s <= 5)]


def hook_memory() -> list[Row]:
    """The most memory that a process of the post-checkout module had, against a bare interpreter."""
    measured = {}
    for name, code in (("ours", "import opencode_tasks.git_hooks.post_checkout"), ("bare", "pass")):
        # Not getrusage: what it tells of a child began with the size of its parent.
        told = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
        argv = (sys.executable, "-I", "-c", f"{code}\n{told}")
        runs = [int(subprocess.run(argv, capture_output=True, check=True, text=True).stdout) for _ in range(5)]
        measured[name] = statistics.median(runs) / 1024
    ratio = measured["ours"] / measured["bare"]
    return [
        Row(
            "memory of a hook",
            f"{measured['ours']:.1f} MiB",
            f"{measured['bare']:.1f} MiB",
            ratio,
            "≤ 2 times",
            ratio <= 2,
        )
    ]


def _arguments(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.store", description="What the store costs.")
    parser.add_argument("--tasks", type=int, default=100_000, help="in the large store (100000)")
    parser.add_argument("--events", type=int, default=1_000_000, help="to fold (1000000)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0 measured and no goal missed, 1 otherwise."""
    args = _arguments(argv)
    return timing.report(
        lambda: [*durable_event(), *ten_agents(), *hook_memory(), *registry(args.tasks), *fold(args.events)],
        as_json=args.json,
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
