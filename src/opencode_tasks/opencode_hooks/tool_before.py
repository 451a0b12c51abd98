"""A file tool is about to write, on the host and with the user's rights: only what is the task's own, and not before a
checkpoint holds it. The one hook that refuses; see `commands.file_tools` for what.
"""

import re
from pathlib import Path

from opencode_tasks.commands import automatic, file_tools
from opencode_tasks.commands.here import workspace_of
from opencode_tasks.errors import TaskError
from opencode_tasks.opencode_hooks.world import Reply, Said, World

_PATCHED = re.compile(r"^\*\*\* (?:Add File|Update File|Delete File|Move to): (.+)$", re.MULTILINE)
_MOST = 1000
# A language server, or a search, says which files: those of the directory it works in.
_BY_THEMSELVES = ("lsp_rename", "ast_grep_replace")


def paths_of(said: Said) -> list[Path]:
    """What the tool is to write, as it was told."""
    args = said.get("args")
    if not isinstance(args, dict):
        return []
    named = [args[key] for key in ("filePath", "path") if isinstance(args.get(key), str)]
    if isinstance(args.get("paths"), list):
        named += [path for path in args["paths"] if isinstance(path, str)]
    patch = args.get("patchText") or args.get("patch") or args.get("input")
    if isinstance(patch, str):
        named += [match[1].strip() for match in _PATCHED.finditer(patch)]
    return [Path(name) for name in named[:_MOST]]


def run(world: World, said: Said) -> Reply:
    found = world.working(said)
    session = world.session(said)
    if session.refused:
        return world.state(said) | {"deny": session.refused}
    if found is None:
        return world.state(said)
    at, task, session = found
    checkout = workspace_of(at, task)
    paths = [path if path.is_absolute() else world.directory / path for path in paths_of(said)]
    if checkout is None or not (paths or said.get("tool") in _BY_THEMSELVES):
        return world.state(said) | {"deny": f"task {task.id}: what {said.get('tool')} would write cannot be told"}
    for path in paths:
        why = file_tools.why_not(checkout, path, at.config.container.protected)
        if why:
            return world.state(said) | {"deny": f"task {task.id}: {path}: {why}"}
    try:
        automatic.before_edit(at, task)
    except TaskError as e:
        return world.state(said) | {"log": f"no checkpoint could be taken before it: {e.message}"}
    return world.state(said)
