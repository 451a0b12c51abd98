"""What commands ask of a repository and do to it, through GitPython.

The hot paths use `plumbing`; importing GitPython costs more than a whole hook may.
"""

from collections.abc import Sequence
from pathlib import Path

import git

from opencode_tasks.config import FILE
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, no_work, private, submodule_trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.store.layout import LINK, Layout
from opencode_tasks.task import Task
from opencode_tasks.values import value

_MOST_COMMITS = 200


@value
class Unsaved:
    """What would be lost, or only look saved: paths and commits, none of it when all are empty.

    `unkeepable`: of the uncommitted, what no checkpoint can keep. `untaken`: why some are only in the container's git.
    """

    uncommitted: tuple[str, ...] = ()
    unmerged: tuple[str, ...] = ()
    unpushed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unkeepable: tuple[str, ...] = ()
    untaken: tuple[str, ...] = ()

    def sentences(self, base: str) -> list[str]:
        said = []
        if self.uncommitted:
            said.append(f"{_count(self.uncommitted, 'uncommitted file')}: {some(self.uncommitted)}")
        if self.unmerged:
            said.append(f"{_count(self.unmerged, 'commit')} not merged into {base}: {some(self.unmerged)}")
        if self.unpushed:
            said.append(f"{_count(self.unpushed, 'commit')} on no remote: {some(self.unpushed)}")
        if self.ignored:
            said.append(f"{_count(self.ignored, 'ignored path')}: {some(self.ignored)}")
        if self.untaken:
            said.append(f"commits in its container that are not on the branch: {'; '.join(self.untaken)}")
        if self.unkeepable:
            said.append(f"{_count(self.unkeepable, 'path')} that no checkpoint keeps: {some(self.unkeepable)}")
        return said


def open_at(checkout: Checkout) -> git.Repo:
    return git.Repo(checkout.top)


