"""How git is called, and which calls only look. Pure."""

import re
from collections.abc import Callable, Mapping

from opencode_tasks.policy.arguments import Given, given, names
from opencode_tasks.values import value

_Words = tuple[str, ...]


@value
class Call:
    """`git -C … -c … VERB rest`. `within`: the folders that it goes to first. `aliases`: given on the command line."""

    verb: str
    rest: _Words
    within: _Words = ()
    settings: _Words = ()
    aliases: tuple[tuple[str, str], ...] = ()


def call(words: _Words) -> Call:
    within: list[str] = []
    settings: list[str] = []
    aliases: list[tuple[str, str]] = []
    at = 1
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        said = "".join(words[at + 1 : at + 2])
        if word == "-C":
            within.append(said)
        elif word in {"-c", "--config-env"}:
            settings.append(said)
            name, _, text = said.partition("=")
            if name.lower().startswith("alias."):
                aliases.append((name[6:], text))
        at += 2 if word in {"-C", "-c", "--config-env", "--git-dir", "--work-tree", "--namespace", "--exec-path"} else 1
    verb = words[at] if at < len(words) else ""
    return Call({"co": "checkout"}.get(verb, verb), words[at + 1 :], tuple(within), tuple(settings), tuple(aliases))


_LOOKS = names(
    "status log diff show rev-parse ls-files ls-tree cat-file blame annotate grep describe shortlog rev-list "
    "merge-base name-rev for-each-ref diff-tree diff-index diff-files check-ignore check-attr count-objects var "
    "version help whatchanged range-diff show-ref show-branch cherry ls-remote merge-tree verify-commit get- "
    "tar-commit-id"
)
_LOOKING_VERBS: Mapping[str, frozenset[str]] = {
    "stash": frozenset(("list", "show")),
    "worktree": frozenset(("list",)),
    "remote": frozenset(("show", "get-url", "")),
    "submodule": frozenset(("status", "summary")),
    "reflog": frozenset(("show", "exists", "")),
    "notes": frozenset(("list", "show")),
    "bisect": frozenset(("log", "view")),
}
_HARMLESS_SETTING = r"(?:color\.|core\.quotepath=|core\.pager=(?:cat|less)?\Z|log\.|advice\.|safe\.directory=)"


def only_looks(made: Call) -> bool:
    """Whether it is known to change nothing; refreshing the index counts as nothing."""
    if made.aliases or not all(re.match(_HARMLESS_SETTING, setting, re.IGNORECASE) for setting in made.settings):
        return False
    rest, said = made.rest, given(made.rest)
    if any(name in {"--output", "-O", "--open-files-in-pager", "--ext-diff", "--textconv"} for name, _ in said.options):
        return False
    if made.verb in _LOOKS or made.verb in {"", "--version"}:
        return True
    check = _CHECKS.get(made.verb)
    if check is not None:
        return check(rest, said)
    return made.verb in _LOOKING_VERBS and "".join(said.operands[:1]) in _LOOKING_VERBS[made.verb]


def _branches(_: _Words, said: Given) -> bool:
    if said.has("--list", "--merged", "--no-merged", "--contains", "--show-current", "--points-at", "-l"):
        return True
    changes = said.has("-d", "-D", "-m", "-M", "-c", "-C", "--unset-upstream", "--edit-description")
    return not said.operands and not changes


def _tags(rest: _Words, said: Given) -> bool:
    return not rest or said.has("-l", "--list", "--contains", "--points-at")


def _configures(_: _Words, said: Given) -> bool:
    return said.has("--get", "--get-all", "--get-regexp", "-l", "--list") or said.operands[:1] in (("get",), ("list",))


_CHECKS: Mapping[str, Callable[[_Words, Given], bool]] = {
    "branch": _branches,
    "tag": _tags,
    "config": _configures,
    "clean": lambda _, said: said.has("-n", "--dry-run"),
}
