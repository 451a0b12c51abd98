"""One call of `tasksh`, handed over to the plugin's child: its streams, its environment, its words."""

import fcntl
import mmap
import os
import socket
import struct
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from opencode_tasks.commands import here
from opencode_tasks.opencode_hooks import shell
from opencode_tasks.opencode_hooks.names import PLAIN

_LONGEST = 8 << 20
_PEER = struct.Struct("3i")


class Call:
    """What `tasksh` handed over."""

    def __init__(self, link: socket.socket) -> None:
        if _peer(link) not in (None, os.getuid()):
            raise PermissionError
        self.link = link
        content_b, self.streams, _, _ = socket.recv_fds(link, 1 << 16, 3)
        try:
            while b"\n" not in content_b:
                content_b += _more(link)
            size_b, _, content_b = content_b.partition(b"\n")
            size = int(size_b)
            is_whole = len(self.streams) == 3 and 0 < size < _LONGEST
            while is_whole and len(content_b) < size:
                content_b += _more(link)
        except BaseException:
            self.close_streams()
            raise
        if not is_whole:
            self.close_streams()
            raise ConnectionAbortedError
        cwd_b, count_b, *rest = content_b.split(b"\0")
        self.cwd_b, count = cwd_b, int(count_b)
        self.words = [os.fsdecode(word_b) for word_b in rest[:count]]
        self.env = dict(pair_b.split(b"=", 1) for pair_b in rest[count:] if b"=" in pair_b)

    def close_streams(self) -> None:
        for fd in self.streams:
            os.close(fd)

    def serve(self, has_answered: mmap.mmap) -> NoReturn:
        """In a fork of the bridge."""
        code = 126
        try:
            for number, fd in enumerate(self.streams):
                os.dup2(fd, number)
            self.close_streams()
            self._tell(b"pid %d\n" % os.getpid())
            self._end_with_client(True)
            os.environb.clear()
            os.environb.update(self.env)
            os.chdir(self.cwd_b)
            code = shell.run(self.words)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            self._end_with_client(False)
            has_answered[0] = 1
            self._tell(b"plain\n" if code == PLAIN else b"exit %d\n" % code)
            with suppress(BaseException):
                here.close()
            os._exit(0)

    def _end_with_client(self, wanted: bool) -> None:
        """Also when nobody watches us any more: the kernel sends SIGIO when the other end closes, which ends us."""
        with suppress(OSError, AttributeError):
            fcntl.fcntl(self.link, fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(self.link, fcntl.F_GETFL)
            fcntl.fcntl(self.link, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)

    def _tell(self, line_b: bytes) -> None:
        with suppress(OSError):
            self.link.sendall(line_b)


def _more(link: socket.socket) -> bytes:
    more_b = link.recv(1 << 16)
    if not more_b:
        raise ConnectionResetError
    return more_b


def _peer(link: socket.socket) -> int | None:
    """Who is on the other end; None where the system does not tell (the folder is closed to others)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = _PEER.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)
