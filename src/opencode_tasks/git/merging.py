"""What a branch makes of its base, computed in git's objects alone: no work tree, no index and no branch is touched.

Attributes (`merge=union`) are read from the base's commit: a branch does not say how it is to be merged. No filter
runs, and of drivers only one that the base names and git's configuration knows.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing, trees
from opencode_tasks.git.branch_changes import OBJECTS_ONLY
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.proc import Completed, clean_git_env, run
from opencode_tasks.values import value

How = Literal["merge", "squash", "rebase"]

MOST_REPLAYED = 1000
_ATTRIBUTES = ".gitattributes"
_LARGEST_BYTES = 1 << 20
_USAGE = 129
_SYNTHETIC = "opencode-tasks <opencode-tasks@localhost> 0 +0000"


@value
class Merged:
    """`onto`, `tip`: what was merged; `commit`: what the base becomes, `onto` itself when it lacks nothing of `tip`."""

    onto: str
    tip: str
    commit: str
    tree: str


class Conflicting(TaskError):  # noqa: N818 (callers branch on it)
    """`paths` cannot be merged. `commit`: the one that was being replayed."""

    code = "conflict"

    def __init__(self, paths: Sequence[str], commit: str = "") -> None:
        super().__init__(f"{len(paths)} files conflict")
        self.paths, self.commit = tuple(paths), commit


def merged(main: Checkout, onto: str, tip: str, how: How, message: str) -> Merged:
    """Raises `Conflicting`, or `TaskError` when git cannot merge them at all. `message`: not of a rebase."""
    if plumbing.is_ancestor(main, tip, onto):
        return Merged(onto, tip, onto, _tree(main, onto))
    if plumbing.git(main, "merge-base", onto, tip, check=False).code != 0:
        raise TaskError(f"{tip[:9]} and {onto[:9]} have no commit in common", hint="git log --graph", code="git")
    with _merging(main, onto) as git:
        before = _tree(main, onto)
        if how == "rebase":
            commit = _replayed(git, main, onto, tip)
            return Merged(onto, tip, commit, _tree(main, commit))
        tree = _merge(git, onto, tip)
        if tree == before:
            return Merged(onto, tip, onto, before)
        parents = (onto, tip) if how == "merge" else (onto,)
        return Merged(onto, tip, _commit(git, tree, parents, message.encode(errors="surrogateescape")), tree)


def is_contained(main: Checkout, onto: str, tip: str) -> bool:
    """Whether merging `tip` into `onto` would change nothing. False where git cannot tell."""
    try:
        with _merging(main, onto) as git:
            return _merge(git, onto, tip) == _tree(main, onto)
    except TaskError:
        return False


_Git = Callable[..., Completed]


@contextmanager
def _merging(main: Checkout, onto: str) -> Iterator[_Git]:
    """Git in an empty work tree that has nothing but the attributes of `onto`."""
    with tempfile.TemporaryDirectory(prefix="opencode-tasks-merge-") as folder:
        rules = [one for one in trees.entries(main, onto, "") if one.path.rpartition("/")[2] == _ATTRIBUTES]
        rules = [one for one in rules if one.is_file and one.size_bytes <= _LARGEST_BYTES and is_plain(one.path)]
        for one, content_b in zip(rules, trees.contents(main, rules), strict=True):
            path = Path(folder, one.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_b)
        place = {"GIT_DIR": str(main.common_dir), "GIT_WORK_TREE": folder, "GIT_OPTIONAL_LOCKS": "0"}

        def git(
            *args: str, check: bool = True, stdin_b: bytes = b"", env: Mapping[str, str] | None = None
        ) -> Completed:
            argv = ("git", *QUIET, *OBJECTS_ONLY, "-c", "merge.renormalize=false", *args)
            env = clean_git_env({**place, **(env or {})})
            return run(argv, cwd=Path(folder), env=env, check=check, stdin_b=stdin_b, timeout_s=600)

        yield git


def is_plain(path: str) -> bool:
    """Whether it stays in the folder that it is put in. What a tree is said to hold may be anything."""
    return all(part not in ("", ".", "..") and part.lower() != ".git" for part in path.split("/"))


def _merge(git: _Git, ours: str, theirs: str) -> str:
    """The tree. Raises `Conflicting`."""
    done = git("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs, check=False)
    tree, *paths = done.out.split("\0")
    if done.code == 0:
        return tree.strip()
    if done.code == 1 and paths:
        raise Conflicting([path for path in paths if path])
    if done.code == _USAGE:
        raise TaskError(
            "This git cannot merge without touching files; it takes git 2.38 or later",
            hint="update git; or merge by hand, then: opencode-tasks complete-task",
            code="git",
        )
    raise TaskError(f"git could not merge: {done.err.strip()}", hint="git fsck", code="git")


def _commit(
    git: _Git,
    tree: str,
    parents: Sequence[str],
    message_b: bytes,
    *,
    author: Mapping[str, str] | None = None,
    encoding: str = "UTF-8",
) -> str:
    """By the user, and signed where they sign. Raises `TaskError`: nobody to be the author, no key."""
    asked = git("config", "--type=bool", "--get", "commit.gpgSign", check=False)
    sign = ["-S"] if asked.out.strip() == "true" else []
    words = [word for parent in parents for word in ("-p", parent)]
    said = ("-c", f"i18n.commitEncoding={encoding}", "commit-tree", tree, *words, *sign, "-F", "-")
    done = git(*said, stdin_b=message_b, env=author, check=False)
    if done.code != 0:
        raise TaskError(
            f"git could not make the commit: {done.err.strip()}",
            hint="mend what git says; nothing was changed",
            code="git",
        )
    return done.out.strip()


@value
class _Written:
    """A commit as it is. `author`: who wrote it and when, as git takes it from the environment."""

    sha: str
    tree: str
    author: Mapping[str, str]
    encoding: str
    message_b: bytes


def _replayed(git: _Git, main: Checkout, onto: str, tip: str) -> str:
    """The commits of `tip` that `onto` lacks, one after the other on top of it. The last one."""
    listed = git("rev-list", "--reverse", "--topo-order", "--parents", tip, f"^{onto}").out.splitlines()
    chain = [line.split() for line in listed]
    if any(len(words) != 2 for words in chain):
        raise TaskError(
            "The branch has a merge in it, which cannot be replayed", hint="use --merge or --squash", code="git"
        )
    if len(chain) > MOST_REPLAYED:
        raise TaskError(
            f"{len(chain)} commits are too many to replay (at most {MOST_REPLAYED})",
            hint="use --merge or --squash",
            code="git",
        )
    first = chain[0][1]
    if first == onto:
        return tip
    now, tree, before = onto, _tree(main, onto), _tree(main, first)
    for one in _read(git, [words[0] for words in chain]):
        made = _on_top(git, tree, before, one)
        # What was empty before stays, what becomes empty is in the base already.
        if made != tree or one.tree == before:
            now = _commit(git, made, (now,), one.message_b, author=one.author, encoding=one.encoding)
            tree = made
        before = one.tree
    return now


def _on_top(git: _Git, tree: str, before: str, one: _Written) -> str:
    """What `one` changed in `before`, changed in `tree`.

    Of commits made for this: git can be told the base of a merge only since 2.40.
    """
    if tree == before:
        return one.tree
    if one.tree == before:
        return tree
    base = _synthetic(git, before)
    try:
        return _merge(git, _synthetic(git, tree, base), _synthetic(git, one.tree, base))
    except Conflicting as e:
        raise Conflicting(e.paths, one.sha) from e


def _synthetic(git: _Git, tree: str, parent: str = "") -> str:
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
    lines += [f"author {_SYNTHETIC}", f"committer {_SYNTHETIC}", "", "opencode-tasks", ""]
    return git("hash-object", "-t", "commit", "-w", "--stdin", stdin_b="\n".join(lines).encode()).out.strip()


def _read(git: _Git, shas: Sequence[str]) -> Iterator[_Written]:
    out_b = git("cat-file", "--batch", stdin_b="".join(f"{sha}\n" for sha in shas).encode()).out_b
    at = 0
    for sha in shas:
        end = out_b.index(b"\n", at)
        size = int(out_b[at:end].split()[2])
        head_b, _, message_b = out_b[end + 1 : end + 1 + size].partition(b"\n\n")
        at = end + 1 + size + 1
        head = dict(line.partition(b" ")[::2] for line in reversed(head_b.split(b"\n")))
        written = _WHO.fullmatch(head[b"author"])
        if written is None:
            raise TaskError(f"Nobody is said to have written commit {sha[:9]}", hint="use --squash", code="git")
        name, email, date = (os.fsdecode(part) for part in written.groups())
        author = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": f"@{date}"}
        encoding = os.fsdecode(head.get(b"encoding", b"UTF-8"))
        yield _Written(sha, os.fsdecode(head[b"tree"]), author, encoding, message_b)


_WHO = re.compile(rb"(.*?) ?<([^<>]*)> (\d+ [-+]\d{4})", re.DOTALL)


def _tree(main: Checkout, commit: str) -> str:
    return plumbing.git(main, "--no-replace-objects", "rev-parse", "--verify", f"{commit}^{{tree}}").out.strip()
