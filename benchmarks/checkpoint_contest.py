"""All tools' snapshots of the same tree, by turns; and which of them bring back what was there."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import checkpoint_scenes, checkpoint_trees, timing
from benchmarks.checkpoint_agents import Cline, Gemini, OpenCode
from benchmarks.checkpoint_peers import Ours, Peer, Rsync, Stash, Tar, missing
from benchmarks.checkpoint_trees import Tree
from benchmarks.repositories import Bench
from benchmarks.timing import BenchmarkError, Row

_T = TypeVar("_T")
TOOLS: tuple[type[Peer], ...] = (Ours, OpenCode, Cline, Gemini, Stash, Rsync, Tar)
FIRST, AGAIN, BACK = "first", "10 changed", "10 changed, 2 deleted, 3 new: back"
_ACTIONS = (FIRST, AGAIN, BACK)
_IN_WORK, _UNTRACKED = 10, 20


@dataclass
class Result:
    """`found`: by scene, as `checkpoint_scenes.judged` says it. `median_ms`: by action."""

    name: str
    found: dict[str, dict[str, list[str]]]
    scenes: int
    median_ms: dict[str, float] = field(default_factory=dict)

    @property
    def right(self) -> int:
        return sum(not found for found in self.found.values())


def played(bench: Bench, files: int, rounds: int) -> list[Result]:
    """Ours is first. A tool that is not installed is left out, which is said."""
    tools = []
    for tool in TOOLS:
        absent = missing(tool)
        if absent:
            print(f"{tool.name} is left out: apt-get install {' '.join(absent)}", file=sys.stderr)
        else:
            tools.append(tool)
    results = [_judged(bench, tool) for tool in tools]
    taken = _timed(bench, tools, files, rounds)
    for result, tool in zip(results, tools, strict=True):
        result.median_ms = {action: statistics.median(taken[tool.name, action]) for action in _ACTIONS}
    return results


def _judged(bench: Bench, tool: type[Peer]) -> Result:
    found = {}
    for number, scene in enumerate(checkpoint_scenes.ALL):
        found[scene.name] = checkpoint_scenes.judged(bench, tool, scene, f"{TOOLS.index(tool)}-{number}")
    return Result(tool.name, found, len(checkpoint_scenes.ALL))


def _timed(bench: Bench, tools: Sequence[type[Peer]], files: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Each tool has a copy of the tree, with work in it that is not committed. The order rotates."""
    grown = checkpoint_trees.grown(bench, "contest", files)
    taken: dict[tuple[str, str], list[float]] = {}
    players = []
    for at, tool in enumerate(tools):
        tree = checkpoint_trees.copied(bench, grown, f"contest-{at}")
        players.append((tree, tool(tree.repo, bench.root / f"contest-{at}.snapshots")))
    checkpoint_trees.felled(grown)
    for number in range(-1, rounds):
        for tree, peer in players:
            _prepare(tree, peer, number)
        checkpoint_trees.settled(tree for tree, _ in players)
        first = number % len(players)
        for tree, peer in (*players[first:], *players[:first]):
            for action, took_ms in zip(_ACTIONS, _once(tree, peer, number), strict=True):
                if number >= 0:
                    taken.setdefault((peer.name, action), []).append(took_ms)
    for tree, _ in players:
        checkpoint_trees.felled(tree)
    return taken


def _prepare(tree: Tree, peer: Peer, number: int) -> None:
    """No snapshot was ever taken, and there is work that is not committed."""
    tree.repo.git("reset", "--quiet", "--hard")
    tree.repo.git("clean", "--quiet", "-d", "--force")
    tree.change(tree.sample(_IN_WORK, seed=1000), f"in work {number}")
    tree.write((f"src/untracked/file{at}.txt" for at in range(_UNTRACKED)), f"untracked {number}\n" * 100)
    peer.forget()


def _once(tree: Tree, peer: Peer, number: int) -> tuple[float, float, float]:
    """What each action took, in ms."""
    names = tree.sample(22, seed=number)
    changed, again, deleted = names[:10], names[10:20], names[20:]
    new = [f"src/new/file{at}.txt" for at in range(3)]
    first_ms, _ = _ms(peer.take)
    tree.change(again, f"again {number}")
    peer.edited()
    again_ms, taken = _ms(peer.take)
    before = tree.read((*changed, *deleted))
    tree.change(changed, f"changed {number}, longer than it was")
    tree.delete(deleted)
    tree.write(new, f"new {number}\n")
    peer.edited()
    os.sync()
    back_ms, _ = _ms(lambda: peer.back(taken))
    if tree.read((*changed, *deleted)) != before:
        raise BenchmarkError(f"{peer.name} did not bring back what it is measured for")
    return first_ms, again_ms, back_ms


def _ms(call: Callable[[], _T]) -> tuple[float, _T]:
    began = time.perf_counter()
    result = call()
    return (time.perf_counter() - began) * 1000, result


def rows(results: Sequence[Result]) -> list[Row]:
    """Ours beside the fastest of the others, and whether ours was right each time."""
    ours, *others = results
    made = []
    for action in _ACTIONS:
        best = min(others, key=lambda other: other.median_ms[action])
        mine_ms, best_ms = ours.median_ms[action], best.median_ms[action]
        ratio = mine_ms / best_ms
        floor = f"{best_ms:.0f} ms: {best.name}, the fastest other"
        made.append(Row(f"against others: {action}", f"{mine_ms:.0f} ms", floor, ratio, "≤ 1 times", ratio <= 1))
    most = max(others, key=lambda other: other.right)
    floor = f"{most.right}: {most.name}, the best other"
    holds = ours.right == ours.scenes
    return [*made, Row("scenes with all as it was", f"{ours.right} of {ours.scenes}", floor, None, "all", holds)]


def table(results: Sequence[Result]) -> str:
    """In brackets: how many times what ours took. Below: what was not as it must be."""
    if not results:
        return ""
    ours, lines = results[0], []
    for result in results:
        cells = [result.name]
        for action in _ACTIONS:
            took_ms = result.median_ms[action]
            cells.append(f"{took_ms:.0f} ms ({took_ms / ours.median_ms[action]:.1f})")
        lines.append((*cells, f"{result.right} of {result.scenes}"))
    told = [f"- {result.name}: {_told(result)}" for result in results]
    return timing.markdown(("", *_ACTIONS, "right"), lines) + "\n\n" + "\n".join(told)


def _told(result: Result) -> str:
    scenes = [f"{scene} ({', '.join(found)})" for scene, found in result.found.items() if found]
    return "; ".join(scenes) or "all as it was"
