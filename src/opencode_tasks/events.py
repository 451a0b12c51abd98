"""One event as one line, and what a line may say. Pure.

A line is `{"v":…,"w":…,"seq":…,"lam":…,"ts":…,"actor":…,"epoch":…,"type":…,"data":…,"prev":…,"h":…}`
in exactly this order, JSON without spaces, UTF-8, ended by one newline. `h` is the SHA-256
of the same line without `,"h":"…"` and newline; `prev` is the `h` of the writer's line before.
docs/memory-format.md says it for other programs.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from opencode_tasks.errors import TaskError

SCHEMA = 1
GENESIS = "0" * 64
LARGEST_BYTES = 16 * 1024 * 1024

Data = Mapping[str, Any]
New = tuple[str, Data]
"""A type and its data: an event that is not written yet."""


class CorruptError(TaskError):
    """Stored bytes are not what was written. Nothing is guessed from them."""

    code = "corrupt"


class Event(NamedTuple):
    """`w` writer (clone and host), `seq` its count from 1, `lam` Lamport time, `ts` RFC 3339 UTC.

    The data stays as bytes until somebody asks: most readers want few events of many.
    """

    w: str
    seq: int
    lam: int
    ts: str
    actor: str
    epoch: int
    type: str
    data_b: bytes
    prev: str
    h: str

    @property
    def data(self) -> dict[str, Any]:
        """Raises `CorruptError` for a record that another program wrote and that is no JSON object."""
        try:
            found = _DECODED(self.data_b.decode())
        except (ValueError, RecursionError) as e:
            raise CorruptError(f"The data of record {self.seq} of {self.w} is not JSON") from e
        if not isinstance(found, dict):
            raise CorruptError(f"The data of record {self.seq} of {self.w} is not an object")
        found.pop("more", None)
        return found

    @property
    def key(self) -> tuple[int, str, int]:
        """The order in which events are folded, the same on every machine."""
        return (self.lam, self.w, self.seq)

    @property
    def follow_on(self) -> int:
        """How many events of the same batch come after this one; they count together or not at all."""
        if b'"more":' not in self.data_b[-20:]:
            return 0
        found = _MORE.search(self.data_b[-20:])
        return int(found[1]) if found else 0


_DECODED = json.JSONDecoder().decode
_MORE = re.compile(rb'[{,]"more":(\d{1,6})\}\Z')
_HEAD = re.compile(
    rb'\{"v":1,"w":"([a-z0-9-]+)","seq":(\d{1,18}),"lam":(\d{1,18}),"ts":"([^"\\]+)",'
    rb'"actor":"([^"\\]*(?:\\.[^"\\]*)*)","epoch":(\d{1,18}),"type":"([^"\\]+)","data":'
)
_PREV, _H, _END = b',"prev":"', b',"h":"', b'"}\n'
_HASHED = len(_H) + 64 + len(_END)
_TAIL = len(_PREV) + 64 + 1


def dumps(value: object) -> str:
    """Fixed formatting, so that what is written twice is the same twice."""
    text = _UNESCAPED(value)
    # A path that is not UTF-8 carries surrogates; escaping keeps such a line valid UTF-8.
    return text if text.isascii() or _is_utf8(text) else _ESCAPED(value)


_UNESCAPED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ESCAPED = json.JSONEncoder(separators=(",", ":")).encode


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(
    w: str, seq: int, lam: int, ts: str, actor: str, epoch: int, type_: str, data: Data, prev: str, *, more: int = 0
) -> tuple[Event, bytes]:
    """The event and its line. `more`: how many events of the same batch follow.

    Raises `TaskError` (code `too_large`), and for what could not be read again.
    """
    if "more" in data:
        raise ValueError("`more` in the data of an event is the store's own")
    data_text = dumps({**data, "more": more} if more else data)
    body = (
        f'{{"v":{SCHEMA},"w":"{w}","seq":{seq},"lam":{lam},"ts":"{ts}","actor":{dumps(actor)},'
        f'"epoch":{epoch},"type":"{type_}","data":{data_text},"prev":"{prev}"'
    )
    body_b = body.encode()
    if len(body_b) > LARGEST_BYTES:
        raise TaskError(
            f"A record of {len(body_b)} bytes is larger than the log takes ({LARGEST_BYTES})",
            hint="keep the content in a file, and record its name",
            code="too_large",
        )
    if _HEAD.match(body_b) is None:
        # Another program's numbers, or a name given by hand: one such line makes the whole log unreadable.
        raise TaskError(
            f"Record {seq} of writer {w!r} (Lamport time {lam}, epoch {epoch}) could not be read again: not written",
            hint="opencode-tasks doctor",
        )
    h = hashlib.sha256(body_b + b"}").hexdigest()
    return Event(w, seq, lam, ts, actor, epoch, type_, data_text.encode(), prev, h), body_b + f',"h":"{h}"}}\n'.encode()


def decode(line_b: bytes) -> Event:
    """Verify and parse one line, its newline included. Raises `CorruptError`, or `TaskError` for a newer schema."""
    head = _HEAD.match(line_b)
    if head is None:
        raise _not_a_record(line_b)
    body_b, h_b = line_b[:-_HASHED], line_b[-67:-3]
    if hashlib.sha256(body_b + b"}").hexdigest().encode() != h_b:
        raise CorruptError("A line of the log does not match its hash")
    at = len(body_b) - _TAIL
    if body_b[at : at + 9] != _PREV or line_b[-73:-67] != _H or line_b[-3:] != _END or at <= head.end():
        raise _not_a_record(line_b)
    w, seq, lam, ts, actor, epoch, type_ = head.groups()
    try:
        who = json.loads(b'"' + actor + b'"') if b"\\" in actor else actor.decode()
        return Event(
            w.decode(),
            int(seq),
            int(lam),
            ts.decode(),
            who,
            int(epoch),
            type_.decode(),
            body_b[head.end() : at],
            body_b[at + 9 : -1].decode(),
            h_b.decode(),
        )
    except ValueError as e:
        raise CorruptError("A line of the log is not UTF-8") from e


def _not_a_record(line_b: bytes) -> TaskError:
    try:
        found = json.loads(line_b)["v"]
        # Not one of ours with a flipped bit in its number: that would ask for an upgrade for ever.
        ours_b = b'{"v":1' + line_b[line_b.find(b",") :]
        is_ours = hashlib.sha256(ours_b[:-_HASHED] + b"}").hexdigest().encode() == line_b[-67:-3]
        newer = isinstance(found, int) and found > SCHEMA and not is_ours
    except (ValueError, KeyError, TypeError, RecursionError):
        newer = False
    return newer_schema("The log", found) if newer else CorruptError("A line of the log is not a record")


def newer_schema(what: str, found: object) -> TaskError:
    return TaskError(
        f"{what} has records of schema {found}; this version reads up to {SCHEMA}",
        hint="pip install --upgrade opencode-tasks",
        code="newer_schema",
    )
