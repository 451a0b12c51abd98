"""What a task in a worktree of its own takes, beside `git worktree add` of the same 5,000 files.

    python -m benchmarks.worktrees [--rounds N] [--json]

`docs/benchmarks.md` has the method and figures.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks import repositories, timing
from benchmarks.repositories import Repo
from benchmarks.timing import BenchmarkError, Row
from opencode_tasks.store import Store

FILES = 5000
_GOAL = 1.2


def measured(rounds: int) -> list[Row]:
    with repositories.bench() as bench:
        files = {repositories.file_name(n): f"file {n}\n" * 20 for n in range(FILES)}
        repo = bench.repo("large", files, {"OPENCODE_TASKS_CONTAINER_AUTOSTART": "false"})
        repo.tasks("init")
        repo.commit("settings")
        numbers = itertools.count()

        def add() -> None:
            number = next(numbers)
            repo.git("worktree", "add", "--quiet", "-b", f"plain-{number}", str(bench.root / f"plain-{number}"))

        def create() -> None:
            repo.tasks("create-task", f"Number {next(numbers)}", "--worktree")

        took_ms: dict[str, list[float]] = {"git": [], "ours": []}
        for number in range(-1, rounds):
            for name, call in (("git", add), ("ours", create)):
                one_ms = _ms(call)
                if number >= 0:
                    took_ms[name].append(one_ms)
        _require_made(repo, rounds)
    git_ms, ours_ms = (statistics.median(took_ms[name]) for name in ("git", "ours"))
    ratio = ours_ms / git_ms
    floor = f"{git_ms:.0f} ms: git worktree add"
    what = f"`create-task --worktree`, {FILES:,} files"
    return [Row(what, f"{ours_ms:.0f} ms", floor, ratio, f"≤ {_GOAL} times", ratio <= _GOAL)]


def _ms(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _require_made(repo: Repo, rounds: int) -> None:
    store = Store(repo.top / ".git")
    tops = [store.get(task_id).workspace.path for task_id in store.ids()]
    there = repo.git("worktree", "list", "--porcelain")
    if len(tops) <= rounds or any(f"worktree {top}\n" not in there for top in tops):
        raise BenchmarkError("not every task has its worktree")


if __name__ == "__main__":
    raise SystemExit(timing.main(sys.argv[1:], measured, what="What a task's own worktree takes.", rounds=10))
