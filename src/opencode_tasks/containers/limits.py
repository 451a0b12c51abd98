"""What a task's container may use up: a set of `templates/limits.yaml`, the settings, the task's own choice.

And what its history says of that.
"""

from typing import Any

import yaml

from opencode_tasks import assets
from opencode_tasks.config_sections import Config
from opencode_tasks.containers import sizes
from opencode_tasks.containers.spec import Limits
from opencode_tasks.errors import TaskError
from opencode_tasks.task import Choice, Use
from opencode_tasks.values import value

_SIZES = ("memory", "memory_max", "tmp", "home", "disk_free")
_SMALLEST = 6 << 20
_SPARE = 4
_ENOUGH_COMMANDS = 20


def of(config: Config, choice: Choice) -> Limits:
    """Raises `TaskError` (code `config` or `limits`) that names what cannot be."""
    path = assets.root() / "templates" / "limits.yaml"
    sets: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    name = choice.set or config.container.limits
    if name not in sets:
        raise TaskError(f"container.limits: there is no set {name!r}", hint="one of: " + ", ".join(sets), code="config")
    said = {key: written for key, written in vars(config.limits).items() if written != ""}
    chosen = {key: written for key, written in vars(choice).items() if written is not None and key != "set"}
    found = {**sets[name], **said, **chosen}
    if "memory" in said and "memory_max" not in said:
        found["memory_max"] = max(found["memory_max"], said["memory"], key=lambda w: sizes.parse(w, what="memory"))
    return _checked(found)


def _checked(found: dict[str, Any]) -> Limits:
    for key in _SIZES:
        if sizes.parse(str(found[key]), what=f"limits.{key}") < _SMALLEST and key == "memory":
            raise TaskError(f"limits.memory: {found[key]} is too little for any container", code="limits")
    for key, kind, smallest, largest in (
        ("cpus", float, 0.01, 1024),
        ("pids", int, 8, 1 << 22),
        ("soft", float, 0.1, 1),
    ):
        try:
            found[key] = kind(found[key])
        except ValueError:
            found[key] = -1
        if not smallest <= found[key] <= largest:
            raise TaskError(
                f"limits.{key} must be between {smallest:g} and {largest:g}",
                hint="templates/limits.yaml has the defaults",
                code="limits",
            )
    if sizes.parse(found["memory"], what="memory") > sizes.parse(found["memory_max"], what="memory_max"):
        raise TaskError(
            f"{found['memory']} of memory are more than memory_max, {found['memory_max']}",
            hint="a person raises it: limits.memory_max in .opencode/tasks.toml",
            code="limits",
        )
    return Limits(**found)


@value
class Proposal:
    """More, or less, memory than the task has now, and why."""

    memory: str
    why: str


def proposed(limits: Limits, use: Use, commands: int) -> Proposal | None:
    """What the task's history speaks for. Never above `memory_max`."""
    now, most = (sizes.parse(written, what="memory") for written in (limits.memory, limits.memory_max))
    if use.oom_kills or use.memory_held:
        wanted = min(most, max(2 * now, _rounded(use.memory_bytes + use.memory_bytes // 2)))
        ended = f"the kernel ended {use.oom_kills} of its processes" if use.oom_kills else ""
        held = f"it was held still {use.memory_held} times" if use.memory_held else ""
        why = f"memory came to an end at {limits.memory}: " + ", ".join(part for part in (ended, held) if part)
    elif commands >= _ENOUGH_COMMANDS and 0 < use.memory_bytes * _SPARE < now:
        wanted = _rounded(2 * use.memory_bytes)
        why = f"its {commands} commands never used more than {sizes.told(use.memory_bytes)} of {limits.memory}"
    else:
        return None
    return None if wanted == now else Proposal(sizes.written(wanted), why)


def _rounded(n: int) -> int:
    """Up to a multiple of 256 MiB."""
    step = 256 << 20
    return -(-n // step) * step
