"""What an agent waits for because of us: the real OpenCode with us and without, the same scripted model, by turns.

    python -m benchmarks.opencode [--rounds N] [--json]

Needs an engine, our base image, and npm (OpenCode is installed for the run). `docs/benchmarks.md` has figures.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tests.opencode import program
from tests.opencode.model import Model, Request, Step, bash, calls, says
from tests.opencode.program import OpenCode

from benchmarks import repositories, timing
from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError, Row
from opencode_tasks.containers.engine import Engine

_STEPS = 12
# What is timed, how it is done, and how much we may add to it, in ms.
_GOALS = {"bash": 25.0, "read": 5.0, "write": 3.0, "start": 300.0}
_SAID = {
    "bash": "added to a step with `bash` (`true`)",
    "read": "added to a step with `read` (a call of a tool, 3 ms, and a request to the model, 2)",
    "write": "added to a step with `write`",
    "start": "added to a whole `opencode run` that only answers",
}


def _installed(where: Path) -> tuple[Path, Path]:
    packages = program.packages()
    where.mkdir()
    (where / "package.json").write_text("{}")
    argv = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", *packages]
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"`{' '.join(argv)}` failed: {done.stderr}")
    opencode, rg = (where / "node_modules" / package.rpartition("@")[0] / "bin" for package in packages)
    return opencode / "opencode", rg / "rg"


def _steps(kind: str, repo: Repo, arrived: list[float]) -> list[Callable[[Request], Step]]:
    """The same step again and again; each notes when OpenCode asked for it."""

    def one(number: int) -> Callable[[Request], Step]:
        def step(request: Request) -> Step:
            del request
            arrived.append(time.perf_counter())
            if kind == "bash":
                return bash("true")
            if kind == "read":
                return calls(("read", {"filePath": str(repo.top / repositories.file_name(number))}))
            return calls(("write", {"filePath": str(repo.top / f"new{number}.txt"), "content": f"{time.time()}\n"}))

        return step

    def last(request: Request) -> Step:
        del request
        arrived.append(time.perf_counter())
        return says("done")

    return [*(one(number) for number in range(_STEPS)), last]


class Side:
    def __init__(self, bench: Bench, name: str, programs: tuple[Path, Path], env: Mapping[str, str]) -> None:
        self.repo = bench.repo(name, env=env)
        home = bench.root / f"home of {name}"
        home.mkdir()
        self.opencode = OpenCode(*programs, home, Model(), env=dict(env))

    def per_step_ms(self, kind: str) -> float:
        arrived: list[float] = []
        self.opencode.run("go on", cwd=self.repo.top, script=_steps(kind, self.repo, arrived))
        if len(arrived) != _STEPS + 1:
            raise BenchmarkError(f"OpenCode asked {len(arrived)} times, and not {_STEPS + 1}")
        return statistics.median(later - at for at, later in pairwise(arrived)) * 1000

    def whole_ms(self) -> float:
        began = time.perf_counter()
        self.opencode.run("say it", cwd=self.repo.top, script=[says("said")])
        return (time.perf_counter() - began) * 1000


def _compared(ours: Side, plain: Side, rounds: int) -> list[Row]:
    samples: dict[tuple[str, Side], list[float]] = {}
    for number in range(-1, rounds):
        for kind in ("bash", "read", "write", "start"):
            for side in (ours, plain) if number % 2 else (plain, ours):
                took = side.whole_ms() if kind == "start" else side.per_step_ms(kind)
                if number >= 0:
                    samples.setdefault((kind, side), []).append(took)
    rows = []
    for kind in ("bash", "read", "write", "start"):
        mine, floor = (statistics.median(samples[kind, side]) for side in (ours, plain))
        row = Row(_SAID[kind], f"{mine - floor:.1f} ms", f"{floor:.1f} ms: without us", mine / floor)
        rows.append(replace(row, goal=f"≤ {_GOALS[kind]:g} ms", holds=mine - floor <= _GOALS[kind]))
    return rows


def measured(rounds: int) -> Sequence[Row]:
    host = Engine().address
    with repositories.bench() as made:
        programs = _installed(made.root / "programs")
        ours = Side(made, "ours", programs, {"DOCKER_HOST": host})
        plain = Side(made, "plain", programs, {})
        ours.repo.tasks("init")
        ours.repo.commit("settings")
        ours.repo.git("checkout", "--quiet", "-b", "task/bench")
        ours.repo.tasks("exec", "--", "true")
        try:
            bare = _bare_ms(plain.repo, rounds)
            return [*_compared(ours, plain, rounds), Row("for scale: a bare Python", f"{bare:.1f} ms")]
        finally:
            for side in (ours, plain):
                side.opencode.close()
                side.opencode.model.close()
            ours.repo.tasks("uninstall")


def _bare_ms(repo: Repo, rounds: int) -> float:
    took = []
    for _ in range(10 * max(1, rounds)):
        began = time.perf_counter()
        repo.run(sys.executable, "-IS", "-c", "0")
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


if __name__ == "__main__":
    raise SystemExit(timing.main(sys.argv[1:], measured, what="what OpenCode waits for because of us", rounds=5))
