"""Any text is assessed, in bounded time: whatever bytes it has, however long it is, however deep it nests."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opencode_tasks.policy.risk import LABELS, assess
from tests.policy.lines import WORKSPACE, assessed

_PIECES = r"""rm -rf a . / ~ .. git reset --hard find -exec {} + ; | && ( ) $( ` ' " \ $X ${ } << E <<< > sh -c xargs"""
_texts = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200).map(lambda content_b: content_b.decode(errors="surrogateescape")),
    st.lists(st.sampled_from([*_PIECES.split(), "\n", "\0", "\1"]), max_size=40).map(" ".join),
)


@settings(max_examples=150, deadline=None)
@given(_texts)
@example("bash -c '" * 40)
@example("a=$a$a;" * 300 + "rm -r $a")
def test_any_text_is_assessed(text: str) -> None:
    for command in (["sh", "-c", text], [text], ["sudo", *text.split(" ")], ["find", ".", "-exec", *text.split("\n")]):
        found = assess(command, workspace=WORKSPACE, cwd=WORKSPACE)
        assert set(found.labels) <= {*LABELS}
        assert found.mutates or not (found.labels or found.beyond)
        assert all(reason.isprintable() for reason in found.beyond)


_NESTED = ["(", "$(", '"$(', "<", "a=(", "ls | ", "eval ", "sudo ", "if ", "cat <<E\n", "find . -exec "]


@pytest.mark.parametrize("part", _NESTED)
def test_no_text_takes_for_ever(part: str) -> None:
    """Some take the grammar the square of their length, some nest deeper than any stack: what is not read says so."""
    found = assessed(part * (8_000 // len(part)))
    assert found.mutates
    assert "unparsed" in found.labels


def test_a_text_no_argument_can_hold_is_not_read() -> None:
    assert assessed("x" * (1 << 20)).labels == ("unparsed",)
    assert assessed("rm -r a;" * 2_000).labels == ("rm-recursive",)
    assert "rm-recursive" in assessed("A=$A$A;" * 2_000 + "rm -r $A").labels, "values do not grow for ever"
