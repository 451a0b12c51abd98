"""What a program is known for, by its name. Pure."""

from collections.abc import Iterable, Mapping

from opencode_tasks.policy import databases, deleting, formatting, git_calls, gitting, remotes
from opencode_tasks.policy.arguments import given, names
from opencode_tasks.policy.deleting import Rule
from opencode_tasks.policy.findings import Look
from opencode_tasks.policy.wrappers import Inner, name_of

_Words = tuple[str, ...]
_RULES: Mapping[str, Rule] = {**deleting.RULES, **formatting.RULES, **databases.RULES, **remotes.RULES}
_SCRIPTS = names("npm pnpm yarn bun make gmake just task composer")


def look_at(words: _Words, text: str | None, look: Look) -> Iterable[Inner]:
    """Labels what the program is known for, and gives what it runs besides. `text`: what it reads, if that is known."""
    name = name_of(words)
    if name == "git":
        return gitting.run(git_calls.call(words), look)
    if name in databases.CLIENTS:
        databases.sql(words, text, look)
    elif name in _SCRIPTS:
        return _script(name, words[1:], look)
    rule = _rule(name)
    return rule(words[1:], look) if rule is not None else ()


def _rule(name: str) -> Rule | None:
    if name.startswith("typeorm"):
        return _RULES["typeorm"]
    return _RULES["mkfs"] if name.startswith("mkfs.") else _RULES.get(name)


_FORMATS = names("format fmt lint:fix lint-fix fix format:write prettier:write codemod")
_RUNS = frozenset(("run", "run-script", "rum", "urn"))


def _script(name: str, rest: _Words, look: Look) -> Iterable[Inner]:
    """`npm run x`, `make x`."""
    operands = given(rest, with_value="Cfj" if name == "make" else "").operands
    if name in {"npm", "pnpm"}:
        operands = operands[1:2] if operands[:1] and operands[0] in _RUNS else ()
    elif operands[:1] and operands[0] in _RUNS:
        operands = operands[1:2]
    if _FORMATS & set(operands) or ("--fix" in rest and name != "make"):
        look.label("codemod")
    return databases.task(operands, look)
