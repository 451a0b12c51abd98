"""What `[environment]` and `[secrets]` of the settings may say: plain values, and where the host has a value. Pure."""

import re
from collections.abc import Mapping
from typing import Literal

from opencode_tasks.values import value

Table = Literal["environment", "secrets"]
TABLES: tuple[Table, ...] = ("environment", "secrets")
MOST = 64
_ENV, _FILE = "env://", "file://"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*\Z"
_FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z"
# The home is the container's own, and the way out of it is a decision of its own.
_OURS = r"(?i)HOME\Z|OPENCODE_TASK|(?:https?|ftp|all|no)_proxy\Z"


@value
class Reference:
    """`source`: `env://NAME` or `file://PATH`. In `environment` it becomes a variable, in `secrets` a file."""

    table: Table
    name: str
    source: str

    @property
    def variable(self) -> str | None:
        """Of the host's environment; None for a file."""
        return self.source.removeprefix(_ENV) if self.source.startswith(_ENV) else None

    @property
    def path(self) -> str:
        """As it is written: absolute, below `~/`, or relative to the main checkout."""
        return self.source.removeprefix(_FILE)

    @property
    def said(self) -> str:
        return f"{self.name}={self.source}"


def of(tables: Mapping[Table, Mapping[str, str]]) -> list[Reference]:
    return [Reference(t, name, said) for t in TABLES for name, said in tables[t].items() if is_reference(said)]


def is_reference(said: str) -> bool:
    return said.startswith((_ENV, _FILE))


def fault(table: Table, name: str, said: object) -> tuple[str, str] | None:
    """What is wrong with the entry, and the way out."""
    if table == "environment" and not re.match(_VARIABLE, name):
        return f"{name!r} is no name of a variable", "letters, digits and _, not beginning with a digit"
    if table == "environment" and re.match(_OURS, name):
        return f"{name} is set by opencode-tasks", "give the variable another name"
    if table == "secrets" and not re.match(_FILE_NAME, name):
        return f"{name!r} is no name of a file", "letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    if not isinstance(said, str):
        return f"{name} is no string", 'put the value in quotes, as in NAME = "1"'
    return _fault_of_value(table, name, said)


def _fault_of_value(table: Table, name: str, said: str) -> tuple[str, str] | None:
    if "\0" in said:
        return f"{name} has a NUL in it", "no variable and no path can have one"
    if not is_reference(said):
        hint = f'say where the value is: {name} = "env://{name.upper()}" or "file://~/…"'
        return (f"{name} is no reference, and this file is no place for a secret", hint) if table == "secrets" else None
    if said.startswith(_ENV) and not re.match(_VARIABLE, said.removeprefix(_ENV)):
        return f"{name}: {said!r} names no variable", "env://NAME"
    path = said.removeprefix(_FILE)
    named_home = path.startswith("~") and not path.startswith("~/")
    if said.startswith(_FILE) and (not path.strip("/") or path.endswith("/") or named_home or not path.isprintable()):
        return f"{name}: {said!r} names no file", "file:///absolute, file://~/in-your-home or file://in/the/repository"
    return None
