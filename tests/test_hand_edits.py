"""What people do to `decisions.md`, one by one: nothing they wrote is lost, and nothing is there twice."""

import re

import pytest

from opencode_tasks import decisions
from opencode_tasks.decisions import digest
from tests.test_decisions import Doc

DOC = Doc().decide("d0", "one", because="why").decide("d1", "two").decide("d2", "three")


def _titles(doc: Doc) -> list[str]:
    return [item.text for item in doc.found.items]


def _block(text: str, block_id: str) -> str:
    found = re.search(rf"^<!-- decision {block_id} .*?^<!-- /decision -->\n", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[0]


def _without_marks(text: str) -> str:
    for mark in (decisions.HEAD, decisions.BEGIN, decisions.END):
        text = mark.sub("", text)
    return text


def test_a_block_is_edited() -> None:
    after = DOC.edited(DOC.text.replace("## one", "## uno\n\nand more"))
    assert [item.id for item in after.found.items] == ["d0", "d1", "d2"]
    assert _titles(after) == ["uno", "two", "three"]
    assert "## uno\n\nand more\n\nBecause: why\n" in after.text


def test_a_block_is_deleted() -> None:
    after = DOC.edited(DOC.text.replace(_block(DOC.text, "d1"), ""))
    assert _titles(after) == ["one", "three"]
    assert [e.type for e in after.events[3:]] == ["decision.removed"]


def test_a_block_is_emptied() -> None:
    after = DOC.edited(DOC.text.replace(decisions.body(DOC.found.items[1]), ""))
    assert _titles(after) == ["one", "three"]


def test_the_last_line_is_half_a_block() -> None:
    at = DOC.text.index("## three")
    assert _titles(DOC.edited(DOC.text[:at])) == ["one", "two"]
    assert _titles(DOC.edited(DOC.text[: at - 1])) == ["one", "two"]
    assert _titles(DOC.edited(DOC.text[: at + 5])) == ["one", "two", "th"]


def test_an_end_mark_is_deleted() -> None:
    text = DOC.text.replace("<!-- /decision -->\n", "", 1).replace("## two", "## dos")
    assert _titles(DOC.edited(text)) == ["one", "dos", "three"]
    last = DOC.text.removesuffix("<!-- /decision -->\n") + "and more"
    assert "UTC*\nand more\n<!-- /decision -->\n" in DOC.edited(last).text


def test_a_begin_mark_is_deleted() -> None:
    text = re.sub("<!-- decision d1 .*\n", "", DOC.text)
    after = DOC.edited(text)
    assert _titles(after) == ["one", "two", "three"]
    assert after.text == DOC.text
    assert _titles(DOC.edited(text.replace("## two", "## dos"))) == ["one", "dos", "three"]


def test_a_block_is_duplicated_and_one_of_them_edited() -> None:
    block = _block(DOC.text, "d1")
    after = DOC.edited(DOC.text.replace(block, block + "\n" + block.replace("two", "deux")))
    assert _titles(after) == ["one", "two", "deux", "three"]
    after = DOC.edited(DOC.text.replace(block, block.replace("two", "deux") + "\n" + block))
    assert _titles(after) == ["one", "deux", "two", "three"]


def test_blocks_are_reordered() -> None:
    block = _block(DOC.text, "d0")
    after = DOC.edited(DOC.text.replace(block, "") + "\n" + block)
    assert _titles(after) == ["two", "three", "one"]
    assert [e.type for e in after.events[3:]] == ["decision.ordered"]
    assert after.edits(DOC.text) == [], "an older file does not put them back"


def test_blocks_are_reordered_with_new_text_between() -> None:
    one, two = _block(DOC.text, "d0"), _block(DOC.text, "d1")
    text = DOC.text.replace(two, "@").replace(one, f"{two}\nnew\n\n").replace("@", one)
    assert _titles(DOC.edited(text)) == ["two", "new", "one", "three"]


@pytest.mark.parametrize("where", ["above", "top", "between", "below"])
def test_text_is_written(where: str) -> None:
    two = _block(DOC.text, "d1")
    mark = re.findall("<!-- decisions .*\n", DOC.text)[0]
    text, titles = {
        "above": ("my words\n" + DOC.text, ["one", "two", "three"]),
        "top": (DOC.text.replace(mark, f"{mark}my words\n"), ["my words", "one", "two", "three"]),
        "between": (DOC.text.replace(two, f"my words\n\n{two}"), ["one", "my words", "two", "three"]),
        "below": (DOC.text + "my words", ["one", "two", "three", "my words"]),
    }[where]
    after = DOC.edited(text)
    assert _titles(after) == titles
    assert after.text.count("my words") == 1
    assert after.decide("d9", "next").found.items[-1].text == "next"


def test_a_block_is_moved_above_everything() -> None:
    block = _block(DOC.text, "d2")
    rest = DOC.text.replace(block, "")
    after = DOC.edited(block + rest)
    assert _titles(after) == ["three", "one", "two"]
    assert after.text.startswith("# Decisions: Fix the parser\n")


def test_an_emptied_file_takes_nothing_away() -> None:
    for text in ("", "\n", " \n\n"):
        assert DOC.edits(text) == []


def test_a_file_that_was_replaced_adds_its_words() -> None:
    after = DOC.edited("something\nelse\n")
    assert _titles(after) == ["one", "two", "three", "something"]
    assert "\nsomething\nelse\n<!-- /decision -->" in after.text


def test_a_program_that_drops_comments_adds_nothing_twice() -> None:
    """Also when it does so again and again."""
    doc = DOC.edited(DOC.text + "by hand\n")
    for _ in range(3):
        doc = doc.edited(_without_marks(doc.text))
    assert _titles(doc) == ["one", "two", "three", "by hand"]
    doc = doc.edited(_without_marks(doc.text) + "\nnew\n")
    assert _titles(doc) == ["one", "two", "three", "by hand", "new"]


def test_the_head_is_edited_and_stays() -> None:
    text = DOC.text.replace("# Decisions: Fix the parser\n", "# Mine\n\nwith words\n")
    after = DOC.edited(text)
    assert after.text.startswith("# Mine\n\nwith words\n<!-- decisions ")
    assert after.edited(after.text.replace("# Mine\n\nwith words\n", "")).text.startswith("<!-- decisions ")


def test_words_moved_from_the_head_into_the_document_are_kept() -> None:
    doc = DOC.edited("words\n" + DOC.text)
    after = doc.edited(doc.text.replace("words\n", "") + "\nwords\n")
    assert after.text.count("words") == 1


def test_a_title_that_we_changed_is_nobodys_edit() -> None:
    renamed = Doc(DOC.events, "Mend the parser")
    assert renamed.edits(DOC.text) == []
    assert renamed.text.startswith("# Decisions: Mend the parser\n")
    assert "mine" in renamed.edited(DOC.text.replace("Fix the parser", "mine")).text


def test_the_first_mark_is_deleted() -> None:
    text = re.sub("<!-- decisions .*\n", "", DOC.text)
    assert DOC.edits(text) == []
    assert _titles(DOC.edited(text.replace("## two", "## dos").replace(_block(text, "d2"), ""))) == [
        "one",
        "dos",
        "three",
    ]


def test_an_older_file_without_edits() -> None:
    newer = DOC.decide("d3", "four").then(
        ("decision.edited", {"id": "d0", "raw": "uno\n"}), ("decision.removed", {"id": "d1"})
    )
    assert newer.edits(DOC.text) == []


def test_an_older_file_with_edits() -> None:
    newer = DOC.decide("d3", "four").then(
        ("decision.edited", {"id": "d0", "raw": "uno\n"}), ("decision.removed", {"id": "d1"})
    )
    text = DOC.text.replace("## two", "## dos").replace("## three", "## tres")
    assert _titles(newer.edited(text)) == ["uno", "dos", "tres", "four"]
    without = DOC.text.replace(_block(DOC.text, "d0"), "")
    assert _titles(newer.edited(without)) == ["uno", "three", "four"], "what another edited since is not removed"


def test_what_another_clone_decided_is_not_removed_by_a_file_that_never_had_it() -> None:
    there = Doc(DOC.events[:1], w="00000000-there").decide("t0", "theirs")
    merged = Doc((*DOC.events, there.events[-1]))
    assert merged.edits(DOC.text) == []
    assert _titles(merged.edited(DOC.text + "mine\n")) == ["one", "theirs", "two", "three", "mine"]


@pytest.mark.parametrize("old", ["## two", "# Decisions: Fix the parser"])
def test_a_digest_faked_by_hand_hides_no_words(old: str) -> None:
    text = DOC.text.replace(old, "my words")
    for body in [decisions.head(DOC.found), *map(decisions.body, DOC.found.items)]:
        text = text.replace(digest(body), digest(body.replace(old, "my words")))
    assert text.count("my words") == 1
    assert "my words" in DOC.edited(text).text


def test_an_older_form_that_nobody_touched_is_no_edit() -> None:
    """As another version of this program would have written the same."""
    body = decisions.body(DOC.found.items[1])
    older = DOC.text.replace(body, "* two\n").replace(digest(body), digest("* two\n"))
    assert DOC.edits(older.replace("<!-- decisions 1 ", "<!-- decisions 0 ")) == []
    assert _titles(DOC.edited(older)) == ["one", "* two", "three"]


def test_a_block_from_another_task_is_taken_in() -> None:
    other = Doc().decide("o0", "theirs")
    assert _titles(DOC.edited(DOC.text + other.text)) == ["one", "two", "three", "theirs"]


def test_a_decision_of_which_the_log_was_lost_comes_back_from_the_file() -> None:
    assert _titles(Doc(DOC.events[:2]).edited(DOC.text)) == ["one", "two", "three"]


def test_windows_saves_it() -> None:
    assert DOC.edits("\N{ZERO WIDTH NO-BREAK SPACE}" + DOC.text.replace("\n", "\r\n")) == []
    after = DOC.edited(DOC.text.replace("## two", "## dos").replace("\n", "\r\n") + "\r\nnew\r\n")
    assert _titles(after) == ["one", "dos", "three", "new"]
    assert "\r" not in after.text


def test_an_editor_that_does_not_look_saves_again_and_again() -> None:
    """It has no marks for what was taken in from it."""
    doc, buffer = DOC, DOC.text
    for added in ("\nfirst", " and more of it\n", "a line\n", "\nanother\n", "\n"):
        buffer += added
        doc = doc.edited(buffer).decide(f"n{len(buffer)}", "meanwhile")
    by_hand = [item.raw for item in doc.found.items if item.raw]
    assert by_hand == ["first and more of it\na line\n", "another\n"]


def test_bytes_that_are_no_text_are_kept() -> None:
    text = (DOC.text.encode() + b"caf\xe9 \x00 \xff\n").decode(errors="surrogateescape")
    assert b"\ncaf\xe9 \x00 \xff\n" in DOC.edited(text).text.encode(errors="surrogateescape")


def test_a_fence_that_shows_our_marks_is_taken_in() -> None:
    text = DOC.text.replace("## two", f"## two\n\n```\n{DOC.text}```\n")
    after = DOC.edited(text)
    assert after.edited(after.text).text == after.text
    assert after.text.count("## one") == 2
