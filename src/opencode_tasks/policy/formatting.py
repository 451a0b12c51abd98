"""Programs that rewrite many files in place. Pure."""

from collections.abc import Iterable, Mapping

from opencode_tasks.policy.arguments import given
from opencode_tasks.policy.deleting import Rule
from opencode_tasks.policy.findings import Look
from opencode_tasks.policy.wrappers import Inner

_Words = tuple[str, ...]


def _sed(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="efl", valued=("--expression", "--file"))
    if any(name in {"-i", "-I"} or name.startswith("--in-place") for name, _ in said.options):
        look.label("codemod")
        files = said.operands if said.has("-e", "-f", "--expression", "--file") else said.operands[1:]
        look.changed(*files)
    return ()


def _perl(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="eEIMm")
    # Reading its input from a pipe, -i has nothing to write to.
    if said.has("-i") and said.has("-e", "-E") and said.operands:
        look.label("codemod")
        look.changed(*said.operands)
    return ()


def _rewrites(verbs: Iterable[str] = (), *, only_with: Iterable[str] = (), unless: Iterable[str] = ()) -> Rule:
    """`codemod` when its first operand is one of `verbs`, it has one of `only_with`, and none of `unless`."""
    wanted, needed, harmless = frozenset(verbs), frozenset(only_with), frozenset((*unless, "--help", "--version", "-h"))

    def look_at(rest: _Words, look: Look) -> Iterable[Inner]:
        first = next((word for word in rest if not word.startswith("-")), "")
        named = {word.partition("=")[0] for word in rest}
        if (not wanted or first in wanted) and (not needed or needed & named) and not harmless & named:
            look.label("codemod")
        return ()

    return look_at


def _codemod(rest: _Words, look: Look) -> Iterable[Inner]:
    if not {"--dry", "-d", "--dry-run", "--help"} & set(rest):
        look.label("codemod")
    return ()


def _ruff(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest)
    verb = "".join(said.operands[:1])
    is_dry = said.has("--diff", "--check")
    if not is_dry and (verb == "format" or said.has("--fix", "--fix-only", "--unsafe-fixes", "--add-noqa")):
        look.label("codemod")
    return ()


def _ast_grep(rest: _Words, look: Look) -> Iterable[Inner]:
    if {"-U", "--update-all"} & set(rest):
        look.label("codemod")
    return ()


def _cargo(rest: _Words, look: Look) -> Iterable[Inner]:
    is_format = rest[:1] == ("fmt",) and "--check" not in rest
    if is_format or rest[:1] == ("fix",) or (rest[:1] == ("clippy",) and "--fix" in rest):
        look.label("codemod")
    return ()


RULES: Mapping[str, Rule] = {
    "sed": _sed,
    "gsed": _sed,
    "perl": _perl,
    "ruff": _ruff,
    "cargo": _cargo,
    "black": _rewrites(unless=("--check", "--diff")),
    "isort": _rewrites(unless=("--check", "--check-only", "-c", "--diff")),
    "autopep8": _rewrites(only_with=("-i", "--in-place")),
    "yapf": _rewrites(only_with=("-i", "--in-place")),
    "autoflake": _rewrites(only_with=("-i", "--in-place")),
    "pyupgrade": _rewrites(),
    "2to3": _rewrites(only_with=("-w",)),
    "prettier": _rewrites(only_with=("--write", "-w")),
    "eslint": _rewrites(only_with=("--fix",)),
    "stylelint": _rewrites(only_with=("--fix",)),
    "markdownlint": _rewrites(only_with=("--fix", "-f")),
    "biome": _rewrites(only_with=("--write", "--apply", "--fix", "--apply-unsafe")),
    "standard": _rewrites(only_with=("--fix",)),
    "gofmt": _rewrites(only_with=("-w",)),
    "goimports": _rewrites(only_with=("-w",)),
    "go": _rewrites(("fmt", "fix")),
    "rustfmt": _rewrites(unless=("--check",)),
    "dotnet": _rewrites(("format",), unless=("--verify-no-changes",)),
    "swift": _rewrites(("format",), only_with=("--in-place", "-i")),
    "dprint": _rewrites(("fmt",)),
    "rubocop": _rewrites(only_with=("-a", "-A", "--autocorrect", "--autocorrect-all", "--auto-correct")),
    "clang-format": _rewrites(only_with=("-i",)),
    "shfmt": _rewrites(only_with=("-w",)),
    "ktlint": _rewrites(only_with=("-F",)),
    "swiftformat": _rewrites(unless=("--lint",)),
    "php-cs-fixer": _rewrites(("fix",), unless=("--dry-run",)),
    "pre-commit": _rewrites(("run",)),
    "jscodeshift": _codemod,
    "codemod": _codemod,
    "ts-codemod": _codemod,
    "ast-grep": _ast_grep,
    "sg": _ast_grep,
    "comby": _rewrites(only_with=("-i", "-in-place")),
}
