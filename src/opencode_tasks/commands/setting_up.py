"""What the project's `devcontainer.json` wants run before a task's first command.

It runs inside and is recorded like any command, once for a container or at each start of it. How far that went is
written down for the next command, in this process or another.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opencode_tasks.commands.here import Here
from opencode_tasks.containers import holds
from opencode_tasks.containers.devcontainer import CREATE_STAGES, START_STAGES, Command
from opencode_tasks.errors import TaskError
from opencode_tasks.store import files
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.containers.engine import Found
    from opencode_tasks.containers.session import Finished

_Run = Callable[[Sequence[str]], "Finished"]


def run_due(at: Here, task: Task, found: "Found", run: _Run) -> None:
    """A command that fails is told, and those after it do not run; the container can be used all the same.

    Raises `KeyboardInterrupt` when one was interrupted: it runs again the next time.
    """
    from opencode_tasks.containers import project

    wanted = project.of(at.checkout, at.config, task, at.store.clone_id)
    if wanted is None or not wanted.commands:
        return
    with holds.set_up(at.store, task.id):
        done = _Done(at, task.id, found)
        for stage in (*CREATE_STAGES, *START_STAGES):
            commands = [c for c in wanted.commands if c.stage == stage]
            if not commands or done.failed or done.has(stage):
                continue
            _tell(f"{wanted.path}: {stage}")
            failed = _run_stage(commands, run)
            done.note(stage, failed=bool(failed))
            if failed:
                _tell(
                    f"{stage} failed ({failed}) and is not run again in this container, nor what comes after it; "
                    f"to look: opencode-tasks task-executions {task.id} --failed --output"
                )


def _run_stage(commands: Sequence[Command], run: _Run) -> str:
    """One after the other. Why it failed; empty when it did not."""
    for command in commands:
        ended = run(command.argv)
        if ended.signals:
            raise KeyboardInterrupt
        if ended.code is None:
            raise TaskError(
                f"The engine or the container went away while {command.stage} ran",
                hint="run the command again",
                code="outcome_unknown",
            )
        if ended.code != 0:
            return f"exit code {ended.code}"
    return ""


class _Done:
    """In the store's own place, which no container can write."""

    def __init__(self, at: Here, task_id: str, found: "Found") -> None:
        self._path = at.store.layout.set_up(task_id)
        self._now: dict[str, Any] = {"container": found.id, "started_at": found.started_at, "stages": [], "failed": ""}
        try:
            before = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return
        if not isinstance(before, dict) or before.get("container") != found.id:
            return
        is_same_start = before.get("started_at") == found.started_at
        stages = before.get("stages")
        kept = START_STAGES if is_same_start else ()
        self._now["stages"] = [s for s in stages if s in (*CREATE_STAGES, *kept)] if isinstance(stages, list) else []
        failed = before.get("failed")
        self._now["failed"] = failed if is_same_start or failed in CREATE_STAGES else ""

    @property
    def failed(self) -> bool:
        return bool(self._now["failed"])

    def has(self, stage: str) -> bool:
        return stage in self._now["stages"]

    def note(self, stage: str, *, failed: bool) -> None:
        self._now["stages"].append(stage)
        self._now["failed"] = stage if failed else ""
        self._path.parent.mkdir(exist_ok=True)
        files.replace(self._path, json.dumps(self._now).encode())


def _tell(line: str) -> None:
    sys.stderr.write(f"opencode-tasks: {line}\n")
