"""How far the plans are. What was counted is remembered: the parser costs a command more than all the rest of it."""

import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from opencode_tasks import plans
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files, plan
from opencode_tasks.store.layout import Layout
from opencode_tasks.values import value

_MOST = 1000
# What is written twice within one tick of the file system's clock has one time.
_SETTLED_NS = 100_000_000


@value
class Progress:
    done: int
    total: int


def of_task(layout: Layout, task_id: str) -> Progress:
    """Steps that are done, and all; none when there is no plan, or no file that we would read for one."""
    try:
        with os.fdopen(plan.open_file(layout.plan(task_id)), "rb") as f:
            found = os.fstat(f.fileno())
            stamp = [found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size]
            match _known(layout.progress).get(task_id):
                case [*before, int(done), int(total)] if before == stamp:
                    return Progress(done, total)
            text = plan.text_of(f.read(plan.LARGEST_BYTES + 1))
    except OSError:
        return Progress(0, 0)
    steps = plans.steps(text)
    made = Progress(sum(step.done for step in steps), len(steps))
    if steps and time.time_ns() - found.st_ctime_ns > _SETTLED_NS:
        _remember(layout.progress, task_id, [*stamp, made.done, made.total])
    return made


@cache
def _known(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _remember(path: Path, task_id: str, said: list[int]) -> None:
    known = _known(path)
    known.pop(task_id, None)
    known[task_id] = said
    for old in list(known)[:-_MOST]:
        del known[old]
    with suppress(OSError, TaskError):  # it is counted again then
        files.replace(path, json.dumps(known).encode())
