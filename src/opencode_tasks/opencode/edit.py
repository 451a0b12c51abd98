"""One value put into JSON with comments, and taken out again: not one other byte changes. Pure.

A member is added at the end of its object, in the way of those before it: their indentation, their line ends, their
comma after the last one. Comments beside a value stay beside it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opencode_tasks import jsonc
from opencode_tasks.values import value

MISSING: Any = object()
_BOM = "\ufeff"
_SPACE = " \t\r\n"


@value
class Edit:
    """What `take_out` must know. `before`: how the value was written that stood there. `lead`: the space before our
    key. `made`: how many objects around it are ours too.
    """

    before: str | None = None
    lead: str = ""
    made: int = 0


@value
class _Token:
    said: str
    start: int
    end: int


@value
class _Member:
    """`start` is the key's; the value is `text[value:end]`; `comma` is where the comma after it stands, or -1."""

    key: str
    start: int
    value: int
    end: int
    comma: int


@value
class _Object:
    """Of the text: from the brace at `start` to the one before `end`."""

    start: int
    end: int
    members: tuple[_Member, ...]

    def get(self, key: str) -> _Member | None:
        return next((one for one in self.members if one.key == key), None)


def look(text: str, path: Sequence[str]) -> Any:
    """The value at `path`, or `MISSING`. Raises `ValueError` that says what is wrong with the text, and where."""
    found = jsonc.loads(text.removeprefix(_BOM))
    if not isinstance(found, Mapping):
        raise ValueError("it is no object")  # noqa: TRY004 (what is wrong is the text)
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return MISSING
        found = found[key]
    return found


def put(text: str, path: Sequence[str], new: object) -> tuple[str, Edit]:
    """`text` with `new` at `path`, and what `take_out` needs. Raises `ValueError`; see `look`."""
    bom, text = _without_bom(text)
    jsonc.loads(text)
    tokens = _tokens(text)
    at = _top(tokens)
    for depth, key in enumerate(path):
        member = at.get(key)
        if member is None:
            made = path[depth + 1 :]
            text, lead = _insert(text, at, key, _nested(made, new))
            return bom + text, Edit(lead=lead, made=len(made))
        if depth == len(path) - 1:
            before = text[member.value : member.end]
            return bom + text[: member.value] + json.dumps(new) + text[member.end :], Edit(before=before)
        at = _object(tokens, member.value, ".".join(path[: depth + 1]))
    raise ValueError("no key is named")


def take_out(text: str, path: Sequence[str], ours: object, edit: Edit) -> str:
    """The inverse of `put`. What is not `ours` any more stays, and so does what was written around it since."""
    bom, text = _without_bom(text)
    for made in range(edit.made, -1, -1):
        outer, inner = path[: len(path) - made], path[len(path) - made :]
        if _is_same(look(text, outer), _nested(inner, ours)):
            at, member = _find(text, outer)
            if edit.before is not None:
                return bom + text[: member.value] + edit.before + text[member.end :]
            return bom + _remove(text, at, member, edit.lead)
    return bom + text


def _without_bom(text: str) -> tuple[str, str]:
    return (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)


def _nested(path: Sequence[str], inner: object) -> object:
    for key in reversed(path):
        inner = {key: inner}
    return inner


def _is_same(one: object, other: object) -> bool:
    return one is not MISSING and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _find(text: str, path: Sequence[str]) -> tuple[_Object, _Member]:
    tokens = _tokens(text)
    at = _top(tokens)
    for depth, key in enumerate(path):
        member = at.get(key)
        if member is None:
            break
        if depth == len(path) - 1:
            return at, member
        at = _object(tokens, member.value, key)
    raise ValueError(f"there is no {'.'.join(path)}")


def _tokens(text: str) -> list[_Token]:
    found = jsonc.TOKEN.finditer(text)
    return [_Token(t[0], t.start(), t.end()) for t in found if t.lastgroup not in ("space", "comment")]


def _top(tokens: list[_Token]) -> _Object:
    return _object(tokens, tokens[0].start, "it")


def _object(tokens: list[_Token], start: int, name: str) -> _Object:
    """The one that begins at `start`, in a text that is known to be right."""
    first = next(n for n, token in enumerate(tokens) if token.start == start)
    if tokens[first].said != "{":
        raise ValueError(f"{name} is no object")
    members: list[_Member] = []
    at = first + 1
    while tokens[at].said != "}":
        key, begin = tokens[at], at + 2
        end = _after(tokens, begin)
        has_comma = tokens[end].said == ","
        comma = tokens[end].start if has_comma else -1
        members.append(_Member(json.loads(key.said), key.start, tokens[begin].start, tokens[end - 1].end, comma))
        at = end + has_comma
    return _Object(start, tokens[at].end, tuple(members))


def _after(tokens: list[_Token], at: int) -> int:
    """Past the value that begins at `at`."""
    depth = 0
    while True:
        depth += (tokens[at].said in ("[", "{")) - (tokens[at].said in ("]", "}"))
        at += 1
        if depth == 0:
            return at


def _insert(text: str, at: _Object, key: str, new: object) -> tuple[str, str]:
    last = at.members[-1] if at.members else None
    behind = at.start + 1 if last is None else last.end if last.comma < 0 else last.comma + 1
    lead = _lead(text, at)
    place = _end_of_line(text, behind, at.end - 1) if "\n" in lead else behind
    said = f"{json.dumps(key)}: {_said(new, lead)}"
    if last is None:
        return text[:place] + lead + said + text[place:], lead
    if last.comma < 0:
        return text[: last.end] + "," + text[last.end : place] + lead + said + text[place:], lead
    return text[:place] + lead + said + "," + text[place:], lead


def _said(new: object, lead: str) -> str:
    """On lines of their own, where the members around it are."""
    if "\n" not in lead or not isinstance(new, (dict, list)):
        return json.dumps(new)
    indent = lead.rpartition("\n")[2]
    return json.dumps(new, indent="\t" if "\t" in indent else indent or 2).replace("\n", lead)


def _lead(text: str, at: _Object) -> str:
    if not at.members:
        inner = text[at.start + 1 : at.end - 1]
        if "\n" not in inner:
            return ""
        indent = _space_before(text, at.end - 1).rpartition("\n")[2]
        return _line_end(inner) + indent + ("\t" if "\t" in indent else "  ")
    space = _space_before(text, at.members[-1].start)
    if "\n" in space:
        return _line_end(space) + space.rpartition("\n")[2]
    return space if len(at.members) > 1 else " "


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _space_before(text: str, place: int) -> str:
    before = text[:place]
    return before[len(before.rstrip(_SPACE)) :]


def _end_of_line(text: str, place: int, end: int) -> int:
    """Behind the comments that stand on the line of `place`."""
    for token in jsonc.TOKEN.finditer(text, place, end):
        if token.lastgroup != "comment":
            if "\n" in token[0]:
                break
            continue
        place = token.end() - token[0].endswith("\r")
    return place


def _remove(text: str, at: _Object, member: _Member, lead: str) -> str:
    space = _space_before(text, member.start)
    if not space.endswith(lead):
        lead = space[space.rindex("\n") :] if "\n" in space else space
    start = member.start - len(lead)
    if member.comma >= 0:
        return text[:start] + text[member.end : member.comma] + text[member.comma + 1 :]
    number = at.members.index(member)
    if number == 0:
        return text[:start] + text[member.end :]
    comma = at.members[number - 1].comma
    return text[:comma] + text[comma + 1 : start] + text[member.end :]
