"""Holds everything still when memory, or the workspace's disk, comes to an end."""

import mmap
import os
import signal
import struct
import time

from opencode_tasks.containers.inside.processes import children, everything, send_signal


class Watch:
    """Looks at memory and disk, the more often the less is left. What it sees is shared with those who serve.

    `soft`: the part of the memory limit at which everything is held still. `disk`: a path, `disk_free`:
    the bytes that must stay free there.
    """

    # The fastest that one core has been seen to fill memory, with a margin.
    FILLS_BYTES_S = 2.5e9
    KINDS = ("", "memory", "disk")
    SHARED = struct.Struct("=BQQQQ")

    def __init__(self, soft: float, disk: str, disk_free: int) -> None:
        self.soft, self.disk, self.disk_free = soft, disk, disk_free
        self.shared = mmap.mmap(-1, self.SHARED.size)
        self.decided, self.deciding = os.pipe()
        self.due = 0.0
        self.spared = ""  # the host let it go on, though nothing has become better
        self.files = memory_files()

    @property
    def seen(self) -> "tuple[str, int, int, int, int]":
        """What holds everything still (or nothing), since when (ns), used and limit (bytes), the most memory used.

        Of a disk: what is free, and what must be.
        """
        kind, *numbers = self.SHARED.unpack(self.shared[:])
        return (self.KINDS[kind], *numbers)

    def look(self) -> float:
        """Milliseconds until the next look is due."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.look_now()
        return max(1.0, (self.due - now) * 1000)

    def look_now(self) -> float:
        """Seconds until the next one."""
        held, since, _, _, most = self.seen
        used, limit = memory(self.files)
        soft, most = limit * self.soft, max(most, used)
        free = free_bytes(self.disk)
        kind = ""
        if limit and used > (soft * 0.9 if held else soft):
            kind = "memory"
        elif free < self.disk_free:
            kind, used, limit = "disk", free, self.disk_free
        if kind == self.spared != "":
            kind = ""
        elif not kind:
            self.spared = ""
        if kind and not held:
            everything(signal.SIGSTOP)
            since = time.monotonic_ns()
        self.shared[:] = self.SHARED.pack(self.KINDS.index(kind), since, used, limit, most)
        if held and not kind:
            everything(signal.SIGCONT)
        if bool(kind) != bool(held):
            send_signal(signal.SIGUSR1, children())
        return 0.05 if kind else min(1.0, max(0.02, (soft - used) / self.FILLS_BYTES_S if limit else 1.0))

    def decide(self, what: bytes) -> None:
        if self.seen[0]:
            if what == b"S":
                everything(signal.SIGKILL)
            else:
                self.spared = self.seen[0]
            self.due = 0.0


def memory_files() -> "tuple[str, str, str, str]":
    """What is used, the limit, the parts, and what the kernel has killed; of cgroup v2, else v1."""
    new, old = "/sys/fs/cgroup/memory.", "/sys/fs/cgroup/memory/memory."
    if os.path.exists(f"{new}current"):
        return (f"{new}current", f"{new}max", f"{new}stat", f"{new}events")
    return (f"{old}usage_in_bytes", f"{old}limit_in_bytes", f"{old}stat", f"{old}oom_control")


def memory(files: "tuple[str, ...]") -> "tuple[int, int]":
    """Used bytes, without the pages of files, which the kernel takes back by itself; and the limit, 0 for none."""
    try:
        with open(files[0], "rb") as f, open(files[1], "rb") as g:
            used, said = int(f.read()), g.read().strip()
        limit = 0 if said == b"max" or int(said) > 1 << 60 else int(said)
        if limit:
            of = table(files[2])
            used -= sum(of.get(k, of.get(f"total_{k}", 0)) for k in ("active_file", "inactive_file"))
        return max(0, used), limit
    except (OSError, ValueError):
        return 0, 0


def killed(files: "tuple[str, ...]") -> int:
    """How many processes the kernel has ended for want of memory."""
    try:
        return table(files[3]).get("oom_kill", 0)
    except (OSError, ValueError):
        return 0


def table(path: str) -> "dict[str, int]":
    with open(path, encoding="ascii") as f:
        pairs = (line.split() for line in f)
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def free_bytes(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize
