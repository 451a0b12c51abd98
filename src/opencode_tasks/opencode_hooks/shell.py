"""What `tasksh` does where a task is at work: the command goes into the task's container, or nowhere (exit code 126).

By what the plugin says, or where we stand when it says nothing. In doubt nothing runs.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from opencode_tasks.commands import here
from opencode_tasks.commands.here import Here
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.git import discovery, workspaces
from opencode_tasks.opencode_hooks.names import PLAIN, REFUSED, TASK, UNKNOWN
from opencode_tasks.policy import ours
from opencode_tasks.task import Task

_REFUSED = 126
_NOT_FOUND = 127
# bash where the image has it.
_BASH = 'if [ -x /bin/bash ]; then exec /bin/bash "$@"; else exec /bin/sh "$@"; fi'


def run(words: list[str]) -> int:
    """`words`: what a shell is called with. `PLAIN` where no task is concerned. Raises nothing."""
    try:
        return _run(words)
    except TaskError as e:
        _say(e.message + (f"\n  {e.hint}" if e.hint else ""))
        return UNKNOWN if e.code == "outcome_unknown" else _REFUSED
    except KeyboardInterrupt:
        return 130
    except Exception:  # a bug of ours runs nothing on the host
        import traceback

        traceback.print_exc()
        _say("this is a bug of opencode-tasks; the command was not run")
        return _REFUSED


def _run(words: list[str]) -> int:
    if why := os.environ.get(REFUSED):
        raise TaskError(why, code="held")
    found = _found()
    if found is None:
        return PLAIN
    at, task = found
    command = words[1] if len(words) > 1 and words[0] == "-c" else None
    called = None if command is None else ours.words_of(command)
    if called is not None:
        return _ours(at, task, called)
    from opencode_tasks.commands.execution import execute

    through = ("/bin/sh", "-c", _BASH, "bash", *words)
    code = execute(at, task, ("bash", *words), as_json=False, through=through).exit_code
    if code == _NOT_FOUND and command is not None and ours.PROGRAM in command:
        _say(f"{ours.PROGRAM} runs on the host: call it by itself, without pipes, variables or other commands")
    return code


def _found() -> tuple[Here, Task] | None:
    """None: no task is concerned. Raises `TaskError` when one is, and this is no place for its commands."""
    said = os.environ[TASK] if TASK in os.environ else _of_opencode()
    cwd = Path.cwd()
    try:
        at = here.find(cwd, hot=True)
    except TaskError as e:
        if said:
            raise _outside(cwd, said) from e
        if e.code in ("not_a_repository", "bare_repository") and not _has_store(cwd):
            return None
        raise
    if not at.store.exists():
        if said:
            raise _outside(cwd, said)
        return None
    at.store.recover()
    task = _task(at)
    if said and (task is None or task.id != said):
        raise _outside(cwd, said)
    return None if task is None else (at, task)


def _task(at: Here) -> Task | None:
    try:
        return at.task(None)
    except NoTaskError:
        # Such as in the middle of a rebase: the work tree is its all the same.
        occupant = workspaces.occupant(at.checkout)
        return None if occupant is None else at.store.get(occupant)


def _has_store(cwd: Path) -> bool:
    """Whether we stand in a git directory of tasks: what is written there, the host obeys."""
    return any((above / "opencode-tasks" / "store").is_dir() for above in (cwd, *cwd.parents))


def _of_opencode() -> str | None:
    """The task where OpenCode was started, when the plugin said nothing."""
    with suppress(OSError, ValueError, TaskError):
        cwd = Path(f"/proc/{int(os.environ.get('OPENCODE_PID', ''))}/cwd").readlink()
        return workspaces.occupant(discovery.find(cwd, {}))
    return None


def _outside(cwd: Path, task_id: str) -> TaskError:
    return TaskError(
        f"{cwd} is not in the workspace of task {task_id}: nothing of it is in the task's container",
        hint="run it in the workspace; what has to be done elsewhere a person does",
        code="outside",
    )


def _ours(at: Here, task: Task, words: list[str]) -> int:
    why = ours.why_not(words) or _names_another(at, task, words)
    if why:
        raise TaskError(why, hint="opencode-tasks --help", code="persons_decision")
    from opencode_tasks import cli

    return cli.main(words)


def _names_another(at: Here, task: Task, words: list[str]) -> str:
    if ours.changes(words):
        for word in words[1:]:
            with suppress(TaskError):
                if at.store.resolve(word.partition("=")[2] or word).id != task.id:
                    return f"{words[0]} is for the task that you work on, and {word} is another"
    return ""


def _say(text: str) -> None:
    sys.stderr.write(f"opencode-tasks: {text}\n")
    sys.stderr.flush()
