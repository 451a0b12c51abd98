"""What `doctor` proves about OpenCode and the task here, instead of trusting that it was installed: by doing it."""

import json
from datetime import UTC, datetime
from typing import Any

from opencode_tasks.commands import documents, file_tools
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.opencode import launcher, present
from opencode_tasks.proc import clean_git_env, run
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import AGENTS, LEASE, Task

Finding = tuple[bool, str, str]

_PATIENCE_S = 60
_REFUSED = 126
_NOWHERE = "no task is at work here: nothing to try"


def stamp(layout: Layout) -> dict[str, Any]:
    """What the plugin wrote when OpenCode loaded it last; empty when it never did."""
    try:
        found = json.loads(layout.plugin_stamp.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def plugin(at: Here) -> Finding:
    """A plugin that fails is passed over by OpenCode without a word: only what it did proves that it runs."""
    if not present.is_set_up(at.checkout):
        return True, "not set up here: init --opencode does it", ""
    found = stamp(at.store.layout)
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(found["at"]))
    except (KeyError, ValueError):
        return True, "not loaded yet: start opencode here once, then ask again; if it says this then, it failed", ""
    return True, f"loaded by OpenCode (process {found.get('pid')}) {max(0, int(age.total_seconds()))} s ago", ""


def canary(at: Here) -> Finding:
    """A command as OpenCode would run it has to end up in the container."""
    task = _at_work(at)
    if task is None:
        return True, _NOWHERE, ""
    shell = launcher.path_in(at.store.layout.root)
    if not shell.is_file():
        return True, "not set up here: init --opencode does it", ""
    if documents.container_state(task, documents.live_states(at.store, [task])) != "running":
        return True, f"the container of {task.id} does not run: not tried, for that would start it", ""
    env = {k: v for k, v in clean_git_env().items() if k not in (*AGENTS, LEASE)}
    done = run((str(shell), "-c", "hostname"), cwd=at.checkout.top, env=env, timeout_s=_PATIENCE_S, check=False)
    if done.code == _REFUSED:
        return True, f"refused, and nothing ran on the host: {(done.err or done.out).strip()}", ""
    if done.out.strip() != task.id[:63]:
        return False, f"`hostname` said {done.out.strip()!r}, which is not the task's container", "opencode-tasks init"
    return True, f"`hostname` said {done.out.strip()}: the task's container", ""


def protected(at: Here) -> Finding:
    """What a file tool is told that wants to write where the host obeys."""
    task = _at_work(at)
    checkout = None if task is None else workspace_of(at, task)
    if checkout is None:
        return True, _NOWHERE, ""
    wanted = [
        checkout.top / ".git" / "hooks" / "x",
        checkout.top / ".opencode" / "plugins" / "x.js",
        checkout.top.parent,
    ]
    let = [str(path) for path in wanted if not file_tools.why_not(checkout, path, at.config.container.protected)]
    if let:
        return False, f"a write to {let[0]} would not be refused", "this is a bug of opencode-tasks"
    return True, "writes to .git, .opencode and out of the workspace are refused", ""


def _at_work(at: Here) -> Task | None:
    try:
        task = at.task(None)
    except (NoTaskError, TaskError):
        return None
    return task if task.status == "running" else None
