"""A slash command: it is run here, on the host, and what it says goes into the prompt.

In a process of its own, which may take its time. What the person typed after the name is split into words, and no shell
ever sees it.
"""

import os
import shlex
import tempfile
from collections.abc import Sequence

from opencode_tasks.opencode_hooks.world import Reply, Said, World

NAMES = (
    *("create-task", "resume-task", "list-tasks", "task-status", "detach", "complete-task", "cleanup-task"),
    *("checkpoint", "restore-checkpoint", "task-history", "task-executions", "task-decisions", "find-task"),
    "task-stats",
)
"""Those that are in `commands/`, in the order in which a task meets them."""
_TITLED = ("create-task", "find-task")
_LONGEST = 20_000


def words_of(name: str, typed: str) -> list[str]:
    """The command line. Where a title is wanted, the words that are no options are one."""
    try:
        words = shlex.split(typed)
    except ValueError:  # an apostrophe
        words = typed.split()
    if len(words) == 1 and " " in words[0] and name not in _TITLED:
        words = words[0].split()  # `opencode run --command` puts quotes around all of it
    elif len(words) == 1 and " --" in words[0]:
        words = words[0].split()
    return [name, *(_with_title(words) if name in _TITLED else words)]


def _with_title(words: Sequence[str]) -> list[str]:
    first = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    title = [" ".join(words[:first])] if first else []
    return [*title, *words[first:]]


def run(world: World, said: Said) -> Reply:
    """Called in a process of its own."""
    name = str(said.get("command") or "")
    if name not in NAMES:
        return {}
    os.chdir(world.directory)
    env = world.state(said)["env"]
    os.environ.update(env)
    with tempfile.TemporaryFile() as out:
        for fd in (1, 2):
            os.dup2(out.fileno(), fd)
        from opencode_tasks import cli

        code = cli.main(words_of(name, str(said.get("arguments") or "")))
        out.seek(0)
        output = out.read(_LONGEST).decode(errors="replace")
    return {"code": code, "output": output}
