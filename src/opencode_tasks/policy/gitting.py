"""What git commands throw away. Pure."""

from collections.abc import Callable, Iterable, Mapping

from opencode_tasks.policy.arguments import Given, given, names
from opencode_tasks.policy.findings import Findings, Look
from opencode_tasks.policy.git_calls import Call
from opencode_tasks.policy.wrappers import Inner

_Words = tuple[str, ...]
# What a path has and a branch has not, in all likelihood.
_SUFFIXES = names(
    "py pyi js jsx ts tsx mjs cjs json md txt toml yaml yml lock c h cc cpp hpp go rs java kt rb php css scss "
    "html vue svelte sh sql cfg ini conf xml csv swift gradle env example snap log png svg ipynb"
)
_NAMES = frozenset(("Makefile", "Dockerfile", "Gemfile", "LICENSE", "README", "Pipfile", "Cargo.lock"))


def run(made: Call, look: Look) -> Iterable[Inner]:
    """Labels what it throws away in the repository of `look.cwd`, and gives what it runs besides."""
    text = dict(made.aliases).get(made.verb)
    if text is not None:
        tail = " ".join(made.rest)
        return (Inner(text=f"{text[1:]} {tail}" if text.startswith("!") else f"git {text} {tail}"),)
    risk = _RISKS.get(made.verb)
    if risk is None:
        return ()
    own = Look(Findings(look.found.workspace, is_elsewhere=look.found.is_elsewhere), look.cwd, look.roots)
    found = risk(made.rest, own)
    if own.found.labels - {"git-push-force"}:
        own.found.changed(".", look.cwd)
    look.found.take(own.found)
    return found


def _lost(look: Look, *words: str) -> None:
    look.found.lost("git's own files", "git " + " ".join(words))


def _reset(rest: _Words, look: Look) -> Iterable[Inner]:
    if {"--hard", "--merge"} & set(rest):
        look.label("git-reset-hard")
    return ()


def _aborted(rest: _Words, look: Look) -> Iterable[Inner]:
    """--abort is a reset to where it began."""
    if {"--abort", "--skip"} & set(rest):
        look.label("git-reset-hard")
    return ()


def _read_tree(rest: _Words, look: Look) -> Iterable[Inner]:
    if "--reset" in rest and "-u" in rest:
        look.label("git-reset-hard")
    return ()


def _clean(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="e", valued=("--exclude",))
    if said.has("-n", "--dry-run"):
        return ()
    look.label("git-clean")
    if said.has("-x", "-X"):
        look.found.lost("ignored files", "git clean " + " ".join(rest))
    return ()


def _checkout(rest: _Words, look: Look) -> Iterable[Inner]:
    before = rest[: rest.index("--")] if "--" in rest else rest
    said = given(before, with_value="bB", valued=("--orphan", "--conflict", "--pathspec-from-file"))
    paths = rest[len(before) + 1 :]
    makes = said.has("-b", "-B", "--orphan")
    if said.has("-f", "--force"):
        look.label("git-checkout-force")
    elif _has_paths_only(said) or (not makes and (paths or _names_paths(said, is_ended="--" in rest))):
        look.label("git-checkout-paths")
    return ()


def _has_paths_only(said: Given) -> bool:
    return said.has("-p", "--patch", "--ours", "--theirs", "--pathspec-from-file")


def _names_paths(said: Given, *, is_ended: bool) -> bool:
    """Without `--`, one word may be a branch; of two, the second is a path (or the branch that -t follows)."""
    if is_ended or said.has("-t", "--track", "-d", "--detach"):
        return False
    return len(said.operands) > 1 or any(_is_path(word) for word in said.operands)


def _is_path(word: str) -> bool:
    last = word.rpartition("/")[2]
    if word in {".", ".."} or word.startswith(("./", "../", ":/", ":(")) or word.endswith("/") or "*" in word:
        return True
    return last in _NAMES or (last.rpartition(".")[2] in _SUFFIXES and "." in last)


def _switch(rest: _Words, look: Look) -> Iterable[Inner]:
    if given(rest, with_value="cC").has("-f", "--force", "--discard-changes"):
        look.label("git-checkout-force")
    return ()


