"""What hooks add to `git checkout`: none, ours, and other hook managers that run `true`.

    python -m benchmarks.git_hooks [--rounds N] [--without husky,lefthook] [--json]

Everything is real: the peers are installed from their registries into a directory that is
deleted at the end. `docs/benchmarks.md` has the method and figures.
"""

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import peers, repositories, timing
from benchmarks.peers import HUSKY, PEERS, PRE_COMMIT
from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError, Samples, Step
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import container_name
from opencode_tasks.errors import NoEngineError
from opencode_tasks.store import Store
from opencode_tasks.task import Task

TASKS = ("one", "two", "three")
TASK_BRANCH = f"task/{TASKS[0]}"
BACKGROUND_TIMEOUT_S = 60

NO_HOOK = "no hook"
ONE_LINE = "one-line sh hook"
NOTHING = "ours, nothing to do"
RESUMING, LEAVING = "ours, resuming a task", "ours, leaving a task"
WITH_CONTAINER = ", with its container"


def _there_and_back(row: str, repo: Repo) -> list[Step]:
    return [repo.checkout(row, "other"), repo.checkout(row, "main")]


def _no_hook(bench: Bench) -> list[Step]:
    repo = bench.repo("no-hook")
    repo.branch_off("other")
    return _there_and_back(NO_HOOK, repo)


def _one_line(bench: Bench) -> list[Step]:
    repo = bench.repo("one-line")
    repo.branch_off("other")
    hook = repo.top / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    return _there_and_back(ONE_LINE, repo)


def _initialise(repo: Repo) -> Repo:
    """Ours, with its tasks: each made, left and checked for."""
    repo.tasks("init")
    repo.commit("settings")
    for number, task in enumerate(TASKS, 1):
        repo.branch_off(f"task/{task}")
        _wait_for_background(repo)
        if len(Store(repo.top / ".git").ids()) != number:
            raise BenchmarkError(f"the hooks of {repo.top} made no task of branch task/{task}")
    return repo


def _nothing_to_do(bench: Bench) -> list[Step]:
    repo = _initialise(bench.repo("nothing-to-do"))
    repo.branch_off("other")
    return _there_and_back(NOTHING, repo)


def _handover(repo: Repo, suffix: str, check: Callable[[Task, str, str], None]) -> list[Step]:
    """`check` gets the task and the states its status and its container must have."""

    def settled(status: str, container: str) -> Callable[[], None]:
        def settle() -> None:
            _wait_for_background(repo)
            check(_task(repo), status, container)

        return settle

    return [
        repo.checkout(RESUMING + suffix, TASK_BRANCH, settled("running", "running")),
        repo.checkout(LEAVING + suffix, "main", settled("paused", "paused")),
    ]


def _without_container(bench: Bench) -> list[Step]:
    def check(task: Task, status: str, container: str) -> None:
        del container
        if task.status != status or task.container.id is not None:
            raise BenchmarkError(f"{task.id} is {task.status} instead of {status}, container {task.container}")

    return _handover(_initialise(bench.repo("without-container")), "", check)


@contextmanager
def _with_container(bench: Bench, engine: Engine | None) -> Iterator[list[Step]]:
    """No steps without an engine; the containers are removed at the end."""
    if engine is None:
        yield []
        return
    repo = bench.repo("with-container", env={"DOCKER_HOST": engine.address})

    def check(task: Task, status: str, container: str) -> None:
        found = engine.find(container_name(task.id))
        if task.status != status or found is None or found.state != container:
            log = repo.top / ".git" / "opencode-tasks" / "background.log"
            raise BenchmarkError(f"{task.id} is {task.status}, container {found}; {log.read_text()[-2000:]}")

    try:
        yield _handover(_initialise(repo), WITH_CONTAINER, check)
    finally:
        _wait_for_background(repo)
        repo.tasks("uninstall", "--purge")


def _task(repo: Repo) -> Task:
    return Store(repo.top / ".git").resolve(TASK_BRANCH)


def _wait_for_background(repo: Repo) -> None:
    """Until no process that a hook detached for a task of `repo` is left."""
    ids = Store(repo.top / ".git").ids()
    until = time.monotonic() + BACKGROUND_TIMEOUT_S
    while time.monotonic() < until:
        running = subprocess.run(("ps", "-Ao", "args="), capture_output=True, text=True, check=True).stdout
        if not any(f"opencode_tasks reconcile {i}" in running for i in ids):
            return
        time.sleep(0.02)
    raise BenchmarkError(f"a background process of {repo.top} did not end within {BACKGROUND_TIMEOUT_S} s")


