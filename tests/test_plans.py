"""Steps in odd markdown, and edits that change nothing else."""

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_tasks import plans
from opencode_tasks.errors import TaskError
from opencode_tasks.plans import Facts

_STEPS: list[tuple[str, list[tuple[str, bool]]]] = [
    ("", []),
    ("- [ ] one\n- [x] two\n- [X] three\n", [("one", False), ("two", True), ("three", True)]),
    ("* [ ] star\n+ [ ] plus\n\n1) [x] paren\n", [("star", False), ("plus", False), ("paren", True)]),
    ("1. [x] first\n2. [ ] second\n", [("first", True), ("second", False)]),
    ("- [ ] outer\n  - [x] inner\n    1. [ ] deep\n", [("outer", False), ("inner", True), ("deep", False)]),
    ("- - [ ] two at once\n", [("two at once", False)]),
    ("-\n  [ ] late\n", [("late", False)]),
    ("- [ ] several\n  lines\nand a lazy one\n", [("several lines and a lazy one", False)]),
    ("- [ ]\n  below\n", [("below", False)]),
    ("- [ ] tab\there\n-\t[x]\tafter tabs\n", [("tab here", False), ("after tabs", True)]),
    ("   - [ ] three spaces\n", [("three spaces", False)]),
    ("- [ ] crlf\r\n- [x] again\r\n", [("crlf", False), ("again", True)]),
    ("- [ ] old mac\r- [x] again\r", [("old mac", False), ("again", True)]),
    ("- [ ] no newline at the end", [("no newline at the end", False)]),
    ("- [ ] a\u2028b\n- [ ] c\x0bd\n", [("a b", False), ("c d", False)]),
    ("\ufeff- [ ] after a byte order mark\n", [("after a byte order mark", False)]),
    ("- [ ] caf\udce9\n", [("caf\udce9", False)]),
    ("text\n- [ ] ends a paragraph\n", [("ends a paragraph", False)]),
    ("- [ ] *with* [a link](x) and `[ ] code`\n", [("*with* [a link](x) and `[ ] code`", False)]),
    ("- a\n\n  - [ ] loose\n\n  text\n", [("loose", False)]),
    # No steps.
    ("[ ] no item\n", []),
    ("- [] x\n- [y] x\n- [ ]x\n- [  ] x\n- [-] x\n- \\[ ] x\n", []),
    ("- [ ]\n- [x] \n", []),
    ("- text [ ] within\n", []),
    ("- first\n\n  [ ] a second paragraph\n", []),
    ("> - [ ] quoted\n> - > - [x] deeper\n\n- > [ ] in an item\n", []),
    ("```\n- [ ] code\n```\n~~~\n- [ ] code\n~~~\n    - [ ] indented code\n", []),
    ("- ```\n  - [ ] code in an item\n  ```\n", []),
    ("<!--\n- [ ] comment\n\n- [ ] still\n-->\n", []),
    ("- <!-- - [ ] comment -->\n", []),
    ("<div>\n- [ ] html\n</div>\n", []),
    ("```\n- [ ] never closed\n", []),
    ("- # [ ] heading\n- [ ] setext\n  ======\n", []),
    ("- [x]: /a-link\n", []),
]


@pytest.mark.parametrize(("text", "wanted"), _STEPS)
def test_steps(text: str, wanted: list[tuple[str, bool]]) -> None:
    found = plans.steps(text)
    assert [(s.text, s.done) for s in found] == wanted
    assert [s.number for s in found] == list(range(1, len(wanted) + 1))


def test_after_quotes_and_code_comes_markdown_again() -> None:
    text = "> - [ ] q\n\n- [ ] one\n\n```\n- [ ] c\n```\n\n<!--\n- [ ] c\n-->\n- [x] two\n"
    assert [(s.number, s.text, s.lines) for s in plans.steps(text)] == [(1, "one", (2, 3)), (2, "two", (11, 12))]


def test_many_levels_and_none_too_many() -> None:
    deep = "".join(f"{'  ' * n}- [ ] level {n}\n" for n in range(30))
    assert len(plans.steps(deep)) == 30
    endless = "- " * 5_000 + "[ ] x\n"
    assert plans.checked(endless, [1]) in [(endless, []), (endless.replace("[ ]", "[x]"), [1])]


def test_checking_a_step_changes_its_box_and_nothing_else() -> None:
    text = "# [ ] T\r\n- [ ] one [ ] \r\n\r\n* [ ] zw\0ei \udcff\n\t1. [X] three  \r- [ ] four"
    made, changed = plans.checked(text, [2, 3, 4, 9])
    assert changed == [2, 4]
    assert made == "# [ ] T\r\n- [ ] one [ ] \r\n\r\n* [x] zw\0ei \udcff\n\t1. [X] three  \r- [x] four"
    assert plans.checked(made, [2, 3, 4, 9]) == (made, [])


