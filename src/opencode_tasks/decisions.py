"""What was decided in a task, and `decisions.md`, its form for people. Pure.

Every decision is a block between two comment lines; the first carries the decision's id and
the digest of the block. A block that does not match its digest was edited by hand: its text
is taken as it is, for ever. Text outside all blocks is a decision somebody wrote by hand.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from opencode_tasks.events import Event, New

_HEAD = re.compile(r"^<!-- decisions (\d+) sha256:([0-9a-f]{12}) -->\n", re.MULTILINE)
_BEGIN = re.compile(r"^<!-- decision ([a-z0-9]{1,32}) sha256:([0-9a-f]{12}) -->\n", re.MULTILINE)
_END = re.compile(r"^<!-- /decision -->(?:\n|\Z)", re.MULTILINE)


@dataclass(frozen=True)
class Decision:
    """`raw`: the block as somebody wrote it by hand, which then is the decision. `n`: its place among the events."""

    id: str
    n: int
    ts: str
    actor: str
    text: str
    because: str = ""
    alternatives: tuple[str, ...] = ()
    raw: str | None = None


@dataclass(frozen=True)
class Decisions:
    """`head`: what somebody wrote above the blocks; None: the title. `n` counts the events that led here."""

    title: str
    items: tuple[Decision, ...] = ()
    head: str | None = None
    n: int = 0


def fold(title: str, events: Iterable[Event]) -> Decisions:
    """`events`: those of a task, in their order; others than of decisions are passed over."""
    found = Decisions(title)
    for event in events:
        if event.type.startswith("decision."):
            found = _step(found, event)
    return found


def _step(found: Decisions, event: Event) -> Decisions:
    data, n = event.data, found.n + 1
    items = found.items
    match event.type:
        case "decision.added":
            made = Decision(
                str(data["id"]),
                n,
                event.ts,
                event.actor,
                str(data["text"]),
                str(data.get("because", "")),
                tuple(str(a) for a in data.get("alternatives", ())),
                data.get("raw"),
            )
            at = next((i + 1 for i, d in enumerate(items) if d.id == data.get("after")), len(items))
            if all(d.id != made.id for d in items):
                items = (*items[:at], made, *items[at:])
        case "decision.edited" if data["id"] == "":
            found = replace(found, head=str(data["raw"]))
        case "decision.edited":
            raw = str(data["raw"])
            items = tuple(replace(d, raw=raw, text=_said(raw)) if d.id == data["id"] else d for d in items)
        case "decision.removed":
            items = tuple(d for d in items if d.id != data["id"])
    return replace(found, items=items, n=n)


def render(found: Decisions) -> str:
    """`decisions.md`, the same for the same events."""
    head = _head(found)
    parts = [head, f"<!-- decisions {found.n} sha256:{_digest(head)} -->\n"]
    for item in found.items:
        body = _body(item)
        parts.append(f"\n<!-- decision {item.id} sha256:{_digest(body)} -->\n{body}<!-- /decision -->\n")
    return "".join(parts)


def _head(found: Decisions) -> str:
    return found.head if found.head is not None else f"# Decisions: {_plain(found.title)}\n"


def _body(item: Decision) -> str:
    if item.raw is not None:
        return item.raw if item.raw.endswith("\n") else item.raw + "\n"
    first, _, rest = _plain(item.text).strip().partition("\n")
    parts = [f"## {first}\n"]
    if rest.strip():
        parts.append(f"\n{rest.strip()}\n")
    if item.because.strip():
        parts.append(f"\nBecause: {_plain(item.because).strip()}\n")
    if item.alternatives:
        listed = "".join(f"- {_plain(a).strip()}\n" for a in item.alternatives)
        parts.append(f"\nInstead of:\n\n{listed}")
    parts.append(f"\n*{_plain(item.actor)}, {item.ts[:16].replace('T', ' ')} UTC*\n")
    return "".join(parts)


def _plain(text: str) -> str:
    """Lines as this file has them; nothing in them passes for one of our marks, or ends the text for an editor."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\N{SYMBOL FOR NULL}")
    return re.sub(r"^(\s*)<!--( /?decisions?)", r"\1&lt;!--\2", text, flags=re.MULTILINE)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _said(raw: str) -> str:
    """A hand-written block in one line, for lists."""
    lines = (line.strip().lstrip("#").strip() for line in raw.splitlines())
    return next((line for line in lines if line), "")


def hand_edits(found: Decisions, text: str, new_ids: Iterable[str]) -> list[New]:
    """The events that make `found` what somebody made of the file. `new_ids`: for what they added.

    A file without our first mark (emptied, or written anew) takes nothing away.
    """
    ids = iter(new_ids)
    known = {item.id: item for item in found.items}
    head, projected, rest = _split_head(text)
    edits: list[New] = []
    if projected is not None and head != _head(found) and _digest(head) != projected[1]:
        edits.append(("decision.edited", {"id": "", "raw": head}))
    elif projected is None:
        rest = text
    seen: set[str] = set()
    after = ""
    for block_id, digest, body in _blocks(rest):
        if block_id in known and block_id not in seen:
            seen.add(block_id)
            if _digest(body) != digest and body != _body(known[block_id]):
                edits.append(("decision.edited", {"id": block_id, "raw": body}))
            after = block_id
        elif body.strip() and body.strip() != _head(found).strip():
            if block_id and _digest(body) == digest and block_id not in seen:
                continue  # removed meanwhile, and nobody touched it here
            added = next(ids)
            raw = body.strip("\n") + "\n"
            edits.append(("decision.added", {"id": added, "text": _said(raw), "raw": raw, "after": after}))
            after = added
    if projected is not None:
        gone = [item.id for item in found.items if item.id not in seen and item.n <= projected[0]]
        edits += [("decision.removed", {"id": block_id}) for block_id in gone]
    return edits


def _split_head(text: str) -> tuple[str, tuple[int, str] | None, str]:
    mark = _HEAD.search(text)
    if mark is None:
        return "", None, text
    return text[: mark.start()], (int(mark[1]), mark[2]), text[mark.end() :]


def _blocks(text: str) -> Iterable[tuple[str, str, str]]:
    """Id, digest and body of each block; what is outside has neither."""
    at = 0
    while begin := _BEGIN.search(text, at):
        yield "", "", text[at : begin.start()]
        end = _END.search(text, begin.end())
        following = _BEGIN.search(text, begin.end())
        if end is None or (following is not None and following.start() < end.start()):
            # Its end was deleted: it reaches to the next one.
            stop = following.start() if following else len(text)
            yield begin[1], begin[2], text[begin.end() : stop]
            at = stop
        else:
            yield begin[1], begin[2], text[begin.end() : end.start()]
            at = end.end()
    yield "", "", text[at:]
