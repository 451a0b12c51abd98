"""Bytes from one socket to another, in the sidecar and in a task's container: the standard library only.

Through a pipe and `splice`, which copies nothing into the process: half the time of reading and writing.
"""

import fcntl
import os
import select
import socket
from contextlib import suppress

READ, WRITE, END = 1, 2, 0
_CHUNK = 1 << 18
_TURNS = 16
_SET_PIPE_SIZE = 1031
_NOW = getattr(os, "SPLICE_F_NONBLOCK", 2) | getattr(os, "SPLICE_F_MOVE", 1)


class Flow:
    """One direction. `limit`: so many bytes and no more; else its end is told to the sink.

    Both sockets must be non-blocking.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, limit: "int | None" = None) -> None:
        self.source, self.sink, self.left = source, sink, limit
        self.is_cut = False
        self._held = 0
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        with suppress(OSError):  # beyond what the user may have of pipes: then it is slower
            fcntl.fcntl(self._in, _SET_PIPE_SIZE, _CHUNK)

    def move(self) -> int:
        """What there is to move now: then what to wait for, `READ` from the source or `WRITE` to the sink, or `END`.

        Raises `OSError` when one of them is broken.
        """
        for _ in range(_TURNS):
            if self.left == 0 and not self._held:
                return END
            if not self._held and not self._take():
                return READ if not self.is_cut else END
            try:
                self._held -= os.splice(self._out, self.sink.fileno(), self._held, flags=_NOW)
            except BlockingIOError:
                return WRITE
        return WRITE if self._held else READ

    def _take(self) -> bool:
        size = _CHUNK if self.left is None else min(_CHUNK, self.left)
        try:
            self._held = os.splice(self.source.fileno(), self._in, size, flags=_NOW)
        except BlockingIOError:
            return False
        if self._held == 0:
            self.is_cut = True
            if self.left is None:
                self.sink.shutdown(socket.SHUT_WR)
        elif self.left is not None:
            self.left -= self._held
        return self._held > 0

    def close(self) -> None:
        if self._out >= 0:
            os.close(self._out)
            os.close(self._in)
            self._out = -1


def pump(one: socket.socket, other: socket.socket) -> None:
    """Both directions, until both have ended or one is broken. Waits."""
    one.setblocking(False)
    other.setblocking(False)
    flows = [Flow(one, other), Flow(other, one)]
    waiting = dict.fromkeys(flows, READ)
    poller = select.poll()
    try:
        while waiting:
            wanted = {one.fileno(): 0, other.fileno(): 0}
            for flow, wait in waiting.items():
                wanted[(flow.source if wait == READ else flow.sink).fileno()] |= (
                    select.POLLIN if wait == READ else select.POLLOUT
                )
            for fd, events in wanted.items():
                if events:
                    poller.register(fd, events)
                else:  # or its hanging up would wake us for ever
                    with suppress(KeyError):
                        poller.unregister(fd)
            ready = dict(poller.poll())
            for flow, wait in list(waiting.items()):
                if (flow.source if wait == READ else flow.sink).fileno() in ready:
                    waiting[flow] = flow.move()
                    if waiting[flow] == END:
                        del waiting[flow]
    except OSError:
        pass
    finally:
        for flow in flows:
            flow.close()
