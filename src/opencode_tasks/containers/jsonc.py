"""JSON with comments and trailing commas, as editors write it, from a hand that may be hostile. Pure.

Not a library's: json-with-comments 1.3 takes minutes for 256 KiB of `"\\` (its patterns are quadratic), and json5
reads a language that is larger. Here time is linear, depth is bounded, and a key that stands twice is an error.
"""

import json
import re
from typing import Any

DEEPEST = 64

# What is not closed reaches to the end, so that no text is read twice.
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))
    |(?P<comment>//[^\n]*+|/\*(?:.*?\*/|.*\Z))
    |(?P<space>\s++)
    |(?P<mark>[\[\]{},:])
    |(?P<word>[^\s"/\[\]{},:]++|.)""",
    re.DOTALL | re.VERBOSE,
)


def loads(text: str) -> Any:
    """Raises `ValueError` that says what is wrong."""
    return json.loads(_plain(text), object_pairs_hook=_object, parse_constant=_constant)


def _plain(text: str) -> str:
    """Comments become spaces, so that places in error messages stay; a comma before a closing bracket goes."""
    kept: list[str] = []
    depth, last, comma = 0, "", -1
    for token in _TOKEN.finditer(text):
        said, kind = token[0], token.lastgroup
        if kind == "comment":
            if said.startswith("/*") and (len(said) < 4 or not said.endswith("*/")):
                raise ValueError("a comment is not closed")
            said = re.sub(r"[^\n]", " ", said)
        elif kind != "space":
            depth += (said in ("[", "{")) - (said in ("]", "}"))
            if depth > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST}")
            if said in ("]", "}") and comma >= 0:
                kept[comma] = " "
            # Only after an element: `[,]` and `[1,,]` are as wrong as they are in JSON.
            comma = len(kept) if said == "," and last not in ("", "[", "{", ",", ":") else -1
            last = said
        kept.append(said)
    return "".join(kept)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        left = dict(pairs)
        twice = next(name for name, _ in reversed(pairs) if left.pop(name, pairs) is pairs)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
