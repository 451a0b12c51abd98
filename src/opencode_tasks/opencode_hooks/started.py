"""OpenCode has loaded the plugin: noted, so that `doctor` can tell."""

import json
import sys
from typing import Any

from opencode_tasks import __version__
from opencode_tasks.opencode_hooks.world import Reply, Said, World
from opencode_tasks.store import files
from opencode_tasks.store.log import now


def run(world: World, said: Said) -> Reply:
    at = world.here()
    if at is None:
        return {}
    stamp: dict[str, Any] = {
        "version": __version__,
        "opencode": str(said.get("version") or ""),
        "plugin": str(said.get("plugin") or ""),
        "pid": world.pid,
        "python": sys.executable,
        "at": now(),
    }
    path = at.store.layout.plugin_stamp
    files.replace(path, json.dumps(stamp).encode())
    return world.state(said)
