"""What hooks add to `git checkout`: none, ours, and other hook managers that run `true`.

    python -m benchmarks.git_hooks [--rounds N] [--without husky,lefthook] [--json]

Everything is real: the peers are installed from their registries into a directory that is
deleted at the end. `docs/benchmarks.md` has the method and figures.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.timing import BenchmarkError, Samples, Step
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import container_name
from opencode_tasks.errors import NoEngineError
from opencode_tasks.store import Store
from opencode_tasks.task import Task

FILES = 200
DIFFERING = 3
TASKS = ("one", "two", "three")
TASK_BRANCH = f"task/{TASKS[0]}"
BACKGROUND_TIMEOUT_S = 60

NO_HOOK = "no hook"
ONE_LINE = "one-line sh hook"
NOTHING = "ours, nothing to do"
HUSKY, LEFTHOOK, PRE_COMMIT = "husky", "lefthook", "pre-commit"
RESUMING, LEAVING = "ours, resuming a task", "ours, leaving a task"
WITH_CONTAINER = ", with its container"


@dataclass(frozen=True)
class Repo:
    """A repository with its own HOME and git configuration."""

    top: Path
    env: Mapping[str, str]

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=self.top, env=self.env, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise BenchmarkError(f"`{' '.join(argv)}` exited {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def git(self, *args: str) -> str:
        return self.run("git", *args)

    def tasks(self, *args: str) -> str:
        return self.run(sys.executable, "-I", "-m", "opencode_tasks", *args)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def branch_off(self, branch: str) -> None:
        """A branch whose last commit changes `DIFFERING` files; main is checked out afterwards."""
        self.git("checkout", "--quiet", "-b", branch)
        self.write({_file(n): f"{branch}\n" for n in range(DIFFERING)})
        self.commit(branch)
        self.git("checkout", "--quiet", "main")

    def checkout(self, row: str, branch: str, settle: Callable[[], None] = lambda: None) -> Step:
        git = shutil.which("git", path=self.env["PATH"]) or "git"
        argv = (git, "-C", str(self.top), "checkout", "--quiet", branch)
        return Step(row, argv, self.env, settle)


@dataclass(frozen=True)
class Peer:
    """Another hook manager: its tracked files for a command, and how its users install it."""

    files: Callable[[str], dict[str, str]]
    install: tuple[tuple[str, ...], ...]
    version: tuple[str, ...]


_NPM = ("npm", "install", "--save-dev", "--no-audit", "--no-fund")
_VERSION_OF = "console.log(require('./node_modules/' + process.argv[1] + '/package.json').version)"
_PRE_COMMIT = (sys.executable, "-m", "pre_commit")

PEERS = {
    HUSKY: Peer(
        lambda command: {".husky/post-checkout": f"{command}\n"},
        ((*_NPM, "husky"), ("node_modules/.bin/husky",)),
        ("node", "-e", _VERSION_OF, "husky"),
    ),
    LEFTHOOK: Peer(
        lambda command: {"lefthook.yml": f"post-checkout:\n  commands:\n    nothing:\n      run: '{command}'\n"},
        ((*_NPM, "lefthook"), ("node_modules/.bin/lefthook", "install", "post-checkout")),
        ("node", "-e", _VERSION_OF, "lefthook"),
    ),
    PRE_COMMIT: Peer(
        lambda command: {".pre-commit-config.yaml": _pre_commit_config(command)},
        ((*_PRE_COMMIT, "install", "--hook-type", "post-checkout"),),
        (*_PRE_COMMIT, "--version"),
    ),
}


def _pre_commit_config(command: str) -> str:
    hook = {
        "id": "nothing",
        "name": "nothing",
        "language": "system",
        "entry": command,
        "always_run": True,
        "pass_filenames": False,
        "stages": ["post-checkout"],
    }
    return json.dumps({"repos": [{"repo": "local", "hooks": [hook]}]}, indent=2)  # JSON is YAML


@dataclass(frozen=True)
class Bench:
    """Where this run works, and with which environment."""

    root: Path
    env: Mapping[str, str]

    def repo(self, name: str, files: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Repo:
        repo = Repo(self.root / name, {**self.env, **(env or {})})
        repo.top.mkdir()
        repo.git("init", "--quiet")
        repo.write({_file(n): f"file {n}\n" * 20 for n in range(FILES)})
        repo.write({".gitignore": "node_modules/\n", "package.json": "{}\n", **(files or {})})
        repo.commit("first")
        return repo


def _file(number: int) -> str:
    return f"src/part{number % 10}/file{number}.txt"


@contextmanager
def _bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="opencode-tasks-benchmark-", ignore_cleanup_errors=True) as made:
        root = Path(made).resolve()
        home = root / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Benchmark\n\temail = benchmark@example.invalid\n"
            "[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "OPENCODE_", "XDG_", "HUSKY"))}
        # Where no engine answers, for all but the rows that say otherwise.
        nowhere = f"unix://{root}/no-engine.sock"
        yield Bench(root, {**kept, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "DOCKER_HOST": nowhere})


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


def _peer(bench: Bench, name: str) -> list[Step]:
    """The hook's command is a trace first: what does not run must not be measured."""
    peer, trace = PEERS[name], bench.root / f"{name}.ran"
    env = {"PRE_COMMIT_HOME": str(bench.root / "pre-commit-home")}
    repo = bench.repo(name, peer.files(f"touch {trace}"), env)
    for argv in peer.install:
        try:
            repo.run(*argv)
        except (BenchmarkError, OSError) as e:
            raise BenchmarkError(f"{name} could not be installed; --without {name} leaves it out. {e}") from e
    repo.commit("installed")
    repo.git("checkout", "--quiet", "-b", "probe")
    if not trace.exists():
        raise BenchmarkError(f"{name} is installed, but its post-checkout hook did not run")
    repo.git("checkout", "--quiet", "main")
    repo.write(peer.files("true"))
    repo.commit("does nothing")
    repo.branch_off("other")
    return _there_and_back(name, repo)


