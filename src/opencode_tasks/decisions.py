"""What was decided in a task, and `decisions.md`, its form for people. Pure.

Every decision is a block between two comment lines. A line above them says up to which events
the file was made, so that `hand_edits` can compare it with what it was made from.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from opencode_tasks.events import CorruptError, Data, Event, New
from opencode_tasks.values import replace, value

FORM = 1
"""Rises when the same decision would be written in other words."""

TITLE = "# Decisions: "
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_ID = "[a-z0-9]{1,32}"
_HEAD_MARK = r"<!-- decisions (\d{1,4})((?: [a-z0-9-]+:\d{1,18})*) sha256:([0-9a-f]{12}) -->"
_BEGIN_MARK = rf"<!-- decision ({_ID}) sha256:([0-9a-f]{{12}}) -->"
_END_MARK = "<!-- /decision -->"
HEAD, BEGIN, END = (
    re.compile(rf"^{mark}[ \t]*(?:\n|\Z)", re.MULTILINE) for mark in (_HEAD_MARK, _BEGIN_MARK, _END_MARK)
)
_LIKE_A_MARK = re.compile(rf"^(\s*)(?=(?:{_HEAD_MARK}|{_BEGIN_MARK}|{_END_MARK})\s*$)<", re.MULTILINE)
# UTF-8 has no form for these; the other surrogates stand for bytes that were none.
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@value
class Decision:
    """`raw`: the block as somebody wrote it by hand, which then is the decision."""

    id: str
    ts: str
    actor: str
    text: str
    because: str = ""
    alternatives: tuple[str, ...] = ()
    raw: str | None = None


@value
class Decisions:
    """`head`: what somebody wrote above the blocks; None: the title. `events`: what led here."""

    title: str
    items: tuple[Decision, ...] = ()
    head: str | None = None
    events: tuple[Event, ...] = ()

    @property
    def heads(self) -> dict[str, int]:
        """The newest event of each writer."""
        return {event.w: event.seq for event in sorted(self.events, key=lambda e: (e.w, e.seq))}

    def at(self, heads: Mapping[str, int]) -> "Decisions":
        """What it was when these were the newest."""
        if heads == self.heads:
            return self
        return fold(self.title, (e for e in self.events if e.seq <= heads.get(e.w, 0)))


def fold(title: str, events: Iterable[Event]) -> Decisions:
    """`events`: those of a task, in their order; others than of decisions are passed over.

    Raises `CorruptError` for one that says what cannot be.
    """
    known = tuple(event for event in events if event.type.startswith("decision."))
    found = Decisions(title, events=known)
    for event in known:
        try:
            found = _step(found, event)
        except (KeyError, TypeError, ValueError) as e:
            said = f"Record {event.seq} of {event.w} ({event.type}) lacks what its type says: {e!r}"
            raise CorruptError(said) from e
    return found


def back(now: Decisions, then: Decisions) -> list[New]:
    """What has to be recorded for `now` to be as `then`."""
    there, items = {d.id: d for d in now.items}, {d.id: d for d in then.items}
    events: list[New] = [("decision.removed", {"id": one}) for one in there if one not in items]
    after = ""
    for one in then.items:
        if one.id not in there:
            data = {"id": one.id, "text": one.text, "because": one.because, "alternatives": list(one.alternatives)}
            events.append(("decision.added", {**data, **({} if one.raw is None else {"raw": one.raw}), "after": after}))
        elif body(one) != body(there[one.id]):
            events.append(("decision.edited", {"id": one.id, "raw": body(one)}))
        after = one.id
    if [d for d in there if d in items] != [d for d in items if d in there]:
        events.append(("decision.ordered", {"ids": list(items)}))
    if head(now) != head(then):
        events.append(("decision.edited", {"id": "", "raw": head(then)}))
    return events


def made_from(text: str) -> dict[str, int] | None:
    """The newest event of each writer that a `decisions.md` was made of; None for one that does not say."""
    found = HEAD.search(text)
    return None if found is None else {w: int(seq) for w, _, seq in (p.rpartition(":") for p in found[2].split())}


def _step(found: Decisions, event: Event) -> Decisions:
    data, items = event.data, found.items
    match event.type:
        case "decision.added":
            made = _added(event, data)
            # Above all others, after one of them, or at the end.
            otherwise = 0 if data.get("after") == "" else len(items)
            at = next((i + 1 for i, d in enumerate(items) if d.id == data.get("after")), otherwise)
            if all(d.id != made.id for d in items):
                items = (*items[:at], made, *items[at:])
        case "decision.edited" if data["id"] == "":
            return replace(found, head=str(data["raw"]))
        case "decision.edited":
            changed, raw = data["id"], str(data["raw"])
            items = tuple(replace(d, raw=raw, text=said(raw)) if d.id == changed else d for d in items)
        case "decision.removed":
            gone = data["id"]
            items = tuple(d for d in items if d.id != gone)
        case "decision.ordered":
            rank = {str(i): n for n, i in enumerate(data["ids"])}
            moved = iter(sorted((d for d in items if d.id in rank), key=lambda d: rank[d.id]))
            items = tuple(next(moved) if d.id in rank else d for d in items)
    return replace(found, items=items)


def _added(event: Event, data: Data) -> Decision:
    if not re.fullmatch(_ID, data["id"]):
        raise ValueError(data["id"])
    raw = data.get("raw")
    return Decision(
        data["id"],
        event.ts,
        event.actor,
        str(data["text"]),
        str(data.get("because", "")),
        tuple(str(a) for a in data.get("alternatives", ())),
        None if raw is None else str(raw),
    )


def said(raw: str) -> str:
    """A hand-written block in one line, for lists."""
    lines = (line.strip().lstrip("#").strip() for line in raw.splitlines())
    return next((line for line in lines if line), "")


def render(found: Decisions) -> str:
    """`decisions.md`, the same for the same events."""
    above = head(found)
    heads = "".join(f" {w}:{seq}" for w, seq in found.heads.items())
    parts = [above, f"<!-- decisions {FORM}{heads} sha256:{digest(above)} -->\n"]
    for item in found.items:
        block = body(item)
        parts.append(f"\n<!-- decision {item.id} sha256:{digest(block)} -->\n{block}{_END_MARK}\n")
    return "".join(parts)


def head(found: Decisions) -> str:
    """What stands above the first mark."""
    if found.head is None:
        return f"{TITLE}{_plain(found.title)}\n"
    above = found.head.lstrip(BYTE_ORDER_MARK)
    return written(ended(above)) if above else ""


def body(item: Decision) -> str:
    """What stands between the marks of a block."""
    if item.raw is not None:
        return written(ended(item.raw))
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


def ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _plain(text: str) -> str:
    """Lines as this file has them; nothing in them ends the text for an editor."""
    return written(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\N{SYMBOL FOR NULL}"))


def written(text: str) -> str:
    """As it will be read again: nothing passes for one of our marks."""
    text = lines(text)
    return _LIKE_A_MARK.sub(r"\1&lt;", text) if "<!-- " in text else text


def lines(text: str) -> str:
    """What nobody sees is no edit: how lines end, and what is written for a character that UTF-8 does not have."""
    if not text.isascii():
        text = _NO_BYTES.sub("\N{REPLACEMENT CHARACTER}", text)
        text = text.encode(errors="surrogateescape").decode(errors="surrogateescape")
    return re.sub(r"\r+\n", "\n", text) if "\r" in text else text


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
