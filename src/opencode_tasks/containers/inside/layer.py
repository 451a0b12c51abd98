"""Runs inside a task's container, as its user: what folders hold as one archive on stdout, and back from one on stdin.

The host hands this text to the image's own python3, so: the standard library only. The host never opens the archive.
"""

import hashlib
import os
import signal
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

    Seen = tuple[str, os.stat_result]

MOST_TOLD = 20
BLOCK, END = 512, 10240
"""What a file and the whole are rounded up to in an archive."""
LONG_NAME, MORE = 100, 3 * BLOCK
OURS, END_S = b"opencode_tasks.containers.inside.layer", 5.0


def below(root: str, left: "list[str]", *, open_up: bool = False) -> "Iterator[Seen]":
    """Files, folders and links in `root`, a folder before what is in it. Not what is mounted there, nor pipes and
    sockets: they are some process's. `left`: what may not be looked into; `open_up` makes that possible first.
    """
    todo = [root]
    device = os.lstat(root).st_dev
    while todo:
        folder = todo.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            left.append(folder)
            continue
        inner = []
        for name in names:
            path = os.path.join(folder, name)
            try:
                seen = os.lstat(path)
            except OSError:  # gone, or its path is too long
                continue
            if seen.st_dev != device or stat.S_IFMT(seen.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                continue
            yield path, seen
            if open_up and stat.S_ISDIR(seen.st_mode) and seen.st_mode & 0o700 != 0o700:
                with suppress(OSError):  # another user's, such as one that leads to where the workspace is mounted
                    os.chmod(path, 0o700)
            if stat.S_ISDIR(seen.st_mode):
                inner.append(path)
        todo += reversed(inner)


def keep(known: str, most: str, *roots: str) -> int:
    """On stdout a line, and what it announces: `same`, when nothing looks other than it did when it was `known`;
    `large` and a size; or `tar`, how it looks now, and the archive.
    """
    left: list[str] = []
    found = [one for root in roots for one in below(root, left)]
    looks = hashlib.sha256()
    size = END
    for path, seen in found:
        size += BLOCK + (-(-seen.st_size // BLOCK) * BLOCK if stat.S_ISREG(seen.st_mode) else 0)
        size += MORE if len(os.fsencode(path)) >= LONG_NAME else 0
        facts = (seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
        looks.update(repr((path, facts)).encode(errors="surrogateescape"))
    if looks.hexdigest() == known:
        say("same")
    elif size > int(most):
        say(f"large {size}")
    else:
        say(f"tar {looks.hexdigest()}")
        write(found, left)
    tell("not included", left)
    return 0


def write(found: "list[Seen]", left: "list[str]") -> None:
    import tarfile

    linked: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for path, seen in found:
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode, info.mtime = seen.st_mode & 0o7777, int(seen.st_mtime)
            info.uid, info.gid = seen.st_uid, seen.st_gid
            if stat.S_ISDIR(seen.st_mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(seen.st_mode):
                info.type, info.mtime = tarfile.SYMTYPE, 0  # which nobody would set again
                try:
                    info.linkname = os.readlink(path)
                except OSError:
                    continue
            elif (seen.st_dev, seen.st_ino) in linked:
                info.type, info.linkname = tarfile.LNKTYPE, linked[seen.st_dev, seen.st_ino]
            else:
                if add_file(archive, info, path, seen, left) and seen.st_nlink > 1:
                    linked[seen.st_dev, seen.st_ino] = info.name
                continue
            archive.addfile(info)


def add_file(
    archive: "tarfile.TarFile", info: "tarfile.TarInfo", path: str, seen: os.stat_result, left: "list[str]"
) -> bool:
    """As long as it was when it was looked at, whatever is done to it meanwhile. False: it is no file any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        left.append(path)
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        info.size = seen.st_size
        archive.addfile(info, Exactly(fd))  # type: ignore[arg-type]
        return True
    finally:
        os.close(fd)


class Exactly:
    """As many bytes as are asked for: zeros where the file has become shorter."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, size: int) -> bytes:
        content_b = b""
        while len(content_b) < size:
            more = os.read(self.fd, size - len(content_b))
            if not more:
                return content_b + bytes(size - len(content_b))
            content_b += more
        return content_b


def back(*roots: str) -> int:
    """Only what the archive has is there then, besides what `below` leaves out."""
    import tarfile

    end_others(roots)
    left: list[str] = []
    for root in roots:
        for path, seen in reversed(list(below(root, left, open_up=True))):
            with suppress(OSError):  # a folder in which a socket is, or something is mounted
                (os.rmdir if stat.S_ISDIR(seen.st_mode) else os.unlink)(path)

    try:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
            # A newer Python would take rights away from files by itself.
            archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
            archive.extractall("/", members(archive, roots, left), numeric_owner=True)  # noqa: S202 (of itself, inside)
    except (OSError, EOFError, tarfile.TarError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    tell("left out", left)
    return 0


def end_others(roots: "tuple[str, ...]") -> None:
    """Who is at these folders: the host runs one at a time. Whoever ran the older ones is gone, and they would go on; a
    younger one means that we are of those.
    """
    words_b = b"".join(b"\0" + os.fsencode(root) for root in roots) + b"\0"
    others, until = True, time.monotonic() + END_S
    while others and time.monotonic() < until:
        others = False
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    said_b = f.read()
                if pid == os.getpid() or OURS not in said_b or not said_b.endswith(words_b):
                    continue
                if age(pid) > age(os.getpid()):
                    sys.exit(1)
                os.kill(pid, signal.SIGKILL)
                others = True
        if others:
            time.sleep(0.01)


def age(pid: int) -> "tuple[int, int]":
    """The greater, the younger."""
    with open(f"/proc/{pid}/stat", "rb") as f:
        return int(f.read().rpartition(b")")[2].split()[19]), pid


def members(archive: "tarfile.TarFile", roots: "tuple[str, ...]", left: "list[str]") -> "Iterator[tarfile.TarInfo]":
    """Those that `write` could have written: in the folders, and none by way of a link."""
    links: set[str] = set()

    def is_inside(name: str) -> bool:
        parts = name.split("/")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        return (
            ".." not in parts and any(f"/{name}".startswith(f"{root}/") for root in roots) and links.isdisjoint(above)
        )

    for info in archive:
        is_hard = info.islnk() and info.linkname not in links and is_inside(info.linkname)
        if not is_inside(info.name) or not (info.isreg() or info.isdir() or info.issym() or is_hard):
            left.append(info.name)
            continue
        if info.issym():
            links.add(info.name)
        yield info


def say(line: str) -> None:
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def tell(what: str, paths: "list[str]") -> None:
    for path in paths[:MOST_TOLD]:
        sys.stderr.write(f"{what}: {path!r}\n")


def run() -> NoReturn:
    what, *words = sys.argv[1:]
    sys.exit(keep(*words) if what == "keep" else back(*words))
