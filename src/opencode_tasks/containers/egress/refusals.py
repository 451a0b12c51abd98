"""What the proxy refused to one task, as a file: written by the sidecar, read by the host, which believes little of it.

`{"refused": [{"host", "port", "why", "count", "last"}, …]}`, the newest last. Runs in the sidecar: the standard
library only.
"""

import json
import os
import time
from contextlib import suppress
from typing import Any, NamedTuple

from opencode_tasks.containers.egress.request_head import shown

LARGEST = 256 * 1024
MOST = 200
_WRITES = 5


class Refusal(NamedTuple):
    host: str
    port: int
    why: str
    count: int  # type: ignore[assignment]  # hides a method of tuples
    last: str


def parse(content_b: bytes) -> list[Refusal]:
    """Only what is well formed, and nothing that could steer a terminal."""
    found: Any = None
    with suppress(ValueError, RecursionError):
        found = json.loads(content_b[:LARGEST])
    listed = found.get("refused") if isinstance(found, dict) else None
    rows = listed[-MOST:] if isinstance(listed, list) else []
    return [refusal for refusal in map(_one, rows) if refusal is not None]


def _one(row: Any) -> Refusal | None:
    if not isinstance(row, dict):
        return None
    host, port, why, count, last = (row.get(name) for name in Refusal._fields)
    if not (isinstance(host, str) and isinstance(why, str) and isinstance(last, str)):
        return None
    if not (type(port) is int and type(count) is int and 0 <= port <= 65535 and 0 < count < 1 << 53):
        return None
    return Refusal(_safe(host), port, _safe(why), count, _safe(last))


def _safe(text: str) -> str:
    """As the proxy writes it, it stays as it is."""
    return text[:400] if text.isascii() and text.isprintable() else shown(text)


class Book:
    """The file of one task, as the sidecar keeps it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writes_left = _WRITES
        self._is_behind = False
        self._counts: dict[tuple[str, int, str], tuple[int, str]] = {}
        with suppress(OSError), open(path, "rb") as f:
            self._counts = {(r.host, r.port, r.why): (r.count, r.last) for r in parse(f.read(LARGEST))}

    def note(self, host: str, port: int, why: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        count, _ = self._counts.pop((host, port, why), (0, ""))
        self._counts[(host, port, why)] = (count + 1, stamp)
        while len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]
        self._is_behind = True
        # At once, for who asked reads it then; and not for each of a thousand a second.
        if self._writes_left > 0:
            self.write()

    def attend(self) -> None:
        """A few times a second."""
        self.write()
        self._writes_left = _WRITES

    def write(self) -> None:
        if not self._is_behind:
            return
        self._writes_left -= 1
        rows = [Refusal(*key, *seen)._asdict() for key, seen in self._counts.items()]
        temp = f"{self._path}.tmp"
        with suppress(OSError):  # a full disk: the next one tries again
            with open(temp, "w") as f:
                json.dump({"refused": rows}, f)
            os.replace(temp, self._path)
            self._is_behind = False
