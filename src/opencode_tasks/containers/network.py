"""What a task may reach, as a list for its proxy; and what the proxy refused. No engine is asked here.

The proxy of a clone (`egress`, run by `sidecar`) reads the lists from a folder on the host and writes what it refused
to another. Nothing that it wrote is trusted.
"""

import json
import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_tasks import assets, config, config_checks, hosts
from opencode_tasks.config_sections import Config
from opencode_tasks.containers import sockets
from opencode_tasks.containers.egress import refusals
from opencode_tasks.containers.egress.refusals import Refusal
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.store import Store, allowed, files
from opencode_tasks.store import settings as settings_file
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Task
from opencode_tasks.values import value

_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


@value
class Allowed:
    """`said` is what was written down, a host or a preset; `source`: settings, clone, or the task's id."""

    host: str
    said: str
    source: str


def of_task(store: Store, settings: Config, task: Task) -> list[Allowed]:
    """Raises `TaskError` (code `config`) for a preset that there is not."""
    return [*for_all(store, settings), *_expanded(task.allowed, task.id)]


def for_all(store: Store, settings: Config) -> list[Allowed]:
    of_settings = _expanded(settings.network.allow, "settings")
    return [*of_settings, *_expanded(allowed.hosts(store.layout), "clone")]


def _expanded(said: tuple[str, ...], source: str) -> list[Allowed]:
    return [Allowed(host, word, source) for word in said for host in meant(word, source)]


def meant(word: str, source: str) -> list[str]:
    """The hosts that a preset stands for; else the entry itself, as it is compared. Raises `TaskError`."""
    where = f"{config.FILE}: network.allow" if source == "settings" else f"allowed for {source}"
    if config_checks.PRESET.fullmatch(word):
        presets = _presets()
        if word not in presets:
            raise TaskError(
                f"{where}: there is no preset {word!r}", hint=f"one of: {', '.join(presets)}; or a host", code="config"
            )
        return presets[word]
    try:
        return [str(hosts.entry(word))]
    except ValueError as e:
        raise TaskError(f"{where}: {word!r} is {e}", hint=config_checks.LIKE, code="config") from e


def checked(word: str) -> str:
    """What a person typed, as it is recorded. Raises `UsageError`."""
    try:
        expanded = meant(word, "this command")
    except TaskError as e:
        raise UsageError(e.message.removeprefix("allowed for this command: "), hint=e.hint) from e
    return word if config_checks.PRESET.fullmatch(word) else expanded[0]


def _presets() -> dict[str, list[str]]:
    import yaml

    found: dict[str, list[str]] = yaml.safe_load((assets.root() / "templates" / "network.yaml").read_text())
    return found


def settings_of(store: Store, task: Task, otherwise: Config) -> Config:
    """Those of its own work tree, whoever asks."""
    top = Path(task.workspace.path)
    return config.load(top, through=settings_file.through(store.layout)) if top.is_dir() else otherwise


def write_policy(store: Store, otherwise: Config, task_id: str) -> Config | None:
    """The settings by which the task may reach something; its proxy knows it a moment later. None: nothing.

    By what is decided now, and one after the other: what was taken back does not come again. Raises `TaskError`.
    """
    place = sockets.egress(store.clone_id, task_id)
    if place is None:
        return None
    with locked(store.layout.lock("egress"), hot=True):
        task = store.get(task_id)
        settings = settings_of(store, task, otherwise)
        listed = of_task(store, settings, task) if task.is_open else []
        if not listed:
            place.policy.unlink(missing_ok=True)
            return None
        policy = {
            "allow": sorted({one.host for one in listed}),
            "private": list(settings.network.private),
            "denied": own_addresses(),
        }
        content_b = json.dumps(policy).encode()
        if _content(place.policy) != content_b:
            files.replace(place.policy, content_b)
    return settings


def close(store: Store, task_id: str) -> None:
    """Nothing is reached from the task any more. What was refused stays to be read."""
    with locked(store.layout.lock("egress"), hot=True):
        sockets.egress_paths(store.clone_id, task_id).policy.unlink(missing_ok=True)


def own_addresses(proc: Path = Path("/proc/net")) -> list[str]:
    """The host's, as Linux tells. None elsewhere."""
    found: set[str] = set()
    with suppress(OSError):
        found |= set(_LOCAL.findall((proc / "fib_trie").read_text()))
    with suppress(OSError):
        lines = (proc / "if_inet6").read_text().splitlines()
        found |= {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in lines}
    return sorted(found)


def refused(store: Store, task_id: str) -> list[Refusal]:
    """What the proxy says that it refused, the newest last."""
    return refusals.parse(_content(sockets.egress_paths(store.clone_id, task_id).refused))


def _content(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as f:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return f.read(refusals.LARGEST)


def to_allow(refusal: Refusal) -> str:
    """What a person would have to allow; empty where no list helps."""
    if not (refusal.why == "not allowed" or refusal.why.endswith("is not allowed")):
        return ""
    named = refusal.host if refusal.port in hosts.PORTS else f"{refusal.host}:{refusal.port}"
    try:
        return str(hosts.entry(named))
    except ValueError:
        return ""


def refusal_lines(found: list[Refusal], task_id: str) -> list[str]:
    lines = []
    for refusal in found:
        entry = to_allow(refusal)
        hint = f"; opencode-tasks allow {entry} --task {task_id}" if entry else ""
        lines.append(f"{refusal.host}:{refusal.port}: {refusal.why} ({refusal.count} times, {refusal.last}){hint}")
    return lines


def document(listed: list[Allowed], found: list[Refusal]) -> dict[str, Any]:
    return {"allowed": [vars(one) for one in listed], "refused": [one._asdict() for one in found]}
