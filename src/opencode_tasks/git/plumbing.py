"""Single git commands for the hot paths, each one process, none with the user's hooks.

`core.fsmonitor` and `core.hooksPath` name programs; we have no use for either, and a
repository can carry both.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from opencode_tasks.git import ties
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import Completed, clean_git_env, run

_KEY = "opencodetask"
QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")


def git(checkout: Checkout, *args: str, check: bool = True, stdin_b: bytes = b"") -> Completed:
    env = clean_git_env({"GIT_OPTIONAL_LOCKS": "0"})
    # safe.directory and worktrees want git's own discovery, which starts at the work tree.
    return run(("git", *QUIET, *args), cwd=checkout.top, env=env, check=check, stdin_b=stdin_b)


def head_branch(checkout: Checkout) -> str | None:
    """The branch that HEAD names, born or not; None when detached."""
    head = os.fsdecode((checkout.git_dir / "HEAD").read_bytes()).strip()
    if head == "ref: refs/heads/.invalid":  # the reftable format keeps HEAD elsewhere
        found = git(checkout, "symbolic-ref", "--quiet", "HEAD", check=False)
        head = f"ref: {found.out.strip()}" if found.code == 0 else ""
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else None


def occupying_branch(checkout: Checkout) -> str | None:
    """`head_branch`, or the branch that an unfinished rebase or bisect will return to."""
    branch = head_branch(checkout)
    if branch is not None:
        return branch
    for state in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
        try:
            name = os.fsdecode((checkout.git_dir / state).read_bytes()).strip()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return name.removeprefix("refs/heads/")
    return None


def head_commit(checkout: Checkout) -> str | None:
    """The commit HEAD is at; None before the first commit."""
    return _read_head(checkout) or commit_of(checkout, "HEAD")


def _read_head(checkout: Checkout) -> str | None:
    """As the small files say that git itself reads first; None: git has to be asked."""
    try:
        head = (checkout.git_dir / "HEAD").read_bytes().strip()
        if head.startswith(b"ref: refs/heads/"):
            head = (checkout.common_dir / os.fsdecode(head[5:])).read_bytes().strip()
    except (OSError, ValueError):
        return None
    return head.decode() if _OBJECT_ID.fullmatch(head) else None


_OBJECT_ID = re.compile(rb"[0-9a-f]{40}([0-9a-f]{24})?")


def commit_of(checkout: Checkout, revision: str) -> str | None:
    found = git(
        checkout,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
        check=False,
    )
    return found.out.strip() if found.code == 0 else None


def is_ancestor(checkout: Checkout, older: str, newer: str) -> bool:
    return git(checkout, "merge-base", "--is-ancestor", older, newer, check=False).code == 0


def merged_branches(checkout: Checkout, into: str, *, but_not: str) -> list[str]:
    """The local branches that `into` has all of, and `but_not` has not."""
    words = ("for-each-ref", f"--merged={into}", f"--no-merged={but_not}", "--format=%(refname:lstrip=2)")
    return git(checkout, *words, "refs/heads/", check=False).out.splitlines()


def branches(checkout: Checkout) -> dict[str, str]:
    """Local and remote ones by their full names, and where each is."""
    words = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/remotes/")
    listed = (line.partition(" ") for line in git(checkout, *words).out.splitlines())
    return {name: commit for commit, _, name in listed}


def branch_names(listed: Iterable[str]) -> list[str]:
    """Of full names: local branches, and what remote ones are called without their remote."""
    listed = list(listed)
    remotes = [name.removeprefix("refs/remotes/") for name in listed if name.startswith("refs/remotes/")]
    local = [name.removeprefix("refs/heads/") for name in listed if name.startswith("refs/heads/")]
    # A remote's name may have slashes itself: every end of it may be the branch.
    return local + ["/".join(parts[at:]) for parts in (n.split("/") for n in remotes) for at in range(1, len(parts))]


def valid_branch(checkout: Checkout, name: str) -> bool:
    return git(checkout, "check-ref-format", "--branch", name, check=False).code == 0


def previous_branch(checkout: Checkout) -> str | None:
    """The branch that was checked out before this one."""
    found = git(checkout, "rev-parse", "--symbolic-full-name", "@{-1}", check=False)
    name = found.out.strip()
    return name.removeprefix("refs/heads/") if found.code == 0 and name.startswith("refs/heads/") else None


def task_of_branch(checkout: Checkout, branch: str) -> str | None:
    """The id in `branch.<name>.opencodetask`: git carries it through renames, and drops it with the branch."""
    return tasks_by_branch(checkout).get(branch)


def tasks_by_branch(checkout: Checkout) -> dict[str, str]:
    """Every branch that carries a task's id."""
    return ties.read(checkout.common_dir, lambda: _asked_for_ties(checkout))


def _asked_for_ties(checkout: Checkout) -> dict[str, str]:
    found = git(checkout, "config", "--local", "-z", "--get-regexp", rf"^branch\..*\.{_KEY}$", check=False)
    pairs = (entry.partition("\n") for entry in found.out.split("\0") if entry)
    tied = ((key.removeprefix("branch.").removesuffix(f".{_KEY}"), value) for key, _, value in pairs)
    return {branch: task_id for branch, task_id in tied if task_id}


def tie_branch(checkout: Checkout, branch: str, task_id: str) -> None:
    with ties.added(checkout.common_dir, _KEY, branch, task_id):
        git(checkout, "config", "--local", f"branch.{branch}.{_KEY}", task_id)


def untie_branch(checkout: Checkout, branch: str) -> None:
    git(checkout, "config", "--local", "--unset", f"branch.{branch}.{_KEY}", check=False)


def is_tracked(checkout: Checkout, path: Path) -> bool:
    found = git(checkout, "ls-files", "--error-unmatch", "-z", "--", str(path), check=False)
    return found.code == 0


def gitlinks(checkout: Checkout) -> list[str]:
    """The paths of the submodules that the index has."""
    if not any((folder / "modules").is_dir() for folder in (checkout.common_dir, checkout.git_dir)):
        return []
    entries = git(checkout, "ls-files", "--stage", "-z").out.split("\0")
    return [entry.partition("\t")[2] for entry in entries if entry.startswith("160000 ")]


def worktrees(checkout: Checkout) -> list[Path]:
    """The git directory of every worktree: the main one's first."""
    linked = checkout.common_dir / "worktrees"
    found = sorted(p for p in linked.iterdir() if (p / "HEAD").is_file()) if linked.is_dir() else []
    return [checkout.common_dir, *found]


def hooks_dir(checkout: Checkout) -> Path:
    """Where git looks for hooks, `core.hooksPath` included."""
    found = run(("git", "rev-parse", "--git-path", "hooks"), cwd=checkout.top, env=clean_git_env())
    return checkout.top / found.out.removesuffix("\n")


def hooks_path_setting(checkout: Checkout) -> tuple[str, str] | None:
    """Scope (`local`, `global`, …) and value of `core.hooksPath`, when it is set."""
    found = run(
        ("git", "config", "-z", "--show-scope", "--get", "core.hooksPath"),
        cwd=checkout.top,
        env=clean_git_env(),
        check=False,
    )
    if found.code != 0:
        return None
    scope, _, value = found.out.partition("\0")
    return scope, value.rstrip("\0")
