"""Timing commands against each other: all of them in one run, a sample of each in every round.

A shared machine drifts. Whatever is measured minutes apart differs by more than what we
look for, so the commands take turns, each round in another order, and medians are compared.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


class BenchmarkError(Exception):
    """A run that would have measured something else than it says."""


@dataclass(frozen=True)
class Step:
    """One timed command; its time counts for `row`.

    `settle` runs after it, untimed: it waits for what the command left running, and raises
    `BenchmarkError` when the command did not do what it is measured for.
    """

    row: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    settle: Callable[[], None] = lambda: None


@dataclass
class Samples:
    """Milliseconds by row."""

    by_row: dict[str, list[float]] = field(default_factory=dict)

    def median_ms(self, row: str) -> float:
        return statistics.median(self.by_row[row])

    def middle_half_ms(self, row: str) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.by_row[row], n=4)
        return low, high

    def added_ms(self, row: str, base: str) -> float:
        return self.median_ms(row) - self.median_ms(base)

    def added_ratio(self, row: str, other: str, base: str) -> float | None:
        """How many times what `other` adds to `base`; None when `other` adds nothing measurable."""
        added = self.added_ms(other, base)
        return self.added_ms(row, base) / added if added > 0 else None


def measure(variants: Sequence[Sequence[Step]], *, rounds: int, stderr: Path) -> Samples:
    """Every variant's steps, in their order, once a round; the variants' order rotates.

    One more round comes first and does not count: it fills caches and writes bytecode.
    """
    samples = Samples()
    for number in range(-1, rounds):
        first = number % len(variants)
        for variant in (*variants[first:], *variants[:first]):
            for step in variant:
                took_ms = timed_ms(step, stderr)
                step.settle()
                if number >= 0:
                    samples.by_row.setdefault(step.row, []).append(took_ms)
        _progress(number + 1, rounds)
    return samples


def timed_ms(step: Step, stderr: Path) -> float:
    """Wall-clock milliseconds. `posix_spawn`, because `fork` would add the copying of our memory map."""
    program = step.argv[0]
    quiet = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(stderr), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    began = time.perf_counter()
    pid = os.posix_spawn(program, step.argv, step.env, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    took_s = time.perf_counter() - began
    if status != 0:
        said = stderr.read_text(errors="replace").strip()
        raise BenchmarkError(f"{step.row}: `{' '.join(step.argv)}` ended with status {status}: {said}")
    return took_s * 1000


def _progress(done: int, rounds: int) -> None:
    if sys.stderr.isatty():
        print(f"\rround {done} of {rounds}", end="" if done < rounds else "\n", file=sys.stderr, flush=True)


def machine() -> dict[str, str | int]:
    """What a reader of the figures must know."""
    git = subprocess.run(("git", "--version"), capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "git": git.stdout.split()[2],
    }


def load() -> float:
    """Processes that wanted to run, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *(line(row) for row in rows)])


@dataclass(frozen=True)
class Row:
    """`goal` is None for what is only told. `floor`: what the figure is compared with."""

    what: str
    figure: str
    floor: str = ""
    ratio: float | None = None
    goal: str = ""
    holds: bool | None = None


def report(measured: Callable[[], Sequence[Row]], *, as_json: bool) -> int:
    """Measure, and print a table or one JSON document. 0: no goal was missed; 1 otherwise."""
    facts: dict[str, str | int | float] = {**machine(), "load before": load()}
    rows = measured()
    facts["load after"] = load()
    if as_json:
        print(json.dumps({"machine": facts, "rows": [vars(row) for row in rows]}, indent=2, ensure_ascii=False))
    else:
        print(f"{goals(rows)}\n\n{', '.join(f'{name} {value}' for name, value in facts.items())}")
    return 1 if any(row.holds is False for row in rows) else 0


def main(argv: Sequence[str], measured: Callable[[int], Sequence[Row]], *, what: str, rounds: int) -> int:
    """Of a benchmark whose only choices are how often, and JSON. `what`: one sentence; `rounds`: unless told."""
    parser = ArgumentParser(description=what)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each is measured ({rounds})")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    with suppress(KeyboardInterrupt):
        return report(lambda: measured(args.rounds), as_json=args.json)
    return 130


def goals(rows: Sequence[Row]) -> str:
    head = ("what", "ours", "floor", "ratio", "goal", "")
    shown = []
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        holds = {True: "holds", False: "MISSED", None: ""}[row.holds]
        shown.append((row.what, row.figure, row.floor, ratio, row.goal, holds))
    return markdown(head, shown)
