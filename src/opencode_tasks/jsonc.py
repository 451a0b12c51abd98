"""JSON with comments and trailing commas, as editors write it, from a hand that may be hostile. Pure.

Not a library's: json-with-comments 1.3 takes minutes for 256 KiB of `"\\` (its patterns are quadratic), and json5
reads a language that is larger. Here time is linear, depth is bounded, and a key that stands twice is an error.
"""

import json
import re
from typing import Any

DEEPEST = 64

# What is not closed reaches to the end, so that no text is read twice.
TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))
    |(?P<comment>//[^\n]*+|/\*(?:.*?\*/|.*\Z))
    |(?P<space>\s++)
    |(?P<mark>[\[\]{},:])
    |(?P<word>[^\s"/\[\]{},:]++|.)""",
    re.DOTALL | re.VERBOSE,
)


def loads(text: str) -> Any:
    """Raises `ValueError` that says what is wrong, and on which line."""
    return json.loads(_plain(text), parse_constant=_constant)


def _plain(text: str) -> str:
    """Comments become spaces, so that places in error messages stay; a comma before a closing bracket goes."""
    kept: list[str] = []
    last, comma = "", -1
    inside: list[set[str] | None] = []
    for token in TOKEN.finditer(text):
        said, kind = token[0], token.lastgroup
        if kind == "comment":
            if said.startswith("/*") and (len(said) < 4 or not said.endswith("*/")):
                raise ValueError(f"a comment is not closed: {_line(text, token)}")
            said = re.sub(r"[^\n]", " ", said)
        elif kind != "space":
            if said in ("[", "{"):
                inside.append(set() if said == "{" else None)
            elif said in ("]", "}"):
                del inside[-1:]
            elif kind == "string" and last in ("{", ",") and inside and inside[-1] is not None:
                _require_new(said, inside[-1], text, token)
            if len(inside) > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST}: {_line(text, token)}")
            if said in ("]", "}") and comma >= 0:
                kept[comma] = " "
            # Only after an element: `[,]` and `[1,,]` are as wrong as they are in JSON.
            comma = len(kept) if said == "," and last not in ("", "[", "{", ",", ":") else -1
            last = said
        kept.append(said)
    return "".join(kept)


def _require_new(said: str, names: set[str], text: str, token: re.Match[str]) -> None:
    try:
        name = json.loads(said)
    except ValueError:
        return  # `loads` will say so
    if name in names:
        raise ValueError(f"the key {name!r} stands there twice: {_line(text, token)}")
    names.add(name)


def _line(text: str, token: re.Match[str]) -> str:
    return f"line {text.count(chr(10), 0, token.start()) + 1}"


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
