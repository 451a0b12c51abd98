"""Where two versions of a file differ, from `git diff-tree --patch`. Pure.

No path is taken from a patch, and no line of a file is taken for one of the patch's own: a section is known by the two
blobs that its `index` line names in full. A file's lines begin with `+`, `-`, a space or a backslash, and git quotes
line breaks in paths: what we look for at the beginning of a line is git's own.
"""

import io
import re
from collections.abc import Sequence

Hunk = tuple[int, int, int, int]
"""First line and number of lines before, then after, as in `@@ -10,2 +12,5 @@`."""

_MOST = 500
_INDEX = re.compile(rb"index ([0-9a-f]{40,64})\.\.([0-9a-f]{40,64})(?: [0-7]+)?\n")
_HEAD = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")


def parsed(patch_b: bytes) -> dict[str, list[Hunk] | None]:
    """`<blob before> <blob after>` to the hunks between the two; None where git compared no lines."""
    found: dict[str, list[Hunk] | None] = {}
    hunks: list[Hunk] = []
    pair = ""
    for line in io.BytesIO(patch_b):
        if index := _INDEX.fullmatch(line):
            pair = f"{index[1].decode()} {index[2].decode()}"
            found[pair] = hunks = []
        elif line.startswith(b"Binary files "):
            found[pair] = None
        elif head := _HEAD.match(line):
            start, count, new_start, new_count = (1 if n is None else int(n) for n in head.groups())
            hunks.append((start, count, new_start, new_count))
    return {pair: None if hunks is None else _bounded(hunks) for pair, hunks in found.items()}


def _bounded(hunks: list[Hunk]) -> list[Hunk]:
    """Of very many one that holds them all."""
    if len(hunks) <= _MOST:
        return hunks
    first, last = hunks[0], hunks[-1]
    return [(first[0], last[0] + last[1] - first[0], first[2], last[2] + last[3] - first[2])]


def touching(ours: Sequence[Hunk], theirs: Sequence[Hunk]) -> list[Hunk]:
    """Those of ours that overlap or adjoin one of theirs, by their lines before: where a merge asks a person."""
    spans = [_span(hunk) for hunk in theirs]
    return [o for o in ours if any(start <= _span(o)[1] and _span(o)[0] <= end for start, end in spans)]


def _span(hunk: Hunk) -> tuple[int, int]:
    """Between which gaps of the lines before: gap 0 is above the first line. Nothing but new lines is one gap."""
    start, count = hunk[:2]
    return (start, start) if count == 0 else (start - 1, start - 1 + count)
