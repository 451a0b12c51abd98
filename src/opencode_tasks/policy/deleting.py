"""Programs that delete, replace or rework files, and what of that is a risk. Pure."""

from collections.abc import Callable, Iterable, Mapping

from opencode_tasks.policy.arguments import executed, given
from opencode_tasks.policy.findings import Look
from opencode_tasks.policy.script import LISTED, UNKNOWN
from opencode_tasks.policy.wrappers import Inner

_Words = tuple[str, ...]


Rule = Callable[[_Words, Look], Iterable[Inner]]


def _rm(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest)
    is_tree = said.has("-r", "-R") or any(len(o) > 4 and "--recursive".startswith(o) for o, _ in said.options)
    if is_tree:
        look.label("rm-recursive")
    if any(LISTED in word for word in said.operands):
        look.label("find-delete")
    look.changed(*said.operands, is_tree=is_tree)
    return ()


def _tree(rest: _Words, look: Look) -> Iterable[Inner]:
    """rimraf and its like."""
    look.label("rm-recursive")
    look.changed(*(path for path in given(rest).operands if not path.startswith("!")), is_tree=True)
    return ()


_MOST_ROOTS = 8
_BEFORE_TESTS = frozenset(("-H", "-L", "-P", "-D"))
_HARMLESS_TESTS = frozenset(
    ("-depth", "-d", "-mindepth", "-maxdepth", "-xdev", "-mount", "-print", "-delete", "-o", "-a")
)


def _find(rest: _Words, look: Look) -> Iterable[Inner]:
    roots = []
    for word in rest:
        if word in _BEFORE_TESTS or word.startswith("-O"):
            continue
        if word[:1] in {"-", "(", "!"}:
            break
        roots.append(word)
    roots = roots or ["."]
    if "-delete" in rest:
        look.label("find-delete")
        is_all = not any(word.startswith("-") and word not in _HARMLESS_TESTS and word not in roots for word in rest)
        look.changed(*roots, is_tree=is_all)
    for at, word in enumerate(rest):
        if word.startswith(("-fprint", "-fls")):
            look.changed(*rest[at + 1 : at + 2])
    for command in executed(rest)[:_MOST_ROOTS]:
        for root in roots[:_MOST_ROOTS]:
            yield Inner(tuple(word.replace("{}", f"{root}/{LISTED}") for word in command))


def _fd(rest: _Words, _: Look) -> Iterable[Inner]:
    for at, word in enumerate(rest):
        if word in {"-x", "-X", "--exec", "--exec-batch"}:
            return (Inner((*(w.replace("{}", LISTED) for w in rest[at + 1 :]), LISTED)),)
    return ()


_XARGS_VALUES = frozenset(
    ("-n", "-P", "-L", "-d", "-s", "-a", "-E", "--max-args", "--max-procs", "--delimiter", "--arg-file")
)


def _xargs(rest: _Words, _: Look) -> Iterable[Inner]:
    at, mark = 0, ""
    while at < len(rest) and rest[at].startswith("-"):
        if rest[at] in {"-I", "--replace"}:
            mark = "".join(rest[at + 1 : at + 2])
            at += 1
        elif rest[at].startswith("-I"):
            mark = rest[at][2:]
        elif rest[at] in _XARGS_VALUES:
            at += 1
        at += 1
    command = rest[at:]
    if not command:
        return ()
    if mark:
        return (Inner(tuple(word.replace(mark, LISTED) for word in command)),)
    return (Inner((*command, LISTED)),)


def _parallel(rest: _Words, _: Look) -> Iterable[Inner]:
    end = next((n for n, word in enumerate(rest) if word.startswith(":::")), len(rest))
    at = 0
    while at < end and rest[at].startswith("-"):
        at += 2 if rest[at] in {"-j", "-P", "-n", "-N", "--jobs", "-a", "-I"} else 1
    command, named = rest[at:end], rest[end + 1 :]
    if len(command) == 1 and " " in command[0]:
        return (Inner(text=command[0].replace("{}", named[0] if len(named) == 1 else UNKNOWN)),)
    filled = [tuple(word.replace("{}", name) for word in command) for name in named or (LISTED,)]
    return tuple(Inner(words if words != command else (*words, LISTED)) for words in filled[:_MOST_ROOTS])


