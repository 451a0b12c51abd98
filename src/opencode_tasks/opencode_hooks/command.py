"""A slash command: it is run here, on the host, and what it says goes into the prompt.

In a process of its own, which may take its time. What the person typed after the name is split into words, and no shell
ever sees it.
"""

import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from opencode_tasks.opencode_hooks.world import Reply, Said, World

NAMES = (
    *("create-task", "resume-task", "list-tasks", "task-status", "detach", "complete-task", "cleanup-task"),
    *("checkpoint", "restore-checkpoint", "task-history", "task-executions", "task-decisions", "find-task"),
    "task-stats",
)
"""Those that are in `commands/`, in the order in which a task meets them."""
_TITLED = ("create-task", "find-task")
_PLACING = ("create-task", "resume-task")
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
    """Called in a process of its own. `directory`: where the task's files are, when that is not here."""
    name = str(said.get("command") or "")
    if name not in NAMES:
        return {}
    os.chdir(world.directory)
    os.environ.update(world.state(said)["env"])
    words = words_of(name, str(said.get("arguments") or ""))
    places = name in _PLACING and "--json" not in words
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        from opencode_tasks import cli

        code = cli.main([*words, "--json"] if places else words)
        output, notes = _read(out), _read(err)
    document = _document(output) if places else {}
    if places and "error" in document:
        output = f"{document['error']['message']}\n  {document['error']['hint']}\n"
    elif document:
        path = document["workspace"]["path"]
        output = f"task {document['id']} is {document['status']}: branch {document['branch']}, files in {path}\n"
        if Path(path) != world.directory and world.directory not in Path(path).parents:
            return {"code": code, "output": output + notes, "directory": path}
    return {"code": code, "output": output + notes}


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_LONGEST).decode(errors="replace")


def _document(output: str) -> dict[str, Any]:
    try:
        found = json.loads(output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
