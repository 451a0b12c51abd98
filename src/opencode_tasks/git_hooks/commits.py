"""A commit that is on a task's branch now, written down once."""

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.store.plan_edits import Commit
from opencode_tasks.task import Task

_MOST = 1000


def record(store: Store, checkout: Checkout, task: Task, branch: str, *, actor: str) -> Commit | None:
    """HEAD; and what was recorded before and is not on the branch any more, as after an amend or a reset.

    Of a rebase git itself tells (post-rewrite). None: it was written down before.
    """
    sha, parents, subject, body = plumbing.git(checkout, "log", "-1", "--format=%H%n%P%n%s%n%b").out.split("\n", 3)
    last = task.commits.last
    if last == sha:
        return None  # by another way that the hook was installed, too
    commit: dict[str, object] = {
        "sha": sha,
        "parents": parents.split(),
        "subject": subject,
        "branch": branch,
    }
    events = [("commit.recorded", commit)]
    if last is not None and not plumbing.is_ancestor(checkout, last, sha):
        gone = plumbing.git(checkout, "rev-list", f"--max-count={_MOST}", last, f"^{sha}", check=False).out.split()
        if gone:
            rewritten = [[old, sha] for old in reversed(gone)]
            events.append(("commit.rewritten", {"by": "amend", "branch": branch, "head": sha, "rewritten": rewritten}))
    store.record(task.id, *events, actor=actor)
    return Commit(sha, subject, body)


def guessed(checkout: Checkout, old: str, new: str) -> list[list[str]]:
    """What became of which commit on the way from `old` to `new`: the same author, time and subject; else the last."""
    became = {about: sha for sha, about in _abouts(checkout, new, old)}
    return [[sha, became.get(about, new)] for sha, about in reversed(_abouts(checkout, old, new))]


def _abouts(checkout: Checkout, having: str, lacking: str) -> list[tuple[str, str]]:
    words = ("log", "-z", f"--max-count={_MOST}", "--format=%H %ae %at %s", having, f"^{lacking}")
    lines = plumbing.git(checkout, *words, check=False).out.split("\0")
    return [(sha, about) for sha, _, about in (line.partition(" ") for line in lines) if about]
