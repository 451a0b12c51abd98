"""`decisions.md`: the same for the same events, and whatever is done to it is taken in once."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_tasks import decisions
from opencode_tasks.decisions import Decisions, fold, render
from opencode_tasks.events import GENESIS, CorruptError, Event, New, encode
from opencode_tasks.hand_edits import hand_edits

_MARK = re.compile(r"(<|&lt;)!-- (/decision|decisions? .*sha256:.*) -->\s*")
_TS = "2026-11-21T06:35:43.468Z"


@dataclass(frozen=True)
class Doc:
    """A task's decisions, and the writer who goes on with them."""

    events: tuple[Event, ...] = ()
    title: str = "Fix the parser"
    w: str = "aaaaaaaa-here"

    def then(self, *new: New) -> "Doc":
        events = self.events
        for type_, data in new:
            seq = 1 + sum(e.w == self.w for e in events)
            events = (*events, encode(self.w, seq, len(events) + 1, _TS, "ana", 0, type_, data, GENESIS)[0])
        return replace(self, events=events)

    def decide(self, id_: str, text: str, **more: object) -> "Doc":
        return self.then(("decision.added", {"id": id_, "text": text, **more}))

    @property
    def found(self) -> Decisions:
        return fold(self.title, sorted(self.events, key=lambda e: e.key))

    @property
    def text(self) -> str:
        return render(self.found)

    def edits(self, text: str) -> list[New]:
        return hand_edits(self.found, _from_disk(text), _ids(self))

    def edited(self, text: str) -> "Doc":
        """After `text` was taken in. Asked again there is nothing new in it, nor in the file that we write."""
        after = self.then(*self.edits(text))
        assert after.edits(text) == []
        assert after.edits(after.text) == []
        assert after.text == after.text
        return after


def _ids(doc: Doc) -> Iterator[str]:
    taken = {e.data.get("id") for e in doc.events}
    return (i for n in range(10_000) if (i := f"x{n}") not in taken)


def _from_disk(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="surrogateescape")


def _words(text: str) -> Counter[str]:
    """The lines that are somebody's words."""
    lines = (line.strip() for line in re.sub(r"\r+\n", "\n", text).split("\n"))
    return Counter(line for line in lines if line and not _MARK.fullmatch(line))


_HOSTILE = st.sampled_from(
    [
        "```\n<!-- /decision -->\n```",
        "<!-- /decision -->",
        "  <!-- /decision --> ",
        "<!-- decision d0 sha256:000000000000 -->",
        "<!-- decisions 1 sha256:000000000000 -->",
        "<!-- decisions 1 aaaaaaaa-here:9 sha256:000000000000 -->",
        "\r\n",
        "\r",
        "\r\r\n",
        "\0",
        "\n\n",
        "# Decisions: Fix the parser",
        "## ",
        "- [x] ",
        "\udcff",
        "\udcc3",
        "\udca9",
        "\ud800",
        "\N{ZERO WIDTH NO-BREAK SPACE}",
        "\x85\u2028\x0b\x0c\x1c",
        "né\N{PILE OF POO}",
        " ",
    ]
)
_TEXT = st.lists(st.one_of(_HOSTILE, st.text(max_size=8)), max_size=6).map("".join)


@st.composite
def _docs(draw: st.DrawFn, text: st.SearchStrategy[str] = _TEXT) -> Doc:
    doc = Doc(title=draw(text))
    for n in range(draw(st.integers(0, 4))):
        more = {"because": draw(text), "alternatives": draw(st.lists(text, max_size=2))}
        raw = {"raw": draw(text)} if draw(st.booleans()) else {}
        doc = doc.decide(f"d{n}", draw(text), **more, **raw)
    if draw(st.integers(0, 3)) == 0:
        doc = doc.then(("decision.edited", {"id": "", "raw": draw(text)}))
    return doc


@settings(derandomize=True, deadline=None, max_examples=200)
@given(_docs())
def test_what_we_wrote_is_nobodys_edit(doc: Doc) -> None:
    assert doc.text == Doc(doc.events, doc.title).text
    assert doc.edits(doc.text) == []


_WHOLE = """\
# Decisions: Fix the parser
<!-- decisions 1 aaaaaaaa-here:2 sha256:5ec3fd3de49d -->

<!-- decision d0 sha256:000000000000 -->
## Parse by hand

It is small.

Because: no dependency

Instead of:

- lark
- ply

*ana, 2026-11-21 06:35 UTC*
<!-- /decision -->

<!-- decision d1 sha256:000000000000 -->
as I wrote it
<!-- /decision -->
"""


def test_a_document() -> None:
    doc = Doc().decide("d0", "Parse by hand\n\nIt is small.", because="no dependency", alternatives=["lark", "ply"])
    doc = doc.decide("d1", "as I wrote it", raw="as I wrote it")
    assert re.sub("sha256:[0-9a-f]{12}", "sha256:", doc.text) == re.sub("sha256:[0-9a-f]{12}", "sha256:", _WHOLE)


