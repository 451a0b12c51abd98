"""Checking out the submodules of a work tree from what is on this disk, and taking them away again.

In a linked worktree git looks for a submodule's repository below the worktree's own git directory, and would fetch it
anew. Ours is a clone of the main checkout's: objects that do not change are shared by hard links, so it takes no room
and nothing done in one can harm the other. (To make it a linked worktree of the main one's instead would be faster by
a few milliseconds; but the first `git submodule update` there writes its `core.worktree` over the main checkout's:
git 2.39.) All that follows is git's own `submodule update`, which may use no protocol.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing, submodules
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.submodules import Finding, Submodule
from opencode_tasks.printable import printable
from opencode_tasks.proc import Completed, clean_git_env, run
from opencode_tasks.store import files, locks
from opencode_tasks.store.layout import Layout
from opencode_tasks.values import value

_TIMEOUT_S = 3600.0
_NO_PROTOCOL = ("-c", "protocol.allow=never")
_ONLY_FILES = (*_NO_PROTOCOL, "-c", "protocol.file.allow=always")
_START = "refs/opencode-tasks/start"
"""What a lent repository began with: some other one has it, whether a reference there leads to it or not."""
# What a repository says of itself beside its objects and references.
_SETTINGS = ("config", "config.worktree", "info/sparse-checkout", "info/exclude", "info/attributes")


@value
class Prepared:
    """`ready`: the paths that were checked out. `findings`: of those that could not be."""

    ready: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def lines(self) -> list[str]:
        some = ", ".join(printable(path) for path in self.ready[:5]) + (", …" if len(self.ready) > 5 else "")
        said = [f"{len(self.ready)} submodules checked out from this disk: {some}"] if self.ready else []
        return [*said, *(finding.line for finding in self.findings)]


def prepare(checkout: Checkout, tell: Callable[[int, int], None] = lambda *_: None) -> Prepared:
    """Check out what the user's configuration wants and is not there yet. What is there is left as it is.

    Interrupted, it leaves nothing half-made; killed, the next call goes on. Safe when several do it at once, and while
    nobody else writes into the work tree.
    """
    if not submodules.has_any(checkout):
        return Prepared()
    ready: list[str] = []
    findings: list[Finding] = []
    lock = Layout(checkout.common_dir).lock(f"submodules.{checkout.git_dir.name}")
    with files.refused_writes(checkout.top), locks.locked(lock, timeout_s=_TIMEOUT_S, hot=True):
        known = len(plumbing.gitlinks(checkout))
        for done, (path, finding) in enumerate(_below(checkout, checkout.common_dir / "modules", ""), 1):
            tell(done, max(done, known))
            if finding is None:
                ready.append(path)
            else:
                findings.append(finding)
    return Prepared(tuple(ready), tuple(findings))


def _below(checkout: Checkout, lenders: Path, above: str) -> Iterator[tuple[str, Finding | None]]:
    """`lenders`: the folder in which the main checkout has the repositories of these submodules."""
    for sub in submodules.read(checkout):
        path = f"{above}{sub.path}"
        fault = sub.fault or submodules.fault_of_place(checkout, sub.path)
        if fault:
            if not sub.is_left_out:
                yield path, Finding(path, "refused", fault, f"look at it: {submodules.command(checkout, 'status')}")
            continue
        if not sub.is_wanted:
            continue
        own, opened = submodules.git_dir(checkout, sub.name), submodules.opened(checkout, sub.path)
        is_unfinished = opened is not None and not (opened.git_dir / "index").exists()
        if is_unfinished or not os.path.lexists(checkout.top / sub.path / ".git"):
            finding = _check_out(checkout, sub, lenders / sub.name, path)
            yield path, finding
            if finding is not None:
                continue
            opened = submodules.opened(checkout, sub.path)
        if opened is not None and opened.git_dir == own and submodules.has_any(opened):
            yield from _below(opened, lenders / sub.name / "modules", f"{path}/")


def _check_out(checkout: Checkout, sub: Submodule, lender: Path, path: str) -> Finding | None:
    fetch = submodules.command(checkout, "submodule", "update", "--init", "--", sub.path)
    own, place = submodules.git_dir(checkout, sub.name), checkout.top / sub.path
    was_empty = not os.path.lexists(place / ".git")
    if was_empty and place.is_dir() and any(place.iterdir()):
        return Finding(path, "in the way", f"other files lie in {place}", f"move them away, then {fetch}")
    holder = own if submodules.is_git_dir(own) else lender
    if not submodules.is_git_dir(holder):
        return Finding(path, "missing", "its repository is not on this disk", f"to fetch it: {fetch}")
    if not _has(holder, sub.commit):
        return Finding(path, "absent", f"commit {sub.commit[:9]} is not on this disk", f"to fetch it: {fetch}")
    was_made = holder is not own
    try:
        if was_made and not _lend(lender, own, checkout.git_dir, sub.commit):
            return Finding(path, "missing", "its repository cannot be lent", f"to fetch it: {fetch}")
        words = ("--no-fetch", "--checkout", *(() if was_empty else ("--force",)), "--", sub.path)
        done = _git(checkout.top, *_NO_PROTOCOL, "submodule", "--quiet", "update", *words)
    except BaseException:
        _forget(place, own if was_made else None, half_made=was_empty)
        raise
    if done.code != 0:
        _forget(place, own if was_made else None, half_made=was_empty)
        said = (done.err.strip().splitlines() or ["git said nothing"])[-1]
        return Finding(path, "failed", f"git could not check it out from this disk ({said})", f"to fetch it: {fetch}")
    return None


def _has(git_dir: Path, commit: str) -> bool:
    return _git(git_dir, f"--git-dir={git_dir}", "cat-file", "-e", f"{commit}^{{commit}}").code == 0


def _lend(lender: Path, own: Path, beside: Path, commit: str) -> bool:
    """A repository at `own` with the lender's objects, references and settings, whole or not at all."""
    config_b = (lender / "config").read_bytes()
    if b"refstorage" in config_b.lower():
        return False  # a clone has the format of its own choice
    made = beside / "opencode-submodule"  # of one that was killed, too
    shutil.rmtree(made, ignore_errors=True)
    try:
        done = _git(beside, *_ONLY_FILES, "clone", "--quiet", "--mirror", "--", str(lender), str(made))
        if done.code != 0:
            return False
        with files.refused_writes(made):
            # A copied HEAD of a remote would be a reference of its own, and no longer lead to a branch.
            for path in (*(lender / name for name in _SETTINGS), *lender.glob("refs/remotes/*/HEAD")):
                if path.is_file():
                    copy = made / path.relative_to(lender)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)
            own.parent.mkdir(parents=True, exist_ok=True)
        for name in ("config", "config.worktree"):
            if (made / name).exists():
                _git(beside, "config", "--file", str(made / name), "--unset-all", "core.worktree")
        if (lender / "lfs").is_dir():
            _git(beside, "config", "--file", str(made / "config"), "lfs.storage", str(lender / "lfs"))
        if _git(beside, f"--git-dir={made}", "update-ref", _START, commit).code != 0:
            return False  # of a shallow lender, what its references do not lead to
        made.rename(own)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return True


