"""What a checkpoint and going back take, beside a walk of the same files and `git status`; and other tools' snapshots.

    python -m benchmarks.checkpoints [--rounds N] [--files 10000,50000] [--only speed,disk,others] [--quick] [--json]

`docs/benchmarks.md` has the method and figures.
"""

import json
import os
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks import checkpoint_contest, checkpoint_trees, repositories, timing
from benchmarks.checkpoint_contest import Result
from benchmarks.checkpoint_trees import Tree
from benchmarks.repositories import Bench
from benchmarks.timing import BenchmarkError, Row, Step
from opencode_tasks.checkpoints import restore, seeding, snapshot, upkeep
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.git import discovery
from opencode_tasks.store import Store
from opencode_tasks.task import Task

_T = TypeVar("_T")
_PARTS = ("speed", "disk", "others")
_A_FEW = 10
_EACH_KEPT = 5
_FLOOR = "scandir and stat"


@dataclass
class Measured:
    """Milliseconds by row, of one tree."""

    tree: Tree
    stderr: Path
    ms: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0

    @property
    def bulk(self) -> tuple[int, int, int]:
        """How many files are changed, deleted and added before the large restore."""
        files = len(self.tree.names)
        return min(1000, files // 10), min(100, files // 100), min(50, files // 200)

    def median(self, row: str) -> float:
        return statistics.median(self.ms[row])

    def timed(self, row: str, call: Callable[[], _T]) -> _T:
        began = time.perf_counter()
        result = call()
        self.ms.setdefault(row, []).append((time.perf_counter() - began) * 1000)
        return result

    def status(self, row: str) -> None:
        """A process of the user's, in the user's repository."""
        env = self.tree.repo.env
        argv = (self.tree.repo.run("which", "git").strip(), "-C", str(self.tree.top), "status", "--porcelain")
        self.ms.setdefault(row, []).append(timing.timed_ms(Step(row, argv, env), self.stderr))

    def by_turns(self, first: Callable[[], object], second: Callable[[], object]) -> None:
        """Which comes first alternates: the first may warm what the second reads."""
        self.count += 1
        for call in (first, second) if self.count % 2 else (second, first):
            call()


@dataclass(frozen=True)
class Round:
    """A task that has no checkpoint yet, and all that is measured with it.

    What was changed is on the disk before one goes back: who replaces a file else waits for it to be written.
    """

    measured: Measured
    number: int
    store: Store
    task: Task

    @property
    def tree(self) -> Tree:
        return self.measured.tree

    def take(self, label: str = "") -> tuple[Checkpoint, bool]:
        return snapshot.take(self.store, self.task, kind="auto", label=label, actor="bench")

    def back(self, to: Checkpoint) -> None:
        restore.restore(self.store, self.task, to, actor="bench")

    def first(self) -> None:
        made, is_new = self.measured.timed("first", self.take)
        if not is_new or made.changed < len(self.tree.names):
            raise BenchmarkError(f"the first checkpoint has {made.changed} files")
        checkpoint_trees.settled([self.tree])
        self.take()

    def unchanged(self) -> None:
        def take() -> None:
            _, is_new = self.measured.timed("unchanged", self.take)
            if is_new:
                raise BenchmarkError("what did not change made a checkpoint")

        for _ in range(3):
            self.measured.by_turns(lambda: self.measured.status("status, unchanged"), take)

    def changed(self) -> None:
        names = self.tree.sample(_A_FEW, seed=1)

        def take() -> None:
            made, is_new = self.measured.timed("changed", self.take)
            if not is_new or made.changed != len(names):
                raise BenchmarkError(f"a checkpoint of {len(names)} changed files has {made.changed}")

        for at in range(2):
            self.tree.change(names, f"changed {self.number} {at}")
            self.measured.by_turns(lambda: self.measured.status("status, changed"), take)

    def few_back(self) -> None:
        names = self.tree.sample(_A_FEW, seed=2)
        before, at = self.tree.read(names), self.take("few")[0]
        self.tree.change(names, f"few {self.number}")
        os.sync()
        self.measured.timed("few back", lambda: self.back(at))
        _require(self.tree.read(names) == before, "10 files did not come back")

    def many_back(self) -> None:
        change, delete, add = self.measured.bulk
        names = self.tree.sample(change + delete, seed=3)
        new = [f"src/new{number}/file.txt" for number in range(add)]
        before, at = self.tree.read([*names, *new]), self.take("many")[0]
        self.tree.change(names[delete:], f"many {self.number}")
        self.tree.delete(names[:delete])
        self.tree.write(new, f"new {self.number}\n")
        os.sync()
        self.measured.timed("many back", lambda: self.back(at))
        _require(self.tree.read([*names, *new]) == before, f"{change + delete + add} files are not as they were")
        os.sync()
        self.measured.timed("replaced", lambda: self.tree.replace(names))
        checkpoint_trees.settled([self.tree])
        self.take()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BenchmarkError(otherwise)


def sampled(bench: Bench, tree: Tree, rounds: int) -> Measured:
    """Each round begins with a first checkpoint; the order of the rest rotates. One more round does not count."""
    measured = Measured(tree, bench.root / "stderr")
    for number in range(-1, rounds):
        one = Round(measured, number, *checkpoint_trees.fresh_store(tree.repo))
        measured.timed("floor", lambda: checkpoint_trees.walk(tree.top))
        one.first()
        calls = [one.unchanged, one.changed, one.few_back, one.many_back]
        for call in (*calls[number % 4 :], *calls[: number % 4]):
            call()
            measured.timed("floor", lambda: checkpoint_trees.walk(tree.top))
        if number < 0:
            measured.ms.clear()
    return measured


def rows(measured: Measured) -> list[Row]:
    """Goals are of some sizes; of others the figures are only told."""
    files = len(measured.tree.names)
    change, delete, add = measured.bulk
    floor_ms = measured.median("floor")
    first, few, many_s = {10_000: (6.0, 3.0, 1.0), 50_000: (2.5, 3.0, 1.0)}.get(files, (None, None, None))
    changed, unchanged = (2.5, 1.2) if files >= 10_000 else (None, None)
    many_ms = measured.median("many back")
    many = f"{change} + {delete} back, {add} gone, {files:,} files"
    return [
        _row(f"first, {files:,} files", measured.median("first"), floor_ms, _FLOOR, first),
        _beside_status(measured, "changed", f"{_A_FEW} changed, {files:,} files", changed),
        _beside_status(measured, "unchanged", f"unchanged, {files:,} files", unchanged),
        _row(f"{_A_FEW} back, {files:,} files", measured.median("few back"), floor_ms, _FLOOR, few),
        Row(
            many,
            f"{many_ms / 1000:.2f} s",
            f"{measured.median('replaced') / 1000:.2f} s: as many files written beside and renamed",
            many_ms / measured.median("replaced"),
            *(("", None) if many_s is None else (f"< {many_s:g} s", many_ms < many_s * 1000)),
        ),
    ]


def _beside_status(measured: Measured, row: str, what: str, goal: float | None) -> Row:
    return _row(what, measured.median(row), measured.median(f"status, {row}"), "git status", goal)


def _row(what: str, took_ms: float, floor_ms: float, floor: str, goal: float | None) -> Row:
    ratio = took_ms / floor_ms
    told, holds = ("", None) if goal is None else (f"≤ {goal:g} times", ratio <= goal)
    return Row(what, f"{took_ms:.0f} ms", f"{floor_ms:.0f} ms: {floor}", ratio, told, holds)


def disk(bench: Bench, tree: Tree, count: int) -> Row:
    """What so many checkpoints take, once nothing is borrowed any more, beside one snapshot in a packed repository."""
    store, task = checkpoint_trees.fresh_store(tree.repo)
    for number in range(count):
        tree.change(tree.sample(_EACH_KEPT, seed=1000 + number), f"kept {number}")
        # Of a risk: such are kept, however many there are.
        snapshot.take(store, task, kind="auto", label="", actor="bench", risk=("benchmark",))
    checkout = discovery.find(tree.top, {})
    upkeep.run(store, checkout, budget_b=1 << 50)
    kept = len(snapshot.listed(store, task.id))
    _require(kept == count, f"{kept} checkpoints are left of {count}")
    _require(not seeding.borrowed(store.layout.checkpoints_git).exists(), "objects of the user's are still borrowed")
    one = bench.root / "one.git"
    tree.repo.git("clone", "--quiet", "--bare", "--no-local", "--depth=1", tree.top.as_uri(), str(one))
    tree.repo.git("--git-dir", str(one), "repack", "--quiet", "-a", "-d", "-f")
    ours, floor = (checkpoint_trees.disk_bytes(at) / 2**20 for at in (store.layout.checkpoints_git, one))
    what = f"disk, {count} checkpoints of {_EACH_KEPT} files, {len(tree.names):,} files"
    ratio = ours / floor
    return Row(what, f"{ours:.0f} MiB", f"{floor:.0f} MiB: one snapshot", ratio, "≤ 1.5 times", ratio <= 1.5)


def _arguments(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.checkpoints", description="What checkpoints take.")
    parser.add_argument("--rounds", type=int, default=8, help="how often each is measured (8)")
    parser.add_argument("--files", default="10000,50000", help="in the trees, one after the other (10000,50000)")
    parser.add_argument("--only", default=",".join(_PARTS), help="what to measure (all: speed,disk,others)")
    parser.add_argument("--where", type=Path, default=Path("/var/tmp"), help="on which disk (/var/tmp)")
    parser.add_argument("--quick", action="store_true", help="a tree of 400 files, one round: whether it works at all")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.files = 1, "400"
    args.files = [int(word) for word in args.files.split(",")]
    args.only = args.only.split(",")
    if not set(args.only) <= set(_PARTS):
        parser.error(f"--only: {', '.join(_PARTS)}")
    return args


def _measured(bench: Bench, args: Namespace) -> list[Row]:
    """The disk is measured with the first size only."""
    found: list[Row] = []
    for at, files in enumerate(args.files):
        tree = checkpoint_trees.grown(bench, f"tree-{files}", files)
        if "speed" in args.only:
            found += rows(sampled(bench, tree, args.rounds))
        if "disk" in args.only and at == 0:
            found.append(disk(bench, tree, 10 if args.quick else 200))
        checkpoint_trees.felled(tree)
    return found


def main(argv: Sequence[str]) -> int:
    """0 measured and no goal missed, 1 otherwise."""
    args = _arguments(argv)
    facts: dict[str, str | int | float] = {**timing.machine(), "load before": timing.load()}
    contest: list[Result] = []
    try:
        with repositories.bench(args.where) as bench:
            os.environ.clear()
            os.environ.update(bench.env)
            found = _measured(bench, args)
            if "others" in args.only:
                contest = checkpoint_contest.played(bench, args.files[0], args.rounds)
                found += checkpoint_contest.rows(contest)
    except BenchmarkError as e:
        print(f"benchmark: {e}", file=sys.stderr)
        return 1
    facts |= {"load after": timing.load(), "rounds": args.rounds}
    if args.json:
        tools = [asdict(result) for result in contest]
        document = {"machine": facts, "rows": [vars(row) for row in found], "tools": tools}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        print(*(text for text in (timing.goals(found), checkpoint_contest.table(contest), told) if text), sep="\n\n")
    return 1 if any(row.holds is False for row in found) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
