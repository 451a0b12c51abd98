"""Whether a task's container is what it should be, without asking the engine or git: as it was a moment ago.

A full look costs docker-py's import and a few requests. What was seen then is written down, with what it
depended on: settings, git's configuration, and which of the protected paths there are. While none of that has
changed the container is the right one, for so long. That it runs is for its supervisor to say.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_tasks import __version__, assets
from opencode_tasks.config_sections import Config
from opencode_tasks.containers import place, sockets
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store, allowed, files
from opencode_tasks.task import Task

# A newer image may have been built since.
_GOOD_FOR_S = 300.0


def remember(store: Store, config: Config, task: Task, container: str) -> None:
    """After a full look, which found `container` to be right."""
    checkout = discovery.find(Path(task.workspace.path), {})
    seen = {
        "at": time.time(),
        "container": container,
        "facts": _facts(store, config, task, checkout),
        "protected": _flags(place.wanted(checkout, config.container.protected)),
    }
    path = store.layout.ready(task.id)
    with suppress(OSError, TaskError):  # then the next command takes the long way, too
        path.parent.mkdir(exist_ok=True)
        files.replace(path, json.dumps(seen).encode())


def is_ready(store: Store, config: Config, task: Task) -> bool:
    if task.container.state != "running":
        return False
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        seen = json.loads(store.layout.ready(task.id).read_bytes())
        checkout = discovery.find(Path(task.workspace.path), {})
        return bool(
            0 <= time.time() - seen["at"] < _GOOD_FOR_S
            and seen["container"] == task.container.id
            and seen["facts"] == _facts(store, config, task, checkout)
            and seen["protected"] == _flags([Path(p) for p in seen["protected"]])
            and _is_served(store, config, task)
        )
    return False


def _is_served(store: Store, config: Config, task: Task) -> bool:
    """Whether its proxy listens, or it needs none."""
    if not (config.network.allow or task.allowed or allowed.hosts(store.layout)):
        return True
    return sockets.is_served(store.clone_id, task.id)


def _facts(store: Store, config: Config, task: Task, checkout: Checkout) -> dict[str, Any]:
    """As JSON gives it back."""
    common, home = checkout.common_dir, Path.home()
    modules = common / "modules"
    looked_at = [
        common / "config",
        checkout.git_dir / "config.worktree",
        common / "objects" / "info" / "alternates",
        home / ".gitconfig",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "git", "config"),
        Path("/etc/gitconfig"),
        assets.root() / "templates" / "limits.yaml",
        assets.root() / "templates" / "caches.yaml",
        assets.root() / "templates" / "network.yaml",
        store.layout.allowed,
        *([checkout.git_dir / "index"] if modules.is_dir() else []),
    ]
    return {
        "version": __version__,
        "task": [task.image, task.branch, task.workspace.path, vars(task.limits)],
        "container": json.loads(json.dumps(vars(config.container))),
        "limits": vars(config.limits),
        "network": json.loads(json.dumps([vars(config.network), task.allowed])),
        "user": [os.getuid(), os.getgid(), store.clone_id],
        "git": [str(checkout.git_dir), str(common)],
        "engine": os.environ.get("DOCKER_HOST"),
        "stamps": [_stamp(path) for path in looked_at],
        # Another one after each start of the container: something may have to run before the next command.
        "socket": _stamp(sockets.path(store.clone_id, task.id)),
    }


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat(follow_symlinks=not path.name.endswith(".sock"))
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _flags(paths: list[Path]) -> dict[str, bool]:
    return {str(path): files.is_real(path) for path in paths}
