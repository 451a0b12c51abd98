"""`task-stats`: how tasks went: counts, time in each status, commands and failures, checkpoints, disk use."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from opencode_tasks.commands import Bars, Result, here, list_tasks, period
from opencode_tasks.containers import sizes
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import Task
from opencode_tasks.values import replace

HELP = "show counts, times, commands and disk use of the tasks"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="only this task (default: all of them)")
    list_tasks.add_filters(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    layout = at.store.layout
    if args.task:
        task = at.task(args.task)
        wanted = replace(list_tasks.query(at, args), ids=(task.id,), deleted=task.deleted_at is not None)
        found = at.store.index.stats(wanted)
        disk = {"memory_bytes": size_bytes(layout.task(task.id))}
    else:
        found = at.store.index.stats(list_tasks.query(at, args))
        disk = _disk(layout, sizes.parse(at.config.checkpoint.budget, what="the budget of checkpoints"))
    document: dict[str, Any] = {**found, "disk": disk}
    if args.task:
        document["now"] = _now(at, task)
    return Result(document, bars=_bars(document))


def _now(at: here.Here, task: Task) -> dict[str, int] | None:
    """What its container uses; None when it does not run, or cannot tell."""
    from opencode_tasks.containers import links, sockets

    folder = sockets.folder(at.store.clone_id, task.id) if task.container.state == "running" else None
    now = None if folder is None else links.now(folder)
    return None if now is None else vars(now)


def _disk(layout: Layout, budget_b: int) -> dict[str, int]:
    """`checkpoints_budget_bytes`: what checkpoints may take before the oldest go."""
    return {
        "memory_bytes": size_bytes(layout.store),
        "history_bytes": size_bytes(layout.memory_git),
        "checkpoints_bytes": size_bytes(layout.checkpoints_git),
        "index_bytes": size_bytes(layout.index),
        "checkpoints_budget_bytes": budget_b,
    }


def size_bytes(path: Path) -> int:
    """What the files take on disk; what is deleted meanwhile counts nothing."""
    total, waiting = 0, [str(path)]
    while waiting:
        at = waiting.pop()
        try:
            found = os.lstat(at)
            total += found.st_blocks * 512
            if os.path.isdir(at) and not os.path.islink(at):  # noqa: PTH112, PTH114 (one string for each of many files)
                waiting += [entry.path for entry in os.scandir(at)]
        except OSError:
            continue
    return total


def _memory(found: dict[str, Any]) -> dict[str, int]:
    now = found.get("now") or {}
    shown = {"now": now.get("memory_bytes"), "most": found["memory_bytes"], "limit": now.get("memory_limit_bytes")}
    return {name: n for name, n in shown.items() if n is not None}


def _used(disk: dict[str, int]) -> dict[str, tuple[int, str]]:
    budget = f" of {sizes.told(disk[_BUDGET])}" if _BUDGET in disk else ""
    told = {name.removesuffix("_bytes"): (n, sizes.told(n)) for name, n in disk.items() if name != _BUDGET}
    if budget:
        size_b, said = told["checkpoints"]
        told["checkpoints"] = size_b, said + budget
    return told


_BUDGET = "checkpoints_budget_bytes"


def _bars(found: dict[str, Any]) -> list[Bars]:
    times = {s: found[f"{s}_ms"] for s in ("pending", "running", "paused")}
    commands = {"succeeded": found["commands"] - found["failures"], "failed": found["failures"]}
    return [
        Bars(f"{found['tasks']} tasks", {s: (n, str(n)) for s, n in found["by_status"].items()}),
        Bars("time", {s: (ms, period.told(ms)) for s, ms in times.items()}),
        Bars(
            f"{found['commands']} commands, {period.told(found['command_ms'])}",
            {name: (n, str(n)) for name, n in commands.items()},
        ),
        Bars("processor time", {"commands": (found["cpu_ms"], period.told(found["cpu_ms"]))}),
        Bars("memory", {name: (n, sizes.told(n)) for name, n in _memory(found).items()}),
        Bars("came to an end", {name: (found[name], str(found[name])) for name in ("oom_kills", "held")}),
        Bars("kept", {name: (found[name], str(found[name])) for name in ("checkpoints", "decisions")}),
        Bars("disk", _used(found["disk"])),
    ]