def _initialised(bench: Bench, name: str, engine: Engine | None = None) -> Repo:
    """A repository of ours with its tasks, each left and resumed once."""
    repo = bench.repo(name, env={"DOCKER_HOST": engine.address} if engine else None)
    repo.tasks("init")
    repo.commit("settings")
    for task in TASKS:
        repo.branch_off(f"task/{task}")
        _wait_for_background(repo)
    return repo


def _nothing_to_do(bench: Bench) -> list[Step]:
    repo = _initialised(bench, "nothing-to-do")
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

    return _handover(_initialised(bench, "without-container"), "", check)


@contextmanager
def _with_container(bench: Bench, engine: Engine | None) -> Iterator[list[Step]]:
    """No steps without an engine; the containers are removed at the end."""
    if engine is None:
        yield []
        return
    repo = _initialised(bench, "with-container", engine)

    def check(task: Task, status: str, container: str) -> None:
        found = engine.find(container_name(task.id))
        if task.status != status or found is None or found.state != container:
            log = repo.top / ".git" / "opencode-tasks" / "background.log"
            raise BenchmarkError(f"{task.id} is {task.status}, container {found}; {log.read_text()[-2000:]}")

    try:
        yield _handover(repo, WITH_CONTAINER, check)
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
    peers = [name for name in PEERS if name not in args.without]
    with _bench() as bench, _with_container(bench, _engine()) as with_container:
        variants = [_no_hook(bench), _one_line(bench), _nothing_to_do(bench)]
        variants += [_peer(bench, name) for name in peers]
        variants += [_without_container(bench), with_container]
        facts = {**timing.machine(), **{name: _version(bench, name) for name in peers}, "load before": timing.load()}
        samples = timing.measure([v for v in variants if v], rounds=args.rounds, stderr=bench.root / "stderr")
        return _document(samples, {**facts, "load after": timing.load(), "rounds": args.rounds})


def _version(bench: Bench, name: str) -> str:
    return Repo(bench.root / name, bench.env).run(*PEERS[name].version).split()[-1]


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
