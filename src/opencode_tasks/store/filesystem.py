"""Whether the store's file system keeps what the locks promise."""

import os
import re
from pathlib import Path

from opencode_tasks.errors import TaskError

_MOUNTS = Path("/proc/self/mountinfo")
# `flock` between two machines: NFS gives each its own or none, SMB and FUSE whatever the server likes.
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "ocfs2", "gfs2"}
)
# A space, tab, newline or backslash in a path.
_ESCAPE = re.compile(r"\\([0-7]{3})")
_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.davfs2", "fuse.ceph")


def require_local(path: Path) -> None:
    """Raises `TaskError` (code `network_fs`): a lock that only seems to exclude would lose events silently."""
    kind = kind_of(path)
    if kind is not None and (kind in NETWORK or kind in _FUSE):
        raise TaskError(
            f"{path} is on a network file system ({kind}), where locks do not hold between machines",
            hint="keep the clone on a local disk; machines share tasks by pushing, not by sharing files",
            code="network_fs",
        )


def kind_of(path: Path) -> str | None:
    """The type of the file system that `path` is on; None where the system does not tell (macOS)."""
    try:
        table = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    return kind_in(table, os.path.realpath(path))


def kind_in(table: str, path: str) -> str | None:
    """`table` as in proc(5), mountinfo. The longest mount point wins, the last one among equals."""
    best, kind = -1, None
    for line in table.splitlines():
        before, found, after = line.partition(" - ")
        fields = before.split(" ")
        if not found or len(fields) < 5:
            continue
        point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind
