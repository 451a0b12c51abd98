"""What a task's container costs, beside what the engine itself takes for the same.

    python -m benchmarks.containers [--rounds N] [--json]

Needs an engine, our base image and the docker CLI. `docs/benchmarks.md` has the method and figures.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import repositories, timing
from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError, Row, Step
from opencode_tasks import config
from opencode_tasks.containers import direct, follow, images, links, sockets
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.linked import LinkedSession
from opencode_tasks.containers.runner import EngineSession
from opencode_tasks.containers.spec import container_name
from opencode_tasks.store import Store
from opencode_tasks.task import Task

_MANY = 20
_LISTED = 50
_MEGABYTES = 512


@dataclass(frozen=True)
class Place:
    """A repository with one task, whose container runs."""

    repo: Repo
    store: Store
    task: Task
    engine: Engine

    @property
    def name(self) -> str:
        return container_name(self.task.id)


def _made(bench: Bench) -> Place:
    repo = bench.repo("containers")
    repo.tasks("init")
    repo.commit("settings")
    repo.git("checkout", "--quiet", "-b", "task/bench")
    repo.tasks("exec", "--", "true")
    store = Store(repo.top / ".git")
    (task_id,) = store.ids()
    return Place(repo, store, store.get(task_id), Engine())


def ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def by_turns(rounds: int, **calls: Callable[[], object]) -> dict[str, float]:
    """The median of each, in ms; one round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):
        for name, call in calls.items():
            took_ms = ms(call)
            if number >= 0:
                taken[name].append(took_ms)
    return {name: statistics.median(samples) for name, samples in taken.items()}


def whole_process(place: Place, rounds: int) -> list[Row]:
    stderr = place.repo.top.parent / "stderr"
    ours = (sys.executable, "-I", "-m", "opencode_tasks", "exec", "--", "true")
    theirs = (_docker(), "exec", place.name, "true")
    steps = [[Step("ours", ours, place.repo.env)], [Step("docker exec", theirs, place.repo.env)]]
    steps.append([Step("bare", (sys.executable, "-I", "-c", "pass"), place.repo.env)])
    before = Path.cwd()
    os.chdir(place.repo.top)
    try:
        samples = timing.measure(steps, rounds=rounds, stderr=stderr)
    finally:
        os.chdir(before)
    ours_ms, theirs_ms, bare_ms = (samples.median_ms(name) for name in ("ours", "docker exec", "bare"))
    floor = f"{theirs_ms:.0f} ms: docker exec (a bare python: {bare_ms:.0f})"
    return [_row("`exec -- true`, whole process", ours_ms, floor, ours_ms / theirs_ms, 0.5)]


def in_a_session(place: Place, rounds: int) -> list[Row]:
    folder = sockets.folder(place.store.clone_id, place.task.id)
    if folder is None:
        raise BenchmarkError("there is no place for sockets")

    def ours() -> None:
        link = links.connect(folder)
        if link is None:
            raise BenchmarkError("no supervisor answers")
        session = LinkedSession(link, place.name, is_paused=lambda: False, use_tty=False)
        _ran(session.run(["true"], cwd="/", env={}).code)

    def engine() -> None:
        _ran(EngineSession(place.engine, place.name, use_tty=False).run(["true"], cwd="/", env={}).code)

    took = by_turns(rounds, ours=ours, engine=engine)
    floor = f"{took['engine']:.1f} ms: a new exec of the engine"
    return [_row("command in an open session", took["ours"], floor, took["ours"] / took["engine"], 0.1)]


def _ran(code: int | None) -> None:
    if code != 0:
        raise BenchmarkError(f"a command ended with {code}")


def committed(place: Place, rounds: int) -> list[Row]:
    """What a commit costs inside, brought to the host, beyond a command that does nothing; and one on the host."""
    commit = ("git", "commit", "--quiet", "--allow-empty", "--message", "x")
    took = by_turns(
        rounds,
        nothing=lambda: place.repo.tasks("exec", "--", "true"),
        inside=lambda: place.repo.tasks("exec", "--", *commit),
        host=lambda: place.repo.git(*commit[1:]),
        bare=lambda: place.repo.git("-c", "core.hooksPath=/dev/null", *commit[1:]),
        settled=lambda: place.repo.tasks("exec", "--", "true"),  # commits of the host are told, which is not measured
    )
    if place.store.get(place.task.id).commits.count < 2 * rounds:
        raise BenchmarkError("not every commit was recorded")
    added = took["inside"] - took["nothing"]
    floor = f"{took['host']:.0f} ms: git commit on the host, recorded ({took['bare']:.0f} without hooks)"
    return [_row("commit inside, checked and on the host's branch", added, floor, added / took["host"], 3.0)]


def made_and_resumed(place: Place, rounds: int) -> list[Row]:
    settings = config.load(place.repo.top, {})
    image = images.newest(place.engine, "base").tag
    api = place.engine.api

    def ours() -> None:
        follow.bring_up(place.store, place.engine, settings, place.task, actor="bench")

    def bare() -> None:
        made = api.create_container(image, ["sleep", "infinity"], name=f"{place.name}-bare")
        api.start(made["Id"])

    def thawed_bare() -> None:
        api.unpause(f"{place.name}-bare")

    made_ms: dict[str, list[float]] = {"ours": [], "bare": []}
    thawed_ms: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        place.engine.remove(place.name)
        made_ms["ours"].append(ms(ours))
        made_ms["bare"].append(ms(bare))
        for name in (place.name, f"{place.name}-bare"):
            if direct.pause(place.engine.address, name) != "done":
                raise BenchmarkError(f"{name} was not paused")
        thawed_ms["ours"].append(ms(ours))
        thawed_ms["bare"].append(ms(thawed_bare))
        place.engine.remove(f"{place.name}-bare")
    made = {name: statistics.median(samples) for name, samples in made_ms.items()}
    thawed = {name: statistics.median(samples) for name, samples in thawed_ms.items()}
    return [
        _row(
            "task ready: create and start", made["ours"], f"{made['bare']:.0f} ms: a bare container", *_times(made, 1.3)
        ),
        _row("resume a paused task", thawed["ours"], f"{thawed['bare']:.0f} ms: unpause", *_times(thawed, 1.5)),
    ]