_PIECES = [
    *(
        "- [ ] ",
        "* [x] ",
        "1. [ ] ",
        "> ",
        "- ",
        "[ ] ",
        "```\n",
        "<!--",
        "-->",
        "    ",
        "\t",
        "  ",
        "\n",
        "\r\n",
        "\r",
    ),
    *("\n\n", "word", "# ", "---\n", "<div>\n", "\0", "\u2028", "\x0c", "\udce9", "grüße", "[", "]", "`", "\\", "=="),
]
_TEXTS = st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=40).map("".join)


@given(_TEXTS, st.sets(st.integers(1, 8)))
def test_of_any_text_only_boxes_change(text: str, numbers: set[int]) -> None:
    before = plans.steps(text)
    made, changed = plans.checked(text, numbers)
    assert changed == [s.number for s in before if s.number in numbers and not s.done]
    differing = [(a, b) for a, b in zip(text, made, strict=True) if a != b]
    assert differing == [(" ", "x")] * len(changed)
    after = plans.steps(made)
    assert [(s.text, s.lines) for s in after] == [(s.text, s.lines) for s in before]
    assert [s.done for s in after] == [s.done or s.number in changed for s in before]
    lines = list(io.StringIO(text, newline=""))
    for step in before:
        assert "[" in lines[step.lines[0]]


@pytest.mark.parametrize(
    ("subject", "body", "wanted"),
    [
        ("Fix it [step 2]", "", {2}),
        ("[Step 2] fix it", "", {2}),
        ("Fix it", "And more.\n\n[steps 2, 3]\n", {2, 3}),
        ("Fix it [steps 2-4]", "[step 7]", {2, 3, 4, 7}),
        ("Fix it [step #2] [steps 1, 4-5,9]", "", {2, 1, 4, 5, 9}),
        ("Fix it [step 2-2]", "", {2}),
        ("Fix it [step 4-2] [step ] [step x] [step -1] [step 2-] [step 1-2-3]", "", set()),
        ("Fix it [step 1234] [step 1-9999]", "", set()),
        ("Fix it [step 7]", "[step 1-999, 1-999]" * 100_000 + "[step" + " " * 1_000_000, set(range(1, 1000))),
        ("step 2, (step 2), [stepping 2], [2], [step2]", "", set()),
        ("Fix it [step ٢]", "", set()),
        ('Revert "Fix it [step 2]"', "This reverts commit 0123.", set()),
        ('Revert "Fix it [step 2]"', "[step 3]", {3}),
    ],
)
def test_marks_of_a_commit(subject: str, body: str, wanted: set[int]) -> None:
    assert plans.marked(subject, body) == wanted


_PLAN = """\
- [ ] Read the `config` file
- [ ] Write tests
- [ ] Write tests for the parser
- [x] Old thing done
- [ ] Docs
- [ ] The grüße_an-alle, of
  the whole world
- [ ] Remove dead code
"""


@pytest.mark.parametrize(
    ("subject", "wanted"),
    [
        ("Read config file", 1),
        ("cli: READ a Config FILE early, and cache it", 1),
        ("Read config", None),
        ("Write tests", 2),
        ("Write more tests", 2),
        ("Write tests for parser", None),  # two steps match
        ("Old thing done", None),
        ("Docs", None),  # one word is not enough
        ("Docs and more docs", None),
        ("GRÜSSE an alle, whole world", 6),
        ("Grüße an alle", None),
        ("Remove dead code", 7),
        ("wip: remove dead code", None),
        ("Do not remove dead code", None),
        ("Remove read of config file", None),
        ("fixup! Read config file", None),
        ('Revert "Read config file"', None),
        ("", None),
        ("the of", None),
    ],
)
def test_the_step_that_a_subject_is_certainly_about(subject: str, wanted: int | None) -> None:
    assert plans.matching(_PLAN, subject) == wanted


def test_a_step_that_is_no_step_matches_nothing() -> None:
    assert plans.matching("```\n- [ ] Read config file\n```\n", "Read config file") is None


@given(_TEXTS, st.lists(st.sampled_from(["word", "grüße", "the", "other"]), max_size=4))
def test_what_is_passed_over_without_parsing_would_not_have_matched(text: str, said: Sequence[str]) -> None:
    subject = " ".join(said)
    words = plans._words(subject)
    every = [plans._words(s.text) for s in plans.steps(text) if not s.done]
    if any(len(one) > 1 and one <= words for one in every):
        assert plans._may_match(text, words)


_FACTS = Facts((("abc123456", "Fix the parser"), ("def123456", "Add tests")), (("d1", "Use X\nand say so"),))
_MORE = Facts((*_FACTS.commits, ("999999999", "Late")), (*_FACTS.decisions, ("d2", "Use Y")))