def _restore(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="s", valued=("--source",))
    if said.has("-W", "--worktree") or not said.has("-S", "--staged"):
        look.label("git-restore")
    return ()


def _stash(rest: _Words, look: Look) -> Iterable[Inner]:
    verb = "".join(rest[:1])
    if verb in {"list", "show", "create", "store"}:
        return ()
    look.label("git-stash")
    if verb in {"drop", "clear"}:
        _lost(look, "stash", *rest)
    return ()


def _rebase(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="xsXC", valued=("--exec", "--onto", "--strategy"))
    if said.has("--edit-todo", "--show-current-patch", "--quit"):
        return ()
    look.label("git-rebase")
    return tuple(Inner(text=text) for name, text in said.options if name in {"-x", "--exec"})


def _pull(rest: _Words, look: Look) -> Iterable[Inner]:
    if any(name in {"-r", "--rebase"} and said != "false" for name, said in given(rest).options):
        look.label("git-rebase")
    return ()


def _branch(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="u")
    if said.has("-d", "-D", "--delete"):
        look.label("git-branch-delete")
        _lost(look, "branch", *rest)
    elif said.has("-f", "--force", "-M", "-C"):
        look.label("git-history")
        _lost(look, "branch", *rest)
    return ()


def _push(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="o")
    forces = said.has(
        "-f", "--force", "--mirror", "-d", "--delete", "--prune", "--force-with-lease", "--force-if-includes"
    )
    if (forces or any(word[:1] in {"+", ":"} for word in said.operands)) and not said.has("-n", "--dry-run"):
        look.label("git-push-force")
        look.found.lost("remote", "git push " + " ".join(rest))
    return ()


def _rewritten(verb: str, *needed: str) -> Callable[[_Words, Look], Iterable[Inner]]:
    """Rewrites history, or drops what is left of it, when it has one of `needed` (each may go on)."""

    def look_at(rest: _Words, look: Look) -> Iterable[Inner]:
        if not needed or any(word.startswith(needed) for word in rest):
            look.label("git-history")
            _lost(look, verb, *rest)
        return ()

    return look_at


def _worktree(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest)
    if said.operands[:1] == ("remove",) and said.has("-f", "--force"):
        look.label("git-worktree-remove")
        look.changed(*said.operands[1:])
    return ()


def _rm(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest)
    if not said.has("--cached", "-n", "--dry-run"):
        if said.has("-r"):
            look.label("rm-recursive")
        look.changed(*said.operands)
    return ()


def _submodule(rest: _Words, _: Look) -> Iterable[Inner]:
    if "foreach" not in rest:
        return ()
    words = tuple(word for word in rest[rest.index("foreach") + 1 :] if word not in {"--recursive", "--quiet", "-q"})
    return (Inner(text=words[0]) if len(words) == 1 else Inner(words),)


def _bisect(rest: _Words, _: Look) -> Iterable[Inner]:
    return (Inner(rest[1:]),) if rest[:1] == ("run",) else ()


_RISKS: Mapping[str, Callable[[_Words, Look], Iterable[Inner]]] = {
    "reset": _reset,
    "merge": _aborted,
    "cherry-pick": _aborted,
    "revert": _aborted,
    "am": _aborted,
    "read-tree": _read_tree,
    "clean": _clean,
    "checkout": _checkout,
    "switch": _switch,
    "restore": _restore,
    "stash": _stash,
    "rebase": _rebase,
    "pull": _pull,
    "branch": _branch,
    "push": _push,
    "worktree": _worktree,
    "rm": _rm,
    "submodule": _submodule,
    "bisect": _bisect,
    "filter-branch": _rewritten("filter-branch"),
    "filter-repo": _rewritten("filter-repo"),
    "reflog": _rewritten("reflog", "expire", "delete", "drop"),
    "gc": _rewritten("gc", "--prune"),
    "prune": _rewritten("prune"),
    "update-ref": _rewritten("update-ref", "-d", "--stdin"),
    "tag": _rewritten("tag", "-d", "--delete"),
}
