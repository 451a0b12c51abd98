"""A value goes into anybody's configuration and comes out again; not one other byte is touched."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_tasks import jsonc
from opencode_tasks.opencode.edit import Edit, look, put, take_out

NEW = "/repo/.git/opencode-tasks/bin/tasksh"
EXACT = {
    "{}": '{"shell": "/sh"}',
    "{\n}\n": '{\n  "shell": "/sh"\n}\n',
    "{ // ours\r\n\t}": '{ // ours\r\n\t\t"shell": "/sh"\r\n\t}',
    '{"a":1}': '{"a":1, "shell": "/sh"}',
    '{"a":1,"b":[2,],}': '{"a":1,"b":[2,],"shell": "/sh",}',
    '{\n  // one\n  "a": 1 // last\n  // "theme": 1\n}': (
        '{\n  // one\n  "a": 1, // last\n  "shell": "/sh"\n  // "theme": 1\n}'
    ),
    '\ufeff{\r\n\t"a": {}, /* , } */ // c\r\n}': '\ufeff{\r\n\t"a": {}, /* , } */ // c\r\n\t"shell": "/sh",\r\n}',
    '{"shell" /* mine */ : "zsh", "x": "\\u007d"}': '{"shell" /* mine */ : "/sh", "x": "\\u007d"}',
}


@pytest.mark.parametrize("before", EXACT)
def test_it_looks_as_its_owner_would_have_written_it(before: str) -> None:
    after, edit = put(before, ["shell"], "/sh")
    assert after == EXACT[before]
    assert take_out(after, ["shell"], "/sh", edit) == before


_SPACE = st.sampled_from(
    ["", " ", "\n", "\r\n  ", "\n\t", "  ", "/**/", "/* , } \n */", '// } , "\n', " // {\r\n\t", "\n\n  // last\n    "]
)
_KEYS = st.sampled_from(["a", "b", "shell", "mcp", "x", "//", '"', "}", "é"])


_LEAVES: st.SearchStrategy[str] = st.sampled_from(
    ["1", "-2.5e3", "true", "null", '"//"', '"\\"}"', "[]", "[{}, [1,],]", '"\\u00e9"']
)


def _object(parts: list[tuple[str, str]], space: list[str], tail: bool) -> str:
    said = [
        f"{one}{json.dumps(key)}{other}:{one}{inner}{other}"
        for (key, inner), (one, other) in zip(parts, pairwise(space), strict=False)
    ]
    return "{" + ",".join(said) + ("," + space[0] if said and tail else space[-1]) + "}"


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.lists(st.tuples(_KEYS, inner), unique_by=lambda part: part[0], max_size=4)
    return st.builds(_object, parts, st.lists(_SPACE, min_size=5, max_size=5), st.booleans())


_TEXTS = _objects(st.recursive(_LEAVES, _objects, max_leaves=12))


@settings(deadline=None)
@given(
    st.sampled_from(["", "\ufeff"]),
    _SPACE,
    _TEXTS,
    _SPACE,
    st.sampled_from([["shell"], ["mcp", "x"], ["mcp", "x", "a"]]),
)
def test_what_goes_in_comes_out(bom: str, above: str, body: str, below: str, path: list[str]) -> None:
    text = bom + above + body + below
    new: Any = NEW if path == ["shell"] else {"type": "local", "command": ["a", "b"]}
    expected = jsonc.loads(text.removeprefix("\ufeff"))
    at = expected
    for key in path[:-1]:
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            with pytest.raises(ValueError, match="is no object"):
                put(text, path, new)
            return
    at[path[-1]] = new
    after, edit = put(text, path, new)
    assert jsonc.loads(after.removeprefix("\ufeff")) == expected
    assert look(after, path) == new
    assert take_out(after, path, new, edit) == text
    assert take_out(after, path, "another", edit) == after


def test_what_people_do_meanwhile_stays() -> None:
    after, edit = put('{\n  "a": 1\n}\n', ["shell"], NEW)
    more = after.replace("\n}", ',\n  "b": 2, // mine\n}')
    assert take_out(more, ["shell"], NEW, edit) == '{\n  "a": 1,\n  "b": 2, // mine\n}\n'
    reformatted = json.dumps({"shell": NEW, "a": 1})
    assert jsonc.loads(take_out(reformatted, ["shell"], NEW, edit)) == {"a": 1}
    theirs = after.replace(NEW, "/bin/fish")
    assert take_out(theirs, ["shell"], NEW, edit) == theirs
    inside, made = put("{}", ["mcp", "x"], 1)
    beside, _ = put(inside, ["mcp", "y"], 2)
    assert jsonc.loads(take_out(beside, ["mcp", "x"], 1, made)) == {"mcp": {"y": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"line 1\b"),
        ("[1]", "no object"),
        ('{\n"a": 1,\n"\\u0061": 2}', r"'a' stands there twice: line 3"),
        ('{\n"x": {"a": 1,\n\n"a": 2}}', r"'a' stands there twice: line 4"),
        ('{\n"a": 1\n"b": 2}', r"line 3\b"),
        ("{\n/* open", r"not closed: line 2"),
        ('\n{"a":' * 70 + "1" + "}" * 70, r"nested deeper than 64: line 66"),
        ("\x00", r"line 1\b"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    for act in (lambda: put(text, ["shell"], 1), lambda: look(text, ["shell"])):
        with pytest.raises(ValueError, match=said):
            act()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "body", [" " * (1 << 19), '"a": ' + "[" + "1," * (1 << 17) + "]", "// x\n" * (1 << 16), "/**/" * (1 << 16)]
)
def test_no_text_takes_long(body: str) -> None:
    text = "{" + body + "\n}"
    after, edit = put(text, ["shell"], 1)
    assert take_out(after, ["shell"], 1, edit) == text


def test_nothing_is_taken_out_of_what_was_never_put_in() -> None:
    assert take_out('{"a": 1}', ["shell"], NEW, Edit()) == '{"a": 1}'