def test_the_order_of_two_writers_is_that_of_the_events() -> None:
    one = Doc().decide("d0", "first")
    two = replace(one, w="00000000-there").decide("d1", "second")
    three = replace(two, w="aaaaaaaa-here").decide("d2", "third")
    assert [item.text for item in three.found.items] == ["first", "second", "third"]
    assert three.found.heads == {"00000000-there": 1, "aaaaaaaa-here": 2}
    assert three.found.at({"aaaaaaaa-here": 2}) == fold(one.title, (e for e in three.events if e.w == one.w))
    assert fold(one.title, [*three.events]) == three.found


@pytest.mark.parametrize(
    "text",
    ["a\r\nb\rc", "nul \0", "\ud800", "\udcc3\udca9", "<!-- /decision -->", " \n<!-- /decision --> \x0b", "", "\n"],
)
def test_any_text_stays_in_its_block(text: str) -> None:
    doc = Doc(title=text).decide("d0", text, because=text, alternatives=[text]).decide("d1", "next")
    assert doc.edits(doc.text) == []
    assert "\r" not in doc.text
    assert "\0" not in doc.text
    assert len(decisions.BEGIN.findall(doc.text)) == len(decisions.END.findall(doc.text)) == 2
    doc.text.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    "new",
    [
        ("decision.added", {"text": "x"}),
        ("decision.added", {"id": "d0"}),
        ("decision.added", {"id": "Not one of ours -->", "text": "x"}),
        ("decision.added", {"id": "d0", "text": "x", "alternatives": None}),
        ("decision.edited", {"id": "d0"}),
        ("decision.removed", {}),
        ("decision.ordered", {"ids": 3}),
    ],
)
def test_a_record_that_lacks_what_its_type_says_is_damage(new: New) -> None:
    with pytest.raises(CorruptError, match=r"Record 1 of aaaaaaaa-here \(decision\."):
        _ = Doc().then(new).found


def test_a_newer_versions_record_changes_nothing() -> None:
    doc = Doc().decide("d0", "x")
    assert doc.then(("decision.praised", {"id": "d0"})).found.items == doc.found.items


def test_an_id_is_added_once() -> None:
    assert [item.text for item in Doc().decide("d0", "one").decide("d0", "two").found.items] == ["one"]


def _mangled(data: st.DataObject, text: str, insert: st.SearchStrategy[str]) -> str:
    for _ in range(data.draw(st.integers(1, 4))):
        lines = text.split("\n")
        a = data.draw(st.integers(0, len(lines)))
        b = data.draw(st.integers(a, min(len(lines), a + 8)))
        part, new = lines[a:b], data.draw(insert).split("\n")
        match data.draw(st.sampled_from(["delete", "insert", "replace", "move", "copy", "cut"])):
            case "delete":
                lines[a:b] = []
            case "insert":
                lines[a:a] = new
            case "replace":
                lines[a:b] = new
            case "move":
                lines[a:b] = []
                c = data.draw(st.integers(0, len(lines)))
                lines[c:c] = part
            case "copy":
                c = data.draw(st.integers(0, len(lines)))
                lines[c:c] = part
            case "cut":
                lines = lines[:a]
        text = "\n".join(lines)
    return _from_disk(decisions.lines(text)).lstrip(decisions.BYTE_ORDER_MARK)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(_docs(), st.data())
def test_any_edit_is_taken_in_once(doc: Doc, data: st.DataObject) -> None:
    text = _mangled(data, doc.text, _TEXT)
    after = doc.edited(text)
    wanted = Counter(decisions.written(line) for line in _words(text).elements())
    assert wanted.keys() <= _words(after.text).keys()
    if decisions.HEAD.findall(doc.text) == decisions.HEAD.findall(text):
        assert _words(after.text) <= wanted
    else:
        assert _words(after.text) <= wanted + _words(doc.text)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_an_old_file_takes_nothing_back(data: st.DataObject) -> None:
    """Somebody edits a file that others have gone on from, also in another clone."""
    tokens = iter(range(10_000))
    word = st.builds(lambda: f"word{next(tokens)}.")
    old = data.draw(_docs(word))
    text = _mangled(data, old.text, word)
    now = replace(old, w=data.draw(st.sampled_from(["aaaaaaaa-here", "00000000-there"])))
    for n in range(data.draw(st.integers(1, 3))):
        ids = [item.id for item in now.found.items]
        kinds = st.sampled_from(["decide", "edit", "remove"] if ids else ["decide"])
        match data.draw(kinds):
            case "decide":
                now = now.decide(f"n{n}", data.draw(word))
            case "edit":
                now = now.then(("decision.edited", {"id": data.draw(st.sampled_from(ids)), "raw": data.draw(word)}))
            case "remove":
                now = now.then(("decision.removed", {"id": data.draw(st.sampled_from(ids))}))
    assert now.edits(old.text) == []
    after = now.edited(text)
    before, written, is_now = (_words(t) for t in (old.text, text, after.text))
    assert written.keys() - before.keys() <= is_now.keys(), "words that somebody wrote into the old file"
    added = {item.id for item in now.found.items} - {item.id for item in old.found.items}
    assert added <= {item.id for item in after.found.items}
