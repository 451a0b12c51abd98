"""JSON with comments: strings stay whole, nothing takes long, nothing is guessed."""

from typing import Any

import pytest

from opencode_tasks import jsonc

GOOD: dict[str, Any] = {
    '{"a": "//x, ]", "b": [1, 2,],}': {"a": "//x, ]", "b": [1, 2]},
    '{"a": 1, /* c, ] */ }': {"a": 1},
    '{"a": 1, // c "\n}': {"a": 1},
    '{"a": "\\",]"}': {"a": '",]'},
    '{"u": "http://x", /*"*/ "b": "/*"}': {"u": "http://x", "b": "/*"},
    '"a,}"': "a,}",
    "/**/ [ ] // end": [],
    '{"a": {"b": [[], {},],},}': {"a": {"b": [[], {}]}},
}


@pytest.mark.parametrize("text", GOOD)
def test_comments_and_trailing_commas_go_and_strings_stay(text: str) -> None:
    assert jsonc.loads(text) == GOOD[text]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[,]", "{,}", "[1,,]", '{"a":,}', "[1 2]", "1/**/2", '{"a":1} x', "[1}", "NaN", "-Infinity", "'a'"),
        *("/* open", "/*/", "/", '"open', '"\\', '{"a": 1, "a": 2}', '[{"b": [], "c": 1, "b": 0}]', "9" * 5000),
        *("[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65),
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsonc.loads(text)


_SIZE = 256 * 1024
BOMBS = [unit * (_SIZE // len(unit)) for unit in ('"\\', '"', "/*", "/*a", "/ ", "[", '{"a":', ",", ", ", "//", "*/")]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", [*BOMBS, "/*" + "*" * _SIZE, "[1," + " " * _SIZE], ids=lambda text: text[:4])
def test_no_text_takes_long(text: str) -> None:
    """Quadratic patterns need minutes for some of these: the test would not end."""
    with pytest.raises(ValueError, match=r"."):
        jsonc.loads(text)


def test_the_depth_that_is_allowed() -> None:
    assert jsonc.loads("[" * jsonc.DEEPEST + "]" * jsonc.DEEPEST)
