"""What the way out of a task's container costs: through forwarder and proxy, beside a container in the network itself.

    python -m benchmarks.egress [--rounds N] [--json]

Needs an engine and our base image. The server is in a network that leads nowhere. `docs/benchmarks.md` has figures.
"""

import statistics
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import docker
from tests.containers.mirror import NAME, Mirror, certificate_folder, mirror

from benchmarks import repositories, timing
from benchmarks.repositories import Bench
from benchmarks.timing import BenchmarkError, Row
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import container_name
from opencode_tasks.store import Store

_MEGABYTES = 512
_SMALL = 20
_MOST_ADDED_MS = 5.0

Fetch = Callable[[str], list[float]]
"""Seconds for each of the same address, in one process of curl."""


def fetcher(client: docker.DockerClient, container: str) -> Fetch:
    def fetch(urls: str) -> list[float]:
        argv = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--no-keepalive", "--header"]
        argv += ["Connection: close", "--output", "/dev/null", "--write-out", "%{time_total}\\n"]
        wanted = urls.split()
        for url in wanted[1:]:
            argv += [url, "--output", "/dev/null"]
        done = client.containers.get(container).exec_run([*argv, wanted[0]], demux=True)
        out, err = cast(tuple[bytes | None, bytes | None], done.output)
        if done.exit_code != 0:
            raise BenchmarkError(f"curl ended with {done.exit_code}: {(err or b'').decode()}")
        return [float(line) for line in (out or b"").split()]

    return fetch


def compared(ways: dict[str, Fetch], urls: str, rounds: int) -> dict[str, float]:
    """The median of each way, in seconds; they take turns, and one round does not count."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, fetch in ways.items():
            took = fetch(urls)
            if number >= 0:
                samples[name] += took
    return {name: statistics.median(taken) for name, taken in samples.items()}


def rows(ways: dict[str, Fetch], rounds: int) -> list[Row]:
    made = []
    for scheme in ("http", "https"):
        took = compared(ways, " ".join([f"{scheme}://{NAME}/"] * _SMALL), rounds)
        added_ms = (took["ours"] - took["direct"]) * 1000
        row = Row(f"added to a small {scheme} request", f"{added_ms:.1f} ms", f"{took['direct'] * 1000:.1f} ms: direct")
        made.append(replace(row, goal=f"≤ {_MOST_ADDED_MS:g} ms", holds=added_ms <= _MOST_ADDED_MS))
    for scheme in ("http", "https"):
        took = compared(ways, f"{scheme}://{NAME}/size/{_MEGABYTES}", rounds)
        ours, direct = (_MEGABYTES / took[name] for name in ("ours", "direct"))
        row = Row(f"bytes through {scheme}", f"{ours:.0f} MiB/s", f"{direct:.0f} MiB/s: direct", ours / direct)
        made.append(replace(row, goal="≥ 0.5 times", holds=ours / direct >= 0.5))
    return made


def with_a_task(bench: Bench, server: Mirror, client: docker.DockerClient, rounds: int) -> list[Row]:
    env = {"DOCKER_HOST": bench.env["DOCKER_HOST"], "OPENCODE_TASKS_NETWORK_THROUGH": server.network}
    repo = bench.repo("egress", env=env)
    repo.tasks("init")
    repo.commit("settings")
    repo.git("checkout", "--quiet", "-b", "task/bench")
    neighbour = client.containers.run(
        server.image, ["sleep", "3600"], network=server.network, init=True, detach=True, mem_limit="4g"
    )
    try:
        repo.tasks("allow", NAME)
        repo.tasks("exec", "--", "true")
        (task_id,) = Store(repo.top / ".git").ids()
        ours = fetcher(client, container_name(task_id))
        return rows({"ours": ours, "direct": fetcher(client, str(neighbour.id))}, rounds)
    finally:
        neighbour.remove(force=True)
        repo.tasks("uninstall")


def measured(rounds: int) -> list[Row]:
    host = Engine().address
    client = docker.DockerClient(host)
    with repositories.bench() as made, certificate_folder() as folder, mirror(host, folder) as server:
        return with_a_task(replace(made, env={**made.env, "DOCKER_HOST": host}), server, client, rounds)


def main(argv: Sequence[str]) -> int:
    """0 measured and no goal missed, 1 otherwise."""
    parser = ArgumentParser(prog="python -m benchmarks.egress", description="what the way out of a container costs")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured (9)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    return timing.report(lambda: measured(args.rounds), as_json=args.json)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
