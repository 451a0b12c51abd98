"""Which of our own commands an agent may have from the shell: there is no opencode-tasks inside its container. Pure."""

import shlex
from collections.abc import Sequence

PROGRAM = "opencode-tasks"
_READING = (
    *("list-tasks", "find-task", "task-status", "task-history", "task-executions", "task-decisions", "task-stats"),
    "diff",
)
# They change the task that the agent works on, and no other.
_CHANGING = ("checkpoint", "restore-checkpoint", "complete-task", "detach")
_OPERATORS = frozenset("();<>|&")
_EXPANDED = frozenset("$`*?[{~\n\\!#")
_QUOTES = "'\""


def words_of(command: str) -> list[str] | None:
    """The words after the program's name, when `command` is one call of it and nothing else that a shell would do."""
    if not command.strip().startswith(PROGRAM):
        return None
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return None
    if words[0] != PROGRAM or _does_more(command.strip()):
        return None
    return words[1:]


def _does_more(command: str) -> bool:
    """Whether a shell would do anything but split it into words."""
    quote = ""
    for character in command:
        if character == quote:
            quote = ""
        elif not quote and character in _QUOTES:
            quote = character
        elif quote == "'":
            continue
        elif character in ("$", "`", "\\", "!") or (not quote and character in _OPERATORS | _EXPANDED):
            return True
    return False


def why_not(words: Sequence[str]) -> str:
    """Why an agent may not have it; empty when it may."""
    name = words[0] if words else ""
    if name in _READING or name in ("-h", "--help", "help", "-V", "--version", ""):
        return ""
    if name not in _CHANGING:
        return f"{name} is for the person, who runs it in a terminal or as a slash command"
    if any(word.partition("=")[0] in ("--agent", "--gc") for word in words):
        return f"{name} --agent and --gc are for the person"
    return ""


def changes(words: Sequence[str]) -> bool:
    """Whether it may change the task that it names."""
    return bool(words) and (words[0] in _CHANGING or (words[0] == "task-decisions" and "--add" in " ".join(words)))
