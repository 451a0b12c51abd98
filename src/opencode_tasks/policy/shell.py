"""Texts of a shell, read by the grammar of bash. Pure, but for the clock that bounds it."""

import re
import time
from typing import TYPE_CHECKING

from opencode_tasks.policy.arguments import names
from opencode_tasks.policy.script import Script, Simple

if TYPE_CHECKING:
    from tree_sitter import Parser, Tree

# The grammar takes the square of the length of what it cannot read, and looks at the clock too seldom: 2 s for this.
LONGEST = 32 * 1024
_SLOWEST_S = 1.0
_PLAIN = re.compile(r"[\w./:@%+,=^-]+(?: [\w./:@%+,=^-]+)*\Z")
_RESERVED = names(
    "if then elif else fi while until for do done case esac function select in time coproc eval exec trap"
)


def plain(text: str) -> tuple[str, ...] | None:
    """The words of a text that any shell takes as they are, without the parser; None for every other text."""
    if not _PLAIN.match(text):
        return None
    words = tuple(text.split(" "))
    return None if "=" in words[0] or words[0] in _RESERVED else words


def read(text: str) -> Script:
    """Takes time in proportion to the text, and never more than its bounds allow."""
    words = plain(text)
    if words is not None:
        return Script((Simple(words),))
    text_b = text.replace("\0", "").replace("\1", "").encode(errors="replace")
    if len(text_b) > LONGEST:
        return Script((), whole=False)
    tree = _tree(text_b)
    if tree is None:
        return Script((), whole=False)
    from opencode_tasks.policy.syntax import Reading

    reading = Reading(text_b)
    reading.walk(tree.root_node, ())
    return Script(tuple(reading.commands), whole=not (tree.root_node.has_error or reading.is_cut))


def _tree(text_b: bytes) -> "Tree | None":
    """None after a second of work (`<<<<<…`)."""
    parser, until = _parser(), time.thread_time() + _SLOWEST_S
    try:
        return parser.parse(lambda at, _: text_b[at:], progress_callback=lambda *_: time.thread_time() > until)
    except ValueError:
        parser.reset()
        return None


_made: "list[Parser]" = []


def _parser() -> "Parser":
    if not _made:
        import tree_sitter
        import tree_sitter_bash

        _made.append(tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language())))
    return _made[0]
