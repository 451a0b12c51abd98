"""Texts of a shell, read by the grammar of bash. Pure."""

import re
from typing import TYPE_CHECKING

from opencode_tasks.policy.arguments import names
from opencode_tasks.policy.script import Script, Simple

if TYPE_CHECKING:
    from tree_sitter import Language, Parser

# Of what it cannot read the grammar takes the square of the length: some seconds for this much of `a=(a=(a=(…`.
# It can be told to stop, but that crashes the process (tree-sitter 0.25.0 to 0.26.0).
LONGEST = 16 * 1024
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
    """A text that is longer than `LONGEST` is not read."""
    words = plain(text)
    if words is not None:
        return Script((Simple(words),))
    text_b = text.replace("\0", "").replace("\1", "").encode(errors="replace")
    if len(text_b) > LONGEST:
        return Script((), whole=False)
    tree = _parser().parse(text_b)
    from opencode_tasks.policy.syntax import Reading

    reading = Reading(text_b)
    reading.walk(tree.root_node, ())
    return Script(tuple(reading.commands), whole=not (tree.root_node.has_error or reading.is_cut))


_made: "list[Language]" = []


def _parser() -> "Parser":
    """A new one each time: two threads cannot share one."""
    import tree_sitter

    if not _made:
        import tree_sitter_bash

        _made.append(tree_sitter.Language(tree_sitter_bash.language()))
    return tree_sitter.Parser(_made[0])