def _times(took: dict[str, float], goal: float) -> tuple[float, float]:
    return took["ours"] / took["bare"], goal


def bytes_out(place: Place) -> list[Row]:
    count = f"head -c {_MEGABYTES}M /dev/zero"
    rates = {}
    for name, argv in (
        ("ours", (sys.executable, "-I", "-m", "opencode_tasks", "exec", "--", "sh", "-c", count)),
        ("docker", (_docker(), "exec", place.name, "sh", "-c", count)),
    ):
        runs = []
        for _ in range(3):
            began = time.perf_counter()
            done = subprocess.run(argv, cwd=place.repo.top, env=place.repo.env, stdout=subprocess.PIPE, check=True)
            runs.append(_MEGABYTES / (time.perf_counter() - began))
            if len(done.stdout) != _MEGABYTES << 20:
                raise BenchmarkError(f"{name}: {len(done.stdout)} bytes came")
        rates[name] = statistics.median(runs)
    ratio = rates["ours"] / rates["docker"]
    row = Row("bytes through exec", f"{rates['ours']:.0f} MiB/s", f"{rates['docker']:.0f} MiB/s: docker exec", ratio)
    return [replace(row, goal="≥ 1 times", holds=ratio >= 1)]


def many(bench: Bench, place: Place) -> list[Row]:
    """Tasks in worktrees: their containers started one after the other, and at once; then `list-tasks`."""
    list_argv = (sys.executable, "-I", "-m", "opencode_tasks", "list-tasks")
    took_s, listed = {}, {"few": 0.0, "many": 1.0}
    for how in ("one after the other", "at once"):
        repo = bench.repo(how.replace(" ", "-"), env={"DOCKER_HOST": place.repo.env["DOCKER_HOST"]})
        repo.tasks("init")
        repo.commit("settings")
        env = {**repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "false"}
        quiet = replace(repo, env=env)
        argv = _starts(quiet, _MANY)
        began = time.perf_counter()
        if how == "at once":
            _at_once(quiet, argv)
        else:
            for a in argv:
                subprocess.run(a, cwd=repo.top, env=env, stdout=subprocess.DEVNULL, check=True)
        took_s[how] = time.perf_counter() - began
        if how == "at once":
            _at_once(quiet, _starts(quiet, _LISTED - _MANY))
            listed = by_turns(7, few=partial(_run, place.repo, list_argv), many=partial(_run, repo, list_argv))
        repo.tasks("uninstall")
    few = f"{listed['few']:.0f} ms: with 1"
    ratio_listed = listed["many"] / listed["few"]
    ratio = took_s["at once"] / took_s["one after the other"]
    floor = f"{took_s['one after the other']:.1f} s: one after the other"
    started = Row(f"{_MANY} tasks started at once", f"{took_s['at once']:.1f} s", floor, ratio)
    return [
        replace(started, goal="≤ 0.6 times", holds=ratio <= 0.6),
        _row(f"`list-tasks`, {_LISTED} containers", listed["many"], few, ratio_listed, 1.5),
    ]


def _starts(repo: Repo, count: int) -> list[tuple[str, ...]]:
    """So many new tasks, and what starts the container of each."""
    before = set(Store(repo.top / ".git").ids())
    for number in range(count):
        repo.tasks("create-task", f"Number {number}", "--worktree")
    made = set(Store(repo.top / ".git").ids()) - before
    return [(sys.executable, "-I", "-m", "opencode_tasks", "reconcile", task_id) for task_id in made]


def _at_once(repo: Repo, argv: Sequence[tuple[str, ...]]) -> None:
    running = [subprocess.Popen(a, cwd=repo.top, env=repo.env, stdout=subprocess.DEVNULL) for a in argv]
    codes = [process.wait() for process in running]
    if any(codes):
        raise BenchmarkError("a container did not start")


def _run(repo: Repo, argv: Sequence[str]) -> None:
    subprocess.run(argv, cwd=repo.top, env=repo.env, stdout=subprocess.DEVNULL, check=True)


def _row(what: str, took_ms: float, floor: str, ratio: float, goal: float) -> Row:
    return Row(what, f"{took_ms:.1f} ms", floor, ratio, f"≤ {goal:g} times", ratio <= goal)


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise BenchmarkError("the docker CLI is not installed")
    return found


def measured(rounds: int) -> list[Row]:
    host = Engine().address
    with repositories.bench() as made:
        bench = replace(made, env={**made.env, "DOCKER_HOST": host})
        place = _made(bench)
        try:
            return [
                *whole_process(place, rounds),
                *in_a_session(place, rounds),
                *committed(place, rounds),
                *bytes_out(place),
                *made_and_resumed(place, rounds),
                *many(bench, place),
            ]
        finally:
            place.repo.tasks("uninstall")


def main(argv: Sequence[str]) -> int:
    """0 measured and no goal missed, 1 otherwise."""
    parser = ArgumentParser(prog="python -m benchmarks.containers", description="what a task's container costs")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured (20)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    # What runs in this process has our input for its own.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return timing.report(lambda: measured(args.rounds), as_json=args.json)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
