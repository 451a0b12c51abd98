"""What `plan.md` says: its steps, and the edits that we make in it. Pure.

An edit changes the one character that it is about, or whole lines of our own; every other byte stays. What is no
UTF-8 comes and goes as surrogates (`surrogateescape`).
"""

import hashlib
import io
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

if TYPE_CHECKING:  # it costs a process 60 ms
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_BOXES = {"[ ]": False, "[x]": True, "[X]": True}
_DONE = "Done"
_SIGN = "<!-- written by complete-task "
_LONGEST = 200
# Deeper than anybody indents; each level costs a stack frame or two.
_NESTING = 100


@value
class Step:
    """`number`: from 1, in the order of the document. `lines`: from 0, the last not included; the first has the box."""

    number: int
    text: str
    done: bool
    lines: tuple[int, int]


@value
class Facts:
    """What was done: commits as short id and subject, decisions as id and text."""

    commits: tuple[tuple[str, str], ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()


def steps(text: str) -> list[Step]:
    """The task-list items, of lists in lists too; not those of block quotes, code and comments."""
    found: list[Step] = []
    if not any(box in text for box in _BOXES):
        return found
    quotes = 0
    tokens = _blocks(text)
    for at, token in enumerate(tokens):
        quotes += (token.type == "blockquote_open") - (token.type == "blockquote_close")
        begins_item = [t.type for t in tokens[max(0, at - 2) : at]] == ["list_item_open", "paragraph_open"]
        if not begins_item or quotes or token.map is None:
            continue
        said = token.content[3:]
        if token.content[:3] in _BOXES and said[:1].isspace():
            lines = (token.map[0], token.map[1])
            found.append(Step(len(found) + 1, " ".join(said.split()), _BOXES[token.content[:3]], lines))
    return found


def checked(text: str, numbers: Collection[int]) -> tuple[str, list[int]]:
    """`text` with those steps done, and which of them were not before."""
    lines, changed = _lines(text), []
    for step in steps(text):
        if step.number in numbers and not step.done:
            line = lines[step.lines[0]]
            box = line.index("[")  # before it there are only the marks of lists
            lines[step.lines[0]] = f"{line[: box + 1]}x{line[box + 2 :]}"
            changed.append(step.number)
    return "".join(lines), changed


# A commit made in a container may say anything, and as much as it likes.
_MARK = re.compile(r"\[steps?[ #]{1,3}([0-9 ,-]{1,100})\]", re.IGNORECASE)
_MOST_MARKS, _DIGITS, _SUBJECT = 100, 3, 1000


def with_list(text: str, listed: Sequence[tuple[str, bool]]) -> tuple[str, list[int]]:
    """`text` with an agent's list of what is to do, as text and whether it is done; and the steps that it made done.

    A step that says the same is the same. What is new goes to the end of the section `Steps`. Nothing is unchecked.
    """
    known = {_same(step.text): step for step in reversed(steps(text))}
    new: list[tuple[str, bool]] = []
    for said, done in listed:
        item = " ".join(said.split())[:_LONGEST]
        if item and _same(item) not in known and all(_same(item) != _same(other) for other, _ in new):
            new.append((item, done))
    numbers = [known[_same(said)].number for said, done in listed if done and _same(said) in known]
    made, changed = checked(text, numbers)
    if new:
        lines = _lines(made)
        at = _end_of_steps(made, lines)
        before = "" if not at or lines[at - 1].endswith("\n") else "\n"
        is_first = not at or not lines[at - 1].lstrip().startswith(("-", "*", "+"))
        added = [f"- [{'x' if done else ' '}] {item}\n" for item, done in new]
        made = "".join([*lines[:at], before, "\n" * is_first, *added, *lines[at:]])
    return made, changed


def _same(text: str) -> str:
    return " ".join(text.casefold().split())[:_LONGEST]


def _end_of_steps(text: str, lines: list[str]) -> int:
    """The line before which a new step goes: after the last one that says something in the section, or in all."""
    tokens = _blocks(text)
    headings = [
        (token.map[0], tokens[n + 1].content.strip())
        for n, token in enumerate(tokens)
        if token.type == "heading_open" and token.map is not None and token.level == 0
    ]
    begin = next((line + 1 for line, title in headings if title.casefold() == "steps"), None)
    end = next((line for line, _ in headings if begin is not None and line >= begin), len(lines))
    while end > (begin or 0) and not lines[end - 1].strip():
        end -= 1
    return end


def marked(subject: str, body: str) -> set[int]:
    """The steps that a commit says it does: `[step 2]`, `[steps 2, 3]`, `[step 2-4]`. A revert quotes a subject."""
    found: set[int] = set()
    text = body if _is_revert(subject) else f"{subject}\n{body}"
    for mark in islice(_MARK.finditer(text), _MOST_MARKS):
        for part in mark[1].split(","):
            first, dash, last = (word.strip() for word in part.partition("-"))
            ends = (first, last if dash else first)
            if all(end.isdecimal() and len(end) <= _DIGITS for end in ends):
                found.update(range(int(ends[0]), int(ends[1]) + 1))
    return found


def _is_revert(subject: str) -> bool:
    return subject.casefold().startswith("revert")


# They say nothing about what a step is.
_STOP = set(
    """a an and are as at be been but by can do does for from has have if in into is it its must of on or our should
    so that the their then there these they this those to was we were when which will with you your""".split()  # noqa: SIM905
)
# With one of these, a subject tells what is not there, or not yet.
_AGAINST = set(
    """no not never without wip todo draft partial partially partly half start started begin began prepare fixup squash
    amend undo remove drop delete disable skip""".split()  # noqa: SIM905
)


def matching(text: str, subject: str) -> int | None:
    """The open step that a commit with this subject is about, if it is certain.

    That is: the subject has all significant words of exactly one open step, at least two, and none that speaks against
    it (`wip`, `not`, `remove`, …) which the step does not have too.
    """
    said = _words(subject[:_SUBJECT])
    if _is_revert(subject) or len(said) < 2 or not _may_match(text, said):
        return None
    open_steps = ((step.number, _words(step.text)) for step in steps(text) if not step.done)
    found = [(number, words) for number, words in open_steps if len(words) > 1 and words <= said]
    return found[0][0] if len(found) == 1 and not (said - found[0][1]) & _AGAINST else None


def _may_match(text: str, said: set[str]) -> bool:
    """Without the parser, whether there can be such a step: a line with an open box has no word that was not said."""
    rest = (line.partition("[ ]")[2] for line in text.splitlines() if "[ ]" in line)
    return any(_words(words) <= said for words in rest)


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return set("".join(c if c.isalnum() else " " for c in plain).split()) - _STOP


def finished(text: str, facts: Facts) -> str:
    """`text` with a section `## Done`: commits, decisions, and the steps that are still open.

    One that we wrote is written anew. One that somebody edited, or wrote, gets at its end what it does not say yet.
    Raises `TaskError` when the document ends within a code block or comment, in which it would not be seen.
    """
    groups = _groups(text, facts)
    if not any(lines for _, lines in groups):
        return text
    lines = _lines(text)
    end = lines[0][len(lines[0].rstrip("\r\n")) :] or "\n" if lines else "\n"
    there = _section(text)
    if there is None:
        ends = len(_lines(text[len(text.rstrip("\r\n")) :]))
        made = text + end * max(0, 2 - ends if text else 0) + _section_text(groups, end)
        if _section(made) is None:
            raise TaskError(
                "What was done would not be seen in a plan that ends within a code block or comment",
                hint="close it in plan.md",
            )
        return made
    begin, stop = there
    while not lines[stop - 1].strip():
        stop -= 1
    section = "".join(lines[begin:stop])
    before, after = "".join(lines[:begin]), "".join(lines[stop:])
    if _is_ours(section):
        new = _section_text(groups, end)
    else:
        said = "".join(f"{line.rstrip()}\n" for line in _lines(section))
        more = [(title, [(key, line) for key, line in of if key not in said]) for title, of in groups]
        added = _rendered(more, end)
        new = section.rstrip("\r\n") + end * 2 + added if added else section
    # The last line keeps the end that it had.
    return before + (new if after or section.endswith(("\n", "\r")) else new.rstrip("\r\n")) + after


_Group = tuple[str, list[tuple[str, str]]]


def _groups(text: str, facts: Facts) -> list[_Group]:
    """Title, and each line with what it is recognised by. No line begins with what somebody else wrote."""
    still_open = [step for step in steps(text) if not step.done]
    return [
        ("Commits:", [(f"`{short}`", f"- `{short}` {_plain(subject)}") for short, subject in facts.commits]),
        ("Decisions:", [(f"`{one}`", f"- `{one}` {_plain(said)}") for one, said in facts.decisions]),
        ("Open ends:", [(f": {_plain(s.text)}\n", f"- step {s.number}: {_plain(s.text)}") for s in still_open]),
    ]


def _plain(text: str) -> str:
    """On one line, and nothing that steers a terminal."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _section_text(groups: list[_Group], end: str) -> str:
    body = _rendered(groups, end)
    return f"## {_DONE}{end}{_SIGN}{_digest(body)} -->{end}{end}{body}"


def _rendered(groups: list[_Group], end: str) -> str:
    parts = [end.join([title, "", *(line for _, line in of), ""]) for title, of in groups if of]
    return end.join(parts)


def _is_ours(section: str) -> bool:
    """Whether it is as we wrote it, but for the ends of lines."""
    lines = [line.rstrip("\r\n") for line in _lines(section)]
    body = "\n".join(lines[3:])
    return lines[1:2] == [f"{_SIGN}{_digest(body)} -->"]


def _digest(body: str) -> str:
    """Whatever ends the lines."""
    same = "\n".join(line.rstrip("\r\n") for line in _lines(body)).rstrip("\n")
    return hashlib.sha256(same.encode(errors="surrogateescape")).hexdigest()[:12]


def _section(text: str) -> tuple[int, int] | None:
    """The lines of the last section of this name, from its heading to the next of its rank or above."""
    heads = [(token, inline.content) for token, inline in pairwise(_blocks(text)) if token.type == "heading_open"]
    top = [(t.map[0], t.tag, said) for t, said in heads if t.level == 0 and t.map and t.tag in ("h1", "h2")]
    bounds = [*(line for line, _, _ in top), len(_lines(text))]
    found = [(line, bounds[n + 1]) for n, (line, tag, said) in enumerate(top) if (tag, said.strip()) == ("h2", _DONE)]
    return found[-1] if found else None


def _lines(text: str) -> list[str]:
    """As markdown counts them, ends included: `splitlines` would also split at U+2028 and others."""
    return list(io.StringIO(text, newline=""))


def _blocks(text: str) -> "list[Token]":
    return _parser().parse(text.removeprefix("\ufeff"))


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"maxNesting": _NESTING})
    made.core.ruler.enableOnly(["normalize", "block"])  # what is within a paragraph is nothing to us
    return made
