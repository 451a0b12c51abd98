"""Which rule a program has, by its name. Pure."""

from collections.abc import Iterable, Mapping

from opencode_tasks.policy import databases, deleting, formatting, remotes
from opencode_tasks.policy.arguments import given, names
from opencode_tasks.policy.deleting import Look, Rule
from opencode_tasks.policy.wrappers import Inner, name_of

_Words = tuple[str, ...]
_RULES: Mapping[str, Rule] = {**deleting.RULES, **formatting.RULES, **databases.RULES, **remotes.RULES}
SCRIPTS = names("npm pnpm yarn bun make gmake just task composer")


def rule(words: _Words) -> Rule | None:
    name = name_of(words)
    if name.startswith("typeorm"):
        return _RULES["typeorm"]
    return _RULES["mkfs"] if name.startswith("mkfs.") else _RULES.get(name)


_FORMATS = names("format fmt lint:fix lint-fix fix format:write prettier:write codemod")
_RUNS = frozenset(("run", "run-script", "rum", "urn"))


def script(name: str, rest: _Words, look: Look) -> Iterable[Inner]:
    """`npm run x`, `make x`."""
    operands = given(rest, with_value="Cfj" if name == "make" else "").operands
    if name in {"npm", "pnpm"}:
        operands = operands[1:2] if operands[:1] and operands[0] in _RUNS else ()
    elif operands[:1] and operands[0] in _RUNS:
        operands = operands[1:2]
    if _FORMATS & set(operands) or ("--fix" in rest and name != "make"):
        look.label("codemod")
    return databases.task(operands, look)
