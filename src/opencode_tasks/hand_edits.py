"""What a person did to `decisions.md`, as events. Pure.

The file says up to which events it was made. It is compared with what it was then: a block that
changed is taken as it is, for ever; one that is gone was removed; text outside all blocks is a
decision somebody wrote by hand. What happened since is kept.
"""

from collections.abc import Iterable, Iterator, Mapping

from opencode_tasks import decisions
from opencode_tasks.decisions import BEGIN, END, FORM, HEAD, TITLE, Decision, Decisions, body, digest
from opencode_tasks.events import New
from opencode_tasks.values import value


def hand_edits(found: Decisions, text: str, new_ids: Iterable[str]) -> list[New]:
    """The events that make `found` what somebody made of the file. `new_ids`: for what they added.

    Asked again, with these events in `found` and the same file, there are none: so nothing is taken
    in twice when the file cannot be written, or an editor saves it again without looking.
    """
    text = decisions.lines(text.lstrip(decisions.BYTE_ORDER_MARK))
    return _Reading(found, _parsed(text), iter(new_ids)).edits()


@value
class _Block:
    """One part of the file; what is outside the marks has no id and no digest."""

    id: str
    digest: str
    body: str


@value
class _File:
    """`heads`: up to where it was made; None when it does not say. `head`: the text above that line."""

    blocks: tuple[_Block, ...]
    form: int = 0
    heads: Mapping[str, int] | None = None
    head: str = ""
    digest: str = ""


class _Reading:
    """`_unmarked`: decisions of which the file has no block (so far: that was not recognised by its text)."""

    def __init__(self, found: Decisions, file: _File, ids: Iterator[str]) -> None:
        self._found, self._file, self._ids = found, file, ids
        self._base = Decisions(found.title) if file.heads is None else found.at(file.heads)
        self._now = {item.id: item for item in found.items}
        self._was = {item.id: item for item in self._base.items}
        self._unmarked = self._now.keys() - {block.id for block in file.blocks if block.body.strip()}
        self._seen: list[str] = []
        self._after: str | None = None if file.heads is None else ""
        self._edits: list[New] = []
        self._has_new_head = self._is_head_edited()

    def edits(self) -> list[New]:
        if self._has_new_head:
            self._edits.append(("decision.edited", {"id": "", "raw": self._file.head}))
        for block in self._file.blocks:
            self._look_at(block)
        # One that somebody else edited since is not what was removed here.
        gone = [i for i in self._was.keys() & self._now.keys() - set(self._seen) if self._is_as_it_was(i)]
        self._edits += [("decision.removed", {"id": block_id}) for block_id in sorted(gone)]
        if self._is_reordered():
            self._edits.insert(0, ("decision.ordered", {"ids": self._seen}))
        return self._edits

    def _is_head_edited(self) -> bool:
        file = self._file
        if file.heads is None or file.head in (decisions.head(self._found), decisions.head(self._base)):
            return False
        # The task may have had another title then.
        return digest(file.head) != file.digest or not file.head.startswith(TITLE)

    def _look_at(self, block: _Block) -> None:
        known = self._now.get(block.id)
        if known is not None and block.id not in self._seen and (block.body.strip() or not body(known).strip()):
            if not self._is_ours(block):
                self._edits.append(("decision.edited", {"id": block.id, "raw": block.body}))
            self._see(block.id)
        elif block.body.strip() and not self._was_removed(block):
            for item, text in self._pieces(block.body):
                if item is not None:
                    self._see(item.id)
                else:
                    self._take_in(text)

    def _was_removed(self, block: _Block) -> bool:
        """Meanwhile, and nobody touched it here. One that never was here comes from another task's file."""
        if not block.id or block.id in self._now or not self._is_ours(block):
            return False
        return any(e.type == "decision.added" and e.data["id"] == block.id for e in self._found.events)

    def _is_ours(self, block: _Block) -> bool:
        """As we wrote it, now or then."""
        if any(block.id in known and block.body == body(known[block.id]) for known in (self._now, self._was)):
            return True
        # Anybody can make a digest: it counts where there is nothing to compare with.
        is_comparable = self._file.form == FORM and block.id in self._was
        return not is_comparable and digest(block.body) == block.digest

    def _see(self, block_id: str) -> None:
        self._seen.append(block_id)
        self._unmarked = self._unmarked - {block_id}
        self._after = block_id

    def _take_in(self, text: str) -> None:
        raw = text.strip("\n") + "\n"
        earlier = [self._now[i] for i in self._unmarked if self._is_the_beginning(self._now[i], raw)]
        if earlier:
            known = max(earlier, key=lambda item: (len(body(item)), item.id))
            self._edits.append(("decision.edited", {"id": known.id, "raw": raw}))
            self._see(known.id)
        else:
            made = next(self._ids)
            where = {} if self._after is None else {"after": self._after}
            self._edits.append(("decision.added", {"id": made, "text": decisions.said(raw), "raw": raw, **where}))
            self._after = made

    def _is_the_beginning(self, item: Decision, raw: str) -> bool:
        """Whether `item` was taken in from an editor that has gone on writing, without the marks it got here."""
        text = body(item)
        is_new = item.raw is not None and item.id not in self._was and bool(text.strip())
        return is_new and (raw.startswith(text.rstrip()) or f"\n{text}" in f"\n{raw}")

    def _pieces(self, text: str) -> list[tuple[Decision | None, str]]:
        """A text without marks: the decisions in it that have lost theirs, and what is new."""
        known: list[tuple[str, Decision | None]] = [(body(self._now[i]), self._now[i]) for i in sorted(self._unmarked)]
        if self._file.heads is None or not self._has_new_head:
            known.append((decisions.head(self._found), None))
        parts: list[tuple[Decision | None, str]] = [(None, text)]
        for wanted, item in sorted(known, key=lambda k: len(k[0]), reverse=True):
            for n, (taken, part) in enumerate(parts):
                found = _around(part, wanted) if taken is None and wanted.strip() else None
                if found is not None:
                    parts[n : n + 1] = [(None, found[0]), (item, ""), (None, found[1])]
                    break
        return [(item, part) for item, part in parts if item is not None or part.strip()]

    def _is_as_it_was(self, block_id: str) -> bool:
        return body(self._now[block_id]) == body(self._was[block_id])

    def _is_reordered(self) -> bool:
        here = [i for i in self._seen if i in self._was]
        then = [item.id for item in self._base.items if item.id in here]
        return here != then and self._seen != [item.id for item in self._found.items if item.id in self._seen]