def test_what_was_done_is_added_at_the_end() -> None:
    text = "# T\n\n## Steps\n\n- [x] one\n- [ ] two\n\n## Notes\n"
    assert plans.finished(text, _FACTS).removeprefix(text) == (
        "\n## Done\n<!-- written by complete-task d4c9f19714af -->\n\n"
        "Commits:\n\n- `abc123456` Fix the parser\n- `def123456` Add tests\n\n"
        "Decisions:\n\n- `d1` Use X and say so\n\n"
        "Open ends:\n\n- step 2: two\n"
    )


def test_nothing_done_and_nothing_open_is_not_told() -> None:
    for text in ("", "# T\n", "- [x] one\n"):
        assert plans.finished(text, Facts()) == text


@pytest.mark.parametrize(
    "text", ["", "# T", "# T\n", "# T\n\n", "# T\n\n\n", "# T\r\n\r\ntext\r\n", "- [ ] x\r\n", "T\n="]
)
def test_the_rest_stays_and_again_changes_nothing(text: str) -> None:
    made = plans.finished(text, _FACTS)
    assert made.startswith(text)
    assert plans.finished(made, _FACTS) == made
    assert "\n\n\n\n" not in made
    more = plans.finished(made, _MORE)
    assert more.startswith(text)
    assert more.count("## Done") == 1
    assert "`999999999` Late" in more
    assert plans.finished(more, _FACTS) == made  # it is ours: written anew
    assert ("\r\n" in made) == ("\r\n" in text)
    assert not (made.replace("\r\n", "").count("\n") and "\r\n" in text)


def test_written_anew_between_other_sections() -> None:
    made = plans.finished("# T\n\n- [ ] one\n- [ ] two\n", _FACTS)
    moved = f"{made}\n\n## After\n\ntext"
    done, _ = plans.checked(moved, [1])
    again = plans.finished(done, _MORE)
    assert again.endswith("- step 2: two\n\n\n## After\n\ntext")
    assert "step 1" not in again
    assert plans.finished(again, _MORE) == again


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("- `def123456` Add tests\n", "- `def123456` Add many tests\n"),
        ("Commits:\n", "We did it!\n\nCommits:\n"),
        ("<!-- written by complete-task", "<!-- kept by me"),
        ("Open ends:\n\n- step 1: one", "Left:\n\n- somebody: one  "),
    ],
)
def test_what_was_edited_by_hand_stays_and_gets_what_is_new(mine: str, theirs: str) -> None:
    made = plans.finished("# T\n\n- [ ] one\n", _FACTS)
    assert mine in made
    edited = made.replace(mine, theirs) + "\n## After\n"
    assert plans.finished(edited, _FACTS) == edited
    more = plans.finished(edited, _MORE)
    added = "\n\nCommits:\n\n- `999999999` Late\n\nDecisions:\n\n- `d2` Use Y\n\n## After\n"
    assert more == edited.removesuffix("\n\n## After\n") + added
    assert plans.finished(more, _MORE) == more


def test_a_section_of_ones_own_is_taken() -> None:
    for own in ("## Done\n\nAll of it.\n", "Done\n----\n\nAll of it.\n"):
        made = plans.finished(f"# T\n\n{own}\n### Really\n", _FACTS)
        assert made.startswith(f"# T\n\n{own}\n### Really\n\nCommits:\n")
        assert plans.finished(made, _FACTS) == made


def test_what_only_looks_like_the_section_is_not_it() -> None:
    text = "> ## Done\n\n```\n## Done\n```\n\n### Done\n\n- ## Done\n\n# Done\n"
    assert plans.finished(text, _FACTS).startswith(f"{text}\n## Done\n<!-- ")


@pytest.mark.parametrize("opening", ["```\n", "<!--\n", "~~~~\nx", "<script>\n"])
def test_where_it_would_not_be_seen_it_is_refused(opening: str) -> None:
    with pytest.raises(TaskError, match="would not be seen"):
        plans.finished(f"# T\n\n{opening}", _FACTS)


def test_nothing_that_somebody_wrote_becomes_markdown_of_ours() -> None:
    odd = [
        "[ ] x",
        "- [ ] x",
        "# x",
        "```",
        "<!--",
        "> x",
        "---",
        "a\n- [ ] x\r\n## Done\rb\u2028- [ ] c",
        "\x1b[2J",
        "x" * 999,
    ]
    facts = Facts(tuple((f"c{n}", text) for n, text in enumerate(odd)), tuple((f"d{n}", t) for n, t in enumerate(odd)))
    made = plans.finished("- [ ] one\n", facts)
    assert [s.text for s in plans.steps(made)] == ["one"]
    assert plans.finished(made, facts) == made
    assert "\x1b" not in made
    assert max(map(len, made.splitlines())) < 220


@given(_TEXTS)
def test_of_any_text_the_end_is_ours_and_the_rest_stays(text: str) -> None:
    try:
        made = plans.finished(text, _FACTS)
    except TaskError:
        return
    assert plans.finished(made, _FACTS) == made
    assert made.startswith(text)
    assert [(s.text, s.done) for s in plans.steps(made)] == [(s.text, s.done) for s in plans.steps(text)]
