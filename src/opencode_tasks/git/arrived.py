"""Which of a branch's commits its base does not have, in these or other words.

A commit that was cherry-picked or rebased is known by its change (`git patch-id`), a squashed branch by its whole
change, or by this: merging it would change nothing.
"""

from opencode_tasks.git import merging, plumbing
from opencode_tasks.git.branch_changes import DIFF, OBJECTS_ONLY
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import Completed

_MOST_COMMITS = 1000
_MOST_PATHS = 1000


def missing(main: Checkout, tip: str, base: str) -> tuple[str, ...]:
    """Short id and subject of what `base` lacks, the newest first. None of it when all has arrived."""
    left = _log(main, "--right-only", "--cherry-pick", f"{base}...{tip}", "--no-merges")
    if not left:
        # What a merge itself changed, as to settle a conflict, has no patch of its own.
        merges = _log(main, tip, f"^{base}", "--merges")
        return () if not merges or merging.is_contained(main, base, tip) else merges
    start = _git(main, "merge-base", base, tip, check=False).out.strip()
    # What was taken back on the branch itself is in the base no more than before.
    is_change = bool(start) and bool(_git(main, "diff-tree", start, tip).out)
    if is_change and (merging.is_contained(main, base, tip) or _is_squashed(main, tip, base, start)):
        return ()
    return left


def _log(main: Checkout, *asked: str) -> tuple[str, ...]:
    words = ("log", "--no-show-signature", "--format=%h %s", "--abbrev=9", f"--max-count={_MOST_COMMITS}", *asked, "--")
    return tuple(_git(main, *words).out.splitlines())


def _is_squashed(main: Checkout, tip: str, base: str, start: str) -> bool:
    """Whether one commit of `base` is the whole change.

    Not told where lines do not say it all, as of binaries and modes: before git 2.39 `patch-id` leaves them out.
    """
    raw = [line.split("\t") for line in _git(main, "diff-tree", "-r", "--no-renames", start, tip).out.splitlines()]
    numbers = _git(main, "diff-tree", "-r", "--no-renames", "--numstat", start, tip).out
    if not raw or len(raw) > _MOST_PATHS or "-\t-\t" in numbers or any(_is_more(about) for about, *_ in raw):
        return False
    words = ("rev-list", "--no-merges", f"--max-count={_MOST_COMMITS}", base, f"^{start}", "--")
    candidates = _git(main, "--literal-pathspecs", *words, *(path for _, path in raw)).out.split()
    whole = _patch_ids(main, f"{tip} {start}\n")
    return bool(candidates and whole) and not whole.isdisjoint(_patch_ids(main, "".join(f"{c}\n" for c in candidates)))


def _is_more(about: str) -> bool:
    """A change of mode, a link or a submodule."""
    before, after = about.lstrip(":").split()[:2]
    return not {before, after} <= {"100644", "000000"} and before != after


def _patch_ids(main: Checkout, commits: str) -> set[str]:
    patches = _git(main, *DIFF, "-p", stdin_b=commits.encode())
    return {line.split()[0] for line in _git(main, "patch-id", "--stable", stdin_b=patches.out_b).out.splitlines()}


def _git(main: Checkout, *args: str, check: bool = True, stdin_b: bytes = b"") -> Completed:
    return plumbing.git(main, *OBJECTS_ONLY, "-c", "core.quotePath=false", *args, check=check, stdin_b=stdin_b)