def _around(text: str, wanted: str) -> tuple[str, str] | None:
    """What is before and after `wanted` in `text`, when it stands there between empty lines."""
    whole, part = (f"\n\n{t}\n\n" for t in (text.strip("\n"), wanted.strip("\n")))
    before, found, after = whole.partition(part)
    return (before, after) if found else None


def _parsed(text: str) -> _File:
    mark = HEAD.search(text)
    if mark is None:
        return _File(tuple(_blocks(text)))
    heads = {w: int(seq) for w, _, seq in (pair.partition(":") for pair in mark[2].split())}
    head = text[: mark.start()]
    above = tuple(_blocks(head))
    moved = tuple(block for block in above if block.id)
    if moved:
        # Somebody moved a block to the top.
        head = "".join(block.body for block in above if not block.id).strip("\n")
        head = decisions.ended(head) if head else ""
    return _File((*moved, *_blocks(text[mark.end() :])), int(mark[1]), heads, decisions.written(head), mark[3])


def _blocks(text: str) -> Iterator[_Block]:
    at = 0
    while begin := BEGIN.search(text, at):
        yield from _outside(text[at : begin.start()])
        end = END.search(text, begin.end())
        following = BEGIN.search(text, begin.end())
        if end is None or (following is not None and following.start() < end.start()):
            # Its end was deleted: it reaches to the next one.
            stop = at = following.start() if following else len(text)
        else:
            stop, at = end.start(), end.end()
        inside = decisions.ended(HEAD.sub("", text[begin.end() : stop]))
        yield _Block(begin[1], begin[2], decisions.written(inside))
    yield from _outside(text[at:])


def _outside(text: str) -> Iterator[_Block]:
    """Marks of ours whose counterparts are gone are nobody's words."""
    for part in END.split(HEAD.sub("", text)):
        yield _Block("", "", decisions.written(decisions.ended(part)))