def _forget(place: Path, own: Path | None, *, half_made: bool) -> None:
    """What a checkout that did not come to its end has left."""
    if half_made and place.is_dir():
        for entry in place.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)


def _git(cwd: Path, *words: str, stdin_b: bytes = b"") -> Completed:
    env = clean_git_env({"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"})
    return run(("git", *plumbing.QUIET, *words), cwd=cwd, env=env, stdin_b=stdin_b, check=False, timeout_s=_TIMEOUT_S)


def uncommitted(checkout: Checkout) -> tuple[str, ...]:
    """Of the submodules: changed and untracked paths, and of a linked worktree's the commits that only they have."""
    found: list[str] = []
    for inner in submodules.below(checkout):
        name = inner.top.relative_to(checkout.top)
        status = plumbing.git(inner, "status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all").out
        found += [f"{name}/{entry[3:]}" for entry in status.split("\0") if entry]
    if checkout.is_linked:
        modules = checkout.git_dir / "modules"
        for own in _repositories(modules):
            lender = checkout.common_dir / "modules" / own.relative_to(modules)
            found += [f"{own.relative_to(modules)}: commit {commit}" for commit in _own_commits(own, lender)]
    return tuple(found)


def ignored(checkout: Checkout) -> tuple[str, ...]:
    found: list[str] = []
    for inner in submodules.below(checkout):
        name = str(inner.top.relative_to(checkout.top))
        words = ("ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
        found += [f"{name}/{path}" for path in plumbing.git(inner, *words).out.split("\0") if path]
    return tuple(found)


def _repositories(modules: Path) -> Iterator[Path]:
    """Also those of which nothing is checked out."""
    for path in sorted(modules.iterdir()) if modules.is_dir() else ():
        if submodules.is_git_dir(path):
            yield path
            yield from _repositories(path / "modules")
        elif path.is_dir() and not path.is_symlink():
            yield from _repositories(path)


def _own_commits(own: Path, lender: Path) -> list[str]:
    """Those that no remote, and no reference of the lender, leads to. At most 20."""
    known = ""
    if submodules.is_git_dir(lender):
        named = _git(lender, f"--git-dir={lender}", "for-each-ref", "--format=%(objectname)")
        known = named.out + _git(lender, f"--git-dir={lender}", "rev-parse", "--verify", "--quiet", "HEAD").out
    asked = "".join(f"^{tip}\n" for tip in known.split())
    words = ("log", "--no-show-signature", "--format=%h %s", "--max-count=20", "--ignore-missing")
    # Old gits take only revisions from stdin, new ones under the `--not` that stands before.
    revisions = ("--stdin", "HEAD", "--branches", "--not", "--remotes", "--glob=refs/opencode-tasks/*")
    done = _git(own, f"--git-dir={own}", *words, *revisions, stdin_b=asked.encode())
    return done.out.splitlines() if done.code == 0 else [f"unknown: {done.err.strip()}"]


def take_away(checkout: Checkout, *, force: bool = False) -> None:
    """Make a linked worktree one without submodules again, which git will then remove.

    Without force raises `TaskError` when that would lose something; nothing was removed then.
    """
    modules = checkout.git_dir / "modules"
    if not checkout.is_linked or not modules.is_dir():
        return
    held = () if force else uncommitted(checkout)
    if held:
        more = f", and {len(held) - 5} more" if len(held) > 5 else ""
        raise TaskError(
            f"Submodules in {checkout.top} have what is nowhere else: {', '.join(held[:5])}{more}",
            hint="commit it there and push it",
            code="unsaved_work",
        )
    for inner in list(submodules.below(checkout)):
        if inner.git_dir.is_relative_to(modules):
            shutil.rmtree(inner.top)
            inner.top.mkdir()
    shutil.rmtree(modules)
