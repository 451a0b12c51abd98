"""A text of a shell as the simple commands that it would run, in their order. Pure.

What only the running shell knows (a variable, the output of a command) stands in a word as `UNKNOWN`; where it would
be a list of files, as `LISTED`. Neither can be in a real argument.
"""

from opencode_tasks.values import value

UNKNOWN, LISTED = "\0", "\1"


@value
class Simple:
    """One command. `writes`: what `>` names. `text`: its standard input, if the text itself holds that.

    `fed`: the commands whose output it reads. `within`: those in its own words, as in `sh -c "$(curl …)"`. Commands
    of one `scope` share a working directory; a subshell's scope is longer.
    """

    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    text: str | None = None
    fed: "tuple[Simple, ...]" = ()
    within: "tuple[Simple, ...]" = ()
    scope: tuple[int, ...] = ()


@value
class Script:
    """`whole` is False where the grammar found no meaning, or a bound was reached."""

    commands: tuple[Simple, ...]
    whole: bool = True
