"""What the next commit would add or change, from the index alone: no file of the work tree is read, no filter run."""

import os

from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.printable import printable
from opencode_tasks.proc import clean_git_env, run
from opencode_tasks.values import value

_LINK, _GITLINK = "120000", "160000"
_LONGEST_LINK = 4096


@value
class Entry:
    """`leads`: of a link, where it leads."""

    path: str
    is_gitlink: bool
    leads: str | None

    @property
    def shown(self) -> str:
        """On one line, with nothing that steers a terminal."""
        return printable(self.path)


def entries(checkout: Checkout) -> list[Entry]:
    """Raises `CommandError` from git."""
    words = ("diff", "--cached", "--raw", "-z", "--no-renames", "--no-ext-diff", "--no-abbrev", "--diff-filter=d")
    fields = _git(checkout, *words, "--ignore-submodules=none").split("\0")
    found = []
    for about, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, sha, _ = about.split()
        leads = _git(checkout, "cat-file", "blob", sha)[:_LONGEST_LINK] if mode == _LINK else None
        found.append(Entry(path, mode == _GITLINK, leads))
    return found


def _git(checkout: Checkout, *args: str) -> str:
    """With the index that git has made for this commit: of `commit -a` and `commit PATH` it is another file."""
    given = {name: path for name in ("GIT_INDEX_FILE",) if (path := os.environ.get(name))}
    env = clean_git_env({"GIT_OPTIONAL_LOCKS": "0", **given})
    return run(("git", *QUIET, *args), cwd=checkout.top, env=env).out
