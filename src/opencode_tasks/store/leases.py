"""Which agent may write to a task. The deciding part is pure; the rest asks this machine.

A lease is an event. An exclusive one raises the task's epoch, every write under a lease
carries the lease's epoch, and the store refuses what is not held any more: an agent that was
stopped, lost its lease and wakes up cannot write.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from opencode_tasks.errors import ConflictError, UsageError
from opencode_tasks.events import New
from opencode_tasks.store import files
from opencode_tasks.task import AGENTS, LEASE, Lease, Mode, Task, is_id
from opencode_tasks.values import value

DEFAULT_TTL_S = 300
GRACE_S = 30
_DEAD: tuple[str, ...] = ("dead", "expired")

Life = Literal["alive", "dead", "fresh", "expired"]
"""`alive`, `dead`: proved, on this machine. `fresh`, `expired`: all that time can tell."""


class FencedError(ConflictError):
    """The lease under which somebody wants to write is not held any more."""

    code = "fenced"


@value
class Process:
    """Enough of a process to know it again: numbers are used again, also after a reboot."""

    host: str
    boot_id: str | None
    pid: int | None
    pid_start: str | None


def agent_here() -> str:
    """Why whoever runs this process is taken for an agent; empty: a person. A program that hides it is not known."""
    return next((f"{name} is set" for name in (LEASE, *AGENTS) if os.environ.get(name)), "")


def text(task_id: str, lease: Lease) -> str:
    return f"{task_id}/{lease.epoch}/{lease.since}/{lease.agent}"


def given(text: str) -> tuple[str, Lease] | None:
    """The task and the lease that `text` names; None for an empty one. Raises `UsageError`."""
    if not text:
        return None
    task_id, epoch, since, agent = [*text.split("/", 3), "", "", ""][:4]
    if not is_id(task_id) or not epoch.isdecimal() or not since or not agent:
        raise UsageError(f"{LEASE}={text!r} is not a lease", hint=f"opencode-tasks attach tells it; or: unset {LEASE}")
    return task_id, Lease(agent, "exclusive", int(epoch), ttl_s=0, since=since, host="")


def decide(
    task: Task, agent: str, mode: Mode, ttl_s: int, who: Process, lives: Mapping[str, Life], *, take_over: bool
) -> New | Lease:
    """The event that gives `agent` the lease, or the one it has already.

    `lives`: the life of each holder. Raises `ConflictError` (code `held`) that names who is in the way.
    """
    mine = next((held for held in task.leases if held.agent == agent and _process(held) == who), None)
    if mine is not None and mine.mode == mode:
        return mine
    rivals = [
        held for held in task.leases if held is not mine and (held.agent == agent or "exclusive" in (held.mode, mode))
    ]
    living = [held for held in rivals if lives[held.agent] not in _DEAD]
    if living and not take_over:
        raise _held(task, living[0], lives[living[0].agent])
    data: dict[str, Any] = {
        "agent": agent,
        "mode": mode,
        "epoch": task.epoch + 1 if mode == "exclusive" or rivals else max(1, task.epoch),
        "ttl_s": ttl_s,
        **vars(who),
        "took_over": [held.agent for held in rivals],
    }
    return "lease.taken", data


def _process(lease: Lease) -> Process:
    return Process(lease.host, lease.boot_id, lease.pid, lease.pid_start)


def _held(task: Task, lease: Lease, life: Life) -> ConflictError:
    process = f", process {lease.pid} on {lease.host}" if lease.pid else f" on {lease.host}"
    since = {"alive": "is running", "fresh": f"renewed its lease within {lease.ttl_s + GRACE_S} s"}.get(life, life)
    return ConflictError(
        f"Task {task.id} is held by agent {lease.agent} ({lease.mode}, since {lease.since}{process}), which {since}",
        hint=f"opencode-tasks detach {task.id} --agent {lease.agent}; or attach --take-over, which shuts it out",
        code="held",
    )


def require_held(task: Task, lease: Lease) -> None:
    """Raises `FencedError`, naming who has it now."""
    # The very lease: agents of two clones may have the same name and epoch, and collaborators share an epoch.
    if any((h.agent, h.epoch, h.since) == (lease.agent, lease.epoch, lease.since) for h in task.leases):
        return
    now = ", ".join(f"{h.agent} (epoch {h.epoch}, since {h.since})" for h in task.leases) or "nobody"
    raise FencedError(
        f"The lease of {lease.agent} on {task.id} (epoch {lease.epoch}) ended; now it is held by {now}. "
        "Nothing was written",
        hint=f"read what happened since: opencode-tasks task-history {task.id}; then attach again",
    )


def life(lease: Lease, renewed_s: float, here: Process, now_s: float) -> Life:
    """Whether the holder lives. `here`: this machine; `renewed_s`: when we last heard of the lease, by our clock."""
    if lease.boot_id is not None and here.boot_id is not None:
        # Not by its name, which a laptop changes with the network.
        if lease.boot_id == here.boot_id:
            if lease.pid is not None and lease.pid_start is not None and _same_namespace(lease.pid_start):
                return "alive" if started(lease.pid) == lease.pid_start else "dead"
        elif lease.host == here.host:
            return "dead"  # the machine was started again since
    return "fresh" if now_s - renewed_s < lease.ttl_s + GRACE_S else "expired"


def lives(task: Task, path: Path) -> dict[str, Life]:
    """The life of every holder. Under the task's lock: a lease first seen now is noted."""
    here, now_s = this_machine(), time.time()
    notes = _notes(path)
    seen = {held.agent: notes.get(_key(held), now_s) for held in task.leases}
    if any(_key(held) not in notes for held in task.leases):
        renew(path, task)
    return {held.agent: life(held, seen[held.agent], here, now_s) for held in task.leases}