def _moved(rest: _Words, look: Look) -> Iterable[Inner]:
    _into(rest, look, "-f", takes_sources=True)
    return ()


def _copied(rest: _Words, look: Look) -> Iterable[Inner]:
    _into(rest, look, "-f")
    return ()


def _linked(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="tS")
    # -n: only a link is replaced, and what it leads to stays.
    if said.has("-f", "--force") and not said.has("-n", "-T", "--no-dereference"):
        look.label("overwrite")
    look.changed(*(said.operands[-1:] if len(said.operands) > 1 else ()))
    return ()


def _into(rest: _Words, look: Look, *force: str, takes_sources: bool = False) -> None:
    said = given(rest, with_value="tS", valued=("--target-directory", "--suffix"))
    if said.has("--force", *force):
        look.label("overwrite")
    target = said.of("-t", "--target-directory")
    paths = said.operands if target is None else (*said.operands, target)
    look.changed(*(paths if takes_sources else paths[-1:]))


def _truncate(rest: _Words, look: Look) -> Iterable[Inner]:
    look.label("overwrite")
    look.changed(*given(rest, with_value="sr", valued=("--size", "--reference")).operands)
    return ()


def _rsync(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="efM", valued=("--exclude", "--include", "--filter", "--rsh", "--files-from"))
    if any(name.startswith("--del") for name, _ in said.options):
        look.label("overwrite")
    target = "".join(said.operands[-1:])
    if ":" not in target:
        look.changed(target)
    elif "overwrite" in look.found.labels:
        look.found.lost("remote", "rsync --delete " + target)
    return ()


def _unzip(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="dx")
    if said.has("-o"):
        look.label("overwrite")
    look.changed(*filter(None, [said.of("-d")]))
    return ()


def _dd(rest: _Words, look: Look) -> Iterable[Inner]:
    target = next((word[3:] for word in rest if word.startswith("of=")), "")
    if target and target not in {"/dev/null", "/dev/stdout"}:
        look.label("disk")
        look.changed(target)
    return ()


def _disk(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest, with_value="Lntbs")
    if not said.has("-l", "--list", "--help", "--version", "-V"):
        look.label("disk")
        look.changed(*(path for path in said.operands if "/" in path or "." in path))
    return ()


def _shred(rest: _Words, look: Look) -> Iterable[Inner]:
    look.label("disk")
    look.changed(*given(rest, with_value="ns").operands)
    return ()


def _modes(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(rest)
    if said.has("-R", "--recursive") or any(LISTED in word for word in said.operands):
        look.label("permissions")
    look.changed(*said.operands[0 if said.has("--reference") else 1 :])
    return ()


def _named(rest: _Words, look: Look) -> Iterable[Inner]:
    """Programs that make or take away just the paths they are given."""
    look.changed(*given(rest, with_value="mdr").operands)
    return ()


def _fetched(rest: _Words, look: Look) -> Iterable[Inner]:
    said = given(
        rest, with_value="oOHXdFuAbeTPL" if rest else "", valued=("--output", "--header", "--data", "--request")
    )
    look.changed(*filter(None, [said.of("-o", "--output")]))
    return ()


def _installed(rest: _Words, look: Look) -> Iterable[Inner]:
    _into(rest, look)
    return ()


RULES: Mapping[str, Rule] = {
    "rm": _rm,
    "rimraf": _tree,
    "del-cli": _tree,
    "find": _find,
    "fd": _fd,
    "fdfind": _fd,
    "xargs": _xargs,
    "gxargs": _xargs,
    "parallel": _parallel,
    "mv": _moved,
    "cp": _copied,
    "install": _installed,
    "ln": _linked,
    "truncate": _truncate,
    "rsync": _rsync,
    "unzip": _unzip,
    "dd": _dd,
    "mkfs": _disk,
    "fdisk": _disk,
    "sfdisk": _disk,
    "parted": _disk,
    "wipefs": _disk,
    "mkswap": _disk,
    "blkdiscard": _disk,
    "shred": _shred,
    "chmod": _modes,
    "chown": _modes,
    "chgrp": _modes,
    "touch": _named,
    "mkdir": _named,
    "rmdir": _named,
    "unlink": _named,
    "tee": _named,
    "curl": _fetched,
}