def uncommitted(checkout: Checkout) -> tuple[str, ...]:
    """Changed and untracked paths in the work tree and its submodules. Other nested repositories are not entered.

    Less the settings that `init` wrote and nobody has committed: they are no task's work.
    """
    with open_at(checkout) as repo:
        # Through `git -c`: status would run what core.fsmonitor and the hooks path name.
        out = _git(repo, "status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
    found = (entry for entry in out.split("\0") if entry and not _is_settings(checkout, entry))
    return (*(entry[3:] for entry in found), *submodule_trees.uncommitted(checkout))


def _is_settings(checkout: Checkout, entry: str) -> bool:
    if entry == f"?? {FILE.parent}/":  # git names the folder when all in it is new
        return no_work.is_only_settings(checkout)
    return entry == f"?? {FILE}"


def unsaved(main: Checkout, task: Task, workspace: Checkout | None) -> Unsaved:
    """What of the task exists only here. `workspace`: its work tree, when its branch is checked out there."""
    ref = f"refs/heads/{task.branch}"
    with open_at(main) as repo:
        tip = _tip(repo, ref)
        if tip is None:
            return Unsaved()
        base = task.base.branch
        into = f"refs/heads/{base}" if base and _tip(repo, f"refs/heads/{base}") else task.base.commit
        unmerged = _commits(repo, tip, "--not", into)
        if unmerged:
            from opencode_tasks.git import arrived

            unmerged = arrived.missing(main, tip, str(_tip(repo, f"{into}^{{commit}}")))
        unpushed = _commits(repo, tip, "--not", "--remotes") if unmerged and _tracks_remotes(repo) else ()
    inside = private.untaken(Layout(main.common_dir), task.id, task.branch)
    return Unsaved(uncommitted(workspace) if workspace else (), unmerged, unpushed, untaken=(inside,) if inside else ())


def commits_of(main: Checkout, task: Task) -> tuple[tuple[str, str], ...]:
    """The commits on the task's branch, oldest first, at most 200: short id and subject. Not what a merge brought."""
    with open_at(main) as repo:
        tip = _tip(repo, f"refs/heads/{task.branch}")
        if tip is None:
            return ()
        without = [_tip(repo, f"{task.base.commit}^{{commit}}")]
        base = _tip(repo, f"refs/heads/{task.base.branch}") if task.base.branch else None
        # Once it is merged, the base has all of them.
        if base is not None and _git(repo, "rev-list", "--max-count=1", tip, "--not", base):
            without.append(base)
        asked = (
            "--no-show-signature",
            "--first-parent",
            f"--max-count={_MOST_COMMITS}",
            tip,
            "--not",
            *filter(None, without),
        )
        listed = _git(repo, "log", "--format=%h %s", "--abbrev=9", *asked, "--")
    found = [line.partition(" ") for line in listed.split("\n") if line]
    return tuple((short, subject) for short, _, subject in reversed(found))


def ignored(checkout: Checkout) -> tuple[str, ...]:
    """What git ignores in the work tree, whole folders as one, less our own link and what is `no_work`."""
    with open_at(checkout) as repo:
        out = _git(repo, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
    is_no_work = no_work.of(checkout)
    own = (path for path in out.split("\0") if path and path != LINK and not is_no_work(path))
    return (*own, *submodule_trees.ignored(checkout))


def delete_branch(main: Checkout, branch: str, tip: str | None) -> None:
    """Delete the branch if it still is at `tip` (None: it is gone), and with it its section of the configuration."""
    with open_at(main) as repo:
        if tip is not None:
            _git(repo, "update-ref", "-d", f"refs/heads/{branch}", tip)
        if any(section == f'branch "{branch}"' for section in repo.config_reader("repository").sections()):
            _git(repo, "config", "--local", "--remove-section", f"branch.{branch}")


def tip_of(main: Checkout, branch: str) -> str | None:
    with open_at(main) as repo:
        return _tip(repo, f"refs/heads/{branch}")


def remove_worktree(main: Checkout, path: Path, *, force: bool = False) -> None:
    """Without force git itself refuses while there is anything in it that would be lost; always when it is locked.

    It also refuses where there are submodules, whatever they hold: those go before, if nothing of theirs would be lost.
    """
    if (path / ".git").is_file():
        submodule_trees.take_away(discovery.find(path, {}), force=force)
    with open_at(main) as repo:
        _git(repo, "worktree", "remove", *(["--force"] if force else []), str(path))


def add_worktree(main: Checkout, path: Path, branch: str) -> None:
    with open_at(main) as repo:
        _git(repo, "worktree", "add", "--quiet", str(path), branch)


def _tracks_remotes(repo: git.Repo) -> bool:
    """Whether a push leaves a trace here. In a clone made with --bare it does not."""
    with repo.config_reader() as config:
        return any(config.has_option(f'remote "{remote.name}"', "fetch") for remote in repo.remotes)


def _commits(repo: git.Repo, *revisions: str) -> tuple[str, ...]:
    """The commits that `revisions` (of `git rev-list`) select: short id and subject."""
    listed = _git(repo, "log", "--format=%h %s", "--abbrev=9", *revisions, "--")
    return tuple(listed.splitlines())


def _tip(repo: git.Repo, ref: str) -> str | None:
    try:
        return _git(repo, "rev-parse", "--verify", "--quiet", ref)
    except TaskError:
        return None


def _git(repo: git.Repo, *args: str) -> str:
    try:
        return str(repo.git.execute(["git", *QUIET, *args], strip_newline_in_stdout=True))
    except git.GitCommandError as e:
        detail = str(e.stderr).strip().removeprefix("stderr:").strip().strip("'")
        raise TaskError(f"`git {args[0]}` failed: {detail}", code="command_failed") from e


def _count(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def some(things: Sequence[str]) -> str:
    shown = ", ".join(things[:5])
    return shown + (f", and {len(things) - 5} more" if len(things) > 5 else "")
