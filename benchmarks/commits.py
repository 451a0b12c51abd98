"""What hooks add to `git commit`: none, ours, and pre-commit that runs `true`.

    python -m benchmarks.commits [--rounds N] [--json]

`docs/benchmarks.md` has the method and figures.
"""

import sys

from benchmarks import repositories, timing
from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError, Row, Step
from opencode_tasks.store import Store

NO_HOOK, NO_TASK, TASK, PEER = "no hook", "ours, on no task's branch", "ours, on a task's branch", "pre-commit"
_CONFIG = """repos:
- repo: local
  hooks:
  - {id: nothing, name: nothing, language: system, entry: '%s', always_run: true, pass_filenames: false}
"""


def _commit(row: str, repo: Repo) -> list[Step]:
    git = repo.run("which", "git").strip()
    argv = (git, "-C", str(repo.top), "commit", "--quiet", "--allow-empty", "--message", "x")
    return [Step(row, argv, repo.env)]


def _ours(bench: Bench, name: str, branch: str) -> Repo:
    repo = bench.repo(name, env={"OPENCODE_TASKS_CONTAINER_AUTOSTART": "false"})
    repo.tasks("init")
    repo.commit("settings")
    repo.git("checkout", "--quiet", "-b", branch)
    return repo


def _peer(bench: Bench) -> Repo:
    trace = bench.root / "pre-commit.ran"
    env = {"PRE_COMMIT_HOME": str(bench.root / "pre-commit-home")}
    repo = bench.repo("pre-commit", {".pre-commit-config.yaml": _CONFIG % f"touch {trace}"}, env)
    repo.run(sys.executable, "-m", "pre_commit", "install")
    repo.commit("installed")
    if not trace.exists():
        raise BenchmarkError("pre-commit is installed, but its hook did not run")
    repo.write({".pre-commit-config.yaml": _CONFIG % "true"})
    repo.commit("does nothing")
    return repo


def measured(rounds: int) -> list[Row]:
    with repositories.bench() as bench:
        task = _ours(bench, "task", "task/one")
        variants = [
            _commit(NO_HOOK, bench.repo("no-hook")),
            _commit(NO_TASK, _ours(bench, "no-task", "other")),
            _commit(TASK, task),
            _commit(PEER, _peer(bench)),
        ]
        samples = timing.measure(variants, rounds=rounds, stderr=bench.root / "stderr")
        store = Store(task.top / ".git")
        if store.get(store.ids()[0]).commits.count < rounds:
            raise BenchmarkError("not every commit was recorded")
    floor = f"{samples.added_ms(PEER, NO_HOOK):.0f} ms: pre-commit running `true`"
    rows = [Row("`git commit` without a hook", f"{samples.median_ms(NO_HOOK):.1f} ms")]
    for row in (NO_TASK, TASK):
        ratio = samples.added_ratio(row, PEER, NO_HOOK) or 0.0
        added = f"+{samples.added_ms(row, NO_HOOK):.1f} ms"
        rows.append(Row(f"added: {row}", added, floor, ratio, "≤ 1 times", ratio <= 1))
    return rows


if __name__ == "__main__":
    raise SystemExit(timing.main(sys.argv[1:], measured, what="What hooks add to git commit.", rounds=40))