def renew(path: Path, task: Task, *leases: Lease) -> None:
    """Note that they are in use. Under the task's lock; local to this clone, and not synced."""
    notes = _notes(path)
    kept = {_key(held): notes.get(_key(held), time.time()) for held in task.leases}
    kept |= {_key(held): time.time() for held in leases}
    with files.refused_writes(path):
        path.parent.mkdir(exist_ok=True)
    files.replace(path, json.dumps(kept).encode())


def _key(lease: Lease) -> str:
    return f"{lease.epoch} {lease.agent}"


def _notes(path: Path) -> dict[str, float]:
    with suppress(FileNotFoundError, ValueError, TypeError, OverflowError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            # A note from the future is none: a clock that was set back must not keep a lease for ever.
            return {str(k): float(v) for k, v in found.items() if float(v) <= time.time()}
    return {}


def process(pid: int | None) -> Process:
    """`pid` on this machine; None for a holder that only time can tell about."""
    here = this_machine()
    return Process(here.host, here.boot_id, pid, started(pid) if pid is not None else None)


@cache
def this_machine() -> Process:
    name = os.uname().nodename
    with suppress(OSError):
        # Many machines are called localhost.
        name += "/" + Path("/etc/machine-id").read_text().strip()[:8]
    return Process(name, _boot_id(), None, None)


def _boot_id() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _asked("sysctl", "-n", "kern.bootsessionuuid")


def started(pid: int) -> str | None:
    """When process `pid` began, and in which process namespace; None when there is none."""
    try:
        stat_b = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _asked("ps", "-o", "lstart=", "-p", str(pid))
    fields = stat_b.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return None  # ended, and nobody has asked how
    return f"{fields[19].decode()}@{_namespace()}"


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")  # not a path but a name
    return ""


def _same_namespace(pid_start: str) -> bool:
    return pid_start.rpartition("@")[2] == _namespace() or "@" not in pid_start


def _asked(*argv: str) -> str | None:
    """macOS has no /proc."""
    from opencode_tasks.errors import TaskError
    from opencode_tasks.proc import run

    with suppress(TaskError):
        done = run(argv, cwd=Path("/"), check=False, timeout_s=5)
        return done.out.strip() or None if done.code == 0 else None
    return None