def _engine() -> Engine | None:
    try:
        return Engine()
    except NoEngineError as e:
        print(f"no rows with a container: {e.message}", file=sys.stderr)
        return None


@dataclass(frozen=True)
class Goal:
    """What `row` adds is at most what `limit` adds."""

    row: str
    limit: str

    def holds(self, samples: Samples) -> bool | None:
        """None when one of the two was not measured."""
        if not {self.row, self.limit} <= samples.by_row.keys():
            return None
        return samples.added_ms(self.row, NO_HOOK) <= samples.added_ms(self.limit, NO_HOOK)


GOALS = (Goal(NOTHING, HUSKY), Goal(RESUMING, PRE_COMMIT), Goal(RESUMING + WITH_CONTAINER, PRE_COMMIT))


def _document(samples: Samples, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "machine": dict(facts),
        "rows": [_row(samples, row) for row in samples.by_row],
        "goals": [{"row": g.row, "at_most": g.limit, "holds": g.holds(samples)} for g in GOALS],
    }


def _row(samples: Samples, row: str) -> dict[str, Any]:
    low_ms, high_ms = samples.middle_half_ms(row)
    against = {
        f"against_{peer.replace('-', '_')}": samples.added_ratio(row, peer, NO_HOOK)
        for peer in (HUSKY, PRE_COMMIT)
        if peer in samples.by_row
    }
    return {
        "row": row,
        "samples": len(samples.by_row[row]),
        "median_ms": samples.median_ms(row),
        "middle_half_ms": [low_ms, high_ms],
        "added_ms": samples.added_ms(row, NO_HOOK),
        **against,
    }


def _text(document: Mapping[str, Any]) -> str:
    facts = document["machine"]
    head = ("`git checkout` with", "median ms", "middle half", "added ms", "/ husky", "/ pre-commit")
    rows = [_cells(row) for row in document["rows"]]
    words = {True: "holds", False: "MISSED", None: "not measured"}
    goals = [f"- {g['row']} ≤ {g['at_most']}: {words[g['holds']]}" for g in document["goals"]]
    said = ", ".join(f"{key} {value}" for key, value in facts.items())
    return "\n".join([said, "", timing.markdown(head, rows), "", *goals])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def ratio(key: str) -> str:
        value = row.get(key)
        return "" if value is None or row["row"] == NO_HOOK else f"{value:.2f}"

    low_ms, high_ms = row["middle_half_ms"]
    added = "" if row["row"] == NO_HOOK else f"{row['added_ms']:+.1f}"
    middle = f"{low_ms:.1f} to {high_ms:.1f}"
    figures = (f"{row['median_ms']:.1f}", middle, added, ratio("against_husky"), ratio("against_pre_commit"))
    return (row["row"], *figures)


def _arguments(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.git_hooks", description="What hooks add to git checkout.")
    parser.add_argument("--rounds", type=int, default=40, help="measured rounds, each in another order (40)")
    parser.add_argument("--without", default="", metavar="PEER,…", help=f"leave out some of {', '.join(PEERS)}")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    args.without = [name for name in args.without.split(",") if name]
    if unknown := [name for name in args.without if name not in PEERS]:
        parser.error(f"--without: no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if args.rounds < 2:
        parser.error("--rounds: at least 2")
    return args


def _run(args: Namespace) -> dict[str, Any]:
    wanted = [name for name in PEERS if name not in args.without]
    with repositories.bench() as bench, _with_container(bench, _engine()) as with_container:
        variants = [_no_hook(bench), _one_line(bench), _nothing_to_do(bench)]
        variants += [_there_and_back(name, peers.installed(bench, name)) for name in wanted]
        variants += [_without_container(bench), with_container]
        facts = {
            **timing.machine(),
            **{name: peers.version(bench, name) for name in wanted},
            "load before": timing.load(),
        }
        samples = timing.measure([v for v in variants if v], rounds=args.rounds, stderr=bench.root / "stderr")
        return _document(samples, {**facts, "load after": timing.load(), "rounds": args.rounds})


def main(argv: Sequence[str]) -> int:
    """0 measured and no goal missed, 1 otherwise."""
    args = _arguments(argv)
    try:
        document = _run(args)
    except BenchmarkError as e:
        print(f"benchmark: {e}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2, ensure_ascii=False) if args.json else _text(document))
    return 1 if any(goal["holds"] is False for goal in document["goals"]) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
