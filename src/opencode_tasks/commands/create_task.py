"""`create-task`: what `git checkout -b task/…` does, from a title; in place or in a worktree."""

import os
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.commands import Result, chosen, place, with_submodules
from opencode_tasks.commands.place import Place
from opencode_tasks.containers import devcontainer
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.git import discovery, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import clean_git_env, run_attached, undisturbed
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Base, Choice, Workspace, new_id, slug
from opencode_tasks.values import value

if TYPE_CHECKING:  # see `created`
    from opencode_tasks.commands.devcontainers import Known
    from opencode_tasks.commands.here import Here
    from opencode_tasks.store.registry import NewTask

HELP = "make a task: a branch, its memory, its container"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("title", help="what is to be done, in a few words")
    parser.add_argument("--branch", help="the branch's name (default: prefix + title)")
    parser.add_argument("--from", dest="start", metavar="REVISION", help="where it begins (default: HEAD)")
    parser.add_argument("--worktree", action="store_true", help="in a directory of its own, beside this one")
    image = parser.add_mutually_exclusive_group()
    image.add_argument("--image", help="container image: base, developer, or any reference the engine has")
    image.add_argument(
        "--devcontainer",
        dest="image",
        action="store_const",
        const=devcontainer.IMAGE,
        help="what devcontainer.json says, as it is in the commit where the task begins",
    )
    chosen.add(parser)


@value
class _Wanted:
    """`head`: the commit that HEAD is at now."""

    id: str
    title: str
    branch: str
    base: Base
    workspace: Workspace
    image: str | None
    limits: Choice
    head: str | None

    @property
    def start(self) -> str:
        return self.base.commit

    @property
    def worktree(self) -> Path | None:
        return Path(self.workspace.path) if self.workspace.kind == "worktree" else None


def run(args: Namespace) -> Result:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: what was begun is undone
    here = place.ready()
    with ExitStack() as naming:
        # One at a time picks a name and makes a branch of it.
        naming.enter_context(locked(here.layout.lock("create"), hot=True, timeout_s=60))
        wanted = _wanted(here, args)
        submodules = with_submodules.before(here, wanted.start, in_place=wanted.worktree is None)
        ahead = _Ahead(here, wanted)
        with _undone_unless_finished(here, wanted):
            if wanted.worktree is not None:
                in_parallel = _branch_off(here, wanted)
                naming.close()  # the name is ours: others need not wait for all the files
                checkout = _add_worktree(here, wanted, in_parallel, ahead)
            else:
                checkout = _check_out(here, wanted, ahead)
            from opencode_tasks.commands import created, with_included
            from opencode_tasks.git import workspaces

            at = ahead.at
            brought = with_included.bring(at, checkout)
            if wanted.worktree is not None:
                submodules.prepare(at, checkout)
            with undisturbed():
                switched = workspaces.switch(at.store, checkout, at.config, actor=at.actor, new=ahead.new)
            task = switched.entered
            if task is None or task.id != wanted.id:
                raise TaskError(
                    f"Another branch was checked out in {checkout.top} meanwhile",
                    hint="run the command again, or with --worktree",
                    code="conflict",
                )
    return created.finished(at, checkout, task, switched, brought, submodules, ahead.known)


def _wanted(at: Place, args: Namespace) -> _Wanted:
    if not args.title.strip():
        raise UsageError("The title is empty", hint='opencode-tasks create-task "Fix the parser"')
    taken = plumbing.branches(at.checkout)
    branch_here = plumbing.head_branch(at.checkout)
    head = (taken.get(f"refs/heads/{branch_here}") if branch_here else None) or plumbing.head_commit(at.checkout)
    start = head if args.start is None else plumbing.commit_of(at.checkout, args.start)
    if start is None:
        if head is None:
            raise TaskError(
                "The repository has no commits yet: there is nothing to branch from",
                hint='git commit --allow-empty -m "Initial commit"',
                code="no_commits",
            )
        raise TaskError(f"There is no revision {args.start}", hint="git log --oneline --all", code="no_revision")
    branch = _free_branch(at, args.branch, args.title, taken)
    task_id = new_id(args.title)
    worktree = _worktree_path(at, task_id) if args.worktree else None
    base_branch = args.start if f"refs/heads/{args.start}" in taken else None
    if args.start is None:
        base_branch = plumbing.occupying_branch(at.checkout)
    workspace = Workspace("worktree" if worktree else "in-place", str(worktree or at.checkout.top))
    if args.image == devcontainer.IMAGE:
        from opencode_tasks.commands import devcontainers, here

        devcontainers.require(here.opened(at), start, workspace.path)
    choice = chosen.choice(args)
    if choice != Choice():
        from opencode_tasks.containers import limits

        limits.of(at.config, choice)
    base = Base(base_branch, start)
    return _Wanted(task_id, args.title.strip(), branch, base, workspace, args.image, choice, head)


def _free_branch(at: Place, asked: str | None, title: str, listed: Iterable[str]) -> str:
    """What was asked for, which must be free; else a name from the title, with a number where it is taken."""
    taken = {name.lower(): name for name in plumbing.branch_names(listed)}
    if asked is not None:
        if not plumbing.valid_branch(at.checkout, asked):
            raise UsageError(f"{asked!r} is not a branch name", hint="git check-ref-format --branch NAME")
        if asked.lower() in taken:
            twin = taken[asked.lower()]
            same = "exists" if twin == asked else f"differs only in case from {twin}"
            raise TaskError(f"Branch {asked} {same}", hint="choose another --branch", code="branch_exists")
        return asked
    wanted = f"{at.config.branch.prefix}{slug(title)}"
    for number in range(1, 1000):
        candidate = wanted if number == 1 else f"{wanted}-{number}"
        if candidate.lower() not in taken:
            return candidate
    raise TaskError(f"Every name like {wanted} is taken", hint="choose one: --branch", code="branch_exists")


def _worktree_path(at: Place, task_id: str) -> Path:
    main = at.main.top
    path = at.config.workspace.worktrees.format(repository=main.name, id=task_id)
    return Path(os.path.normpath(main / path))


def _branch_off(at: Place, wanted: _Wanted) -> tuple[str, ...]:
    """Make the branch. Gives options for git: it writes many files with one process alone unless it is told."""
    options: list[str] = []

    def ask() -> None:
        if plumbing.git(at.checkout, "config", "--get", "checkout.workers", check=False).code != 0:
            options.extend(("-c", f"checkout.workers={os.cpu_count() or 1}"))

    _git(at, wanted, "branch", "--no-track", wanted.branch, wanted.start, meanwhile=ask)
    return tuple(options)


def _add_worktree(at: Place, wanted: _Wanted, options: Sequence[str], ahead: "_Ahead") -> Checkout:
    """Git's own checkout, with the user's hooks; ours is told that we do its work."""
    top = Path(wanted.workspace.path)
    code = _git(at, wanted, *options, "worktree", "add", "--quiet", str(top), wanted.branch, meanwhile=ahead)
    checkout = discovery.find(top, {}) if (top / ".git").is_file() else None
    # Not the exit code: a hook of the user's may have failed after git did its work.
    if checkout is None or not _is_here(checkout, wanted.branch):
        raise _git_failed(at, wanted, code)
    return checkout


def _check_out(at: Place, wanted: _Wanted, ahead: "_Ahead") -> Checkout:
    """As `_add_worktree`, here."""
    # Without a start point git leaves the files alone; with one equal to HEAD it compares them all.
    moves = wanted.start != wanted.head
    if moves:
        from opencode_tasks.git import filters

        told = filters.in_the_way(at.checkout, wanted.start, has_failed=False)
        if told:
            raise TaskError(told[0], hint=told[1], code="git")
    words = ("checkout", "--quiet", "--no-track", "-b", wanted.branch, *([wanted.start] if moves else []))
    with _files_as_before(at, wanted) if moves else nullcontext():
        code = _git(at, wanted, *words, meanwhile=ahead)
        if not _is_here(at.checkout, wanted.branch):
            raise _git_failed(at, wanted, code)
    return at.checkout


class _Ahead:
    """Loads what is needed once the files are there, and looks up what can be known by then."""

    at: "Here"
    new: "NewTask"
    known: "Known"

    def __init__(self, place: Place, wanted: _Wanted) -> None:
        self._place, self._wanted = place, wanted

    def __call__(self) -> None:
        from opencode_tasks.commands import created, here
        from opencode_tasks.store.registry import NewTask
        from opencode_tasks.store.tasks import login

        told = {name: of for name, of in vars(self._wanted).items() if name != "head"}
        self.at, self.new = here.opened(self._place, hot=True), NewTask(**told, owner=login())
        self.known = created.ahead(self.at, self.new)


def _git(at: Place, wanted: _Wanted, *words: str, meanwhile: Callable[[], object]) -> int:
    env = clean_git_env({"OPENCODE_TASKS_HOOKS": "off"})
    code = run_attached(("git", *words), cwd=at.checkout.top, env=env, meanwhile=meanwhile)
    if code != 0 and plumbing.commit_of(at.checkout, f"refs/heads/{wanted.branch}") is None:
        raise _git_failed(at, wanted, code)
    return code


def _git_failed(at: Place, wanted: _Wanted, code: int) -> TaskError:
    from opencode_tasks.git import filters

    told = filters.in_the_way(at.checkout, wanted.start, has_failed=True)
    if told is not None:
        return TaskError(told[0], hint=told[1], code="git")
    return TaskError(
        f"git could not make branch {wanted.branch} (exit code {code}; its own words are above)",
        hint="mend what git says, then run the command again; nothing was changed",
        code="git",
    )


@contextmanager
def _files_as_before(at: Place, wanted: _Wanted) -> Iterator[None]:
    """An interrupted git leaves files of both commits behind."""
    from opencode_tasks.git import interrupted

    was = interrupted.before(at.checkout, wanted.start)
    try:
        yield
    except BaseException:
        with undisturbed():
            if not _is_here(at.checkout, wanted.branch):
                interrupted.take_back(at.checkout, was)
        raise


@contextmanager
def _undone_unless_finished(at: Place, wanted: _Wanted) -> Iterator[None]:
    """No half-made task: a branch without memory is taken back, if nobody has used it yet."""
    before = plumbing.head_branch(at.checkout) or wanted.head
    try:
        yield
    except BaseException:
        made = plumbing.commit_of(at.checkout, f"refs/heads/{wanted.branch}")
        if made == wanted.start and plumbing.task_of_branch(at.checkout, wanted.branch) is None:
            with undisturbed(), suppress(TaskError):
                _take_back(at, wanted, before)
        raise


def _take_back(at: Place, wanted: _Wanted, before: str | None) -> None:
    from opencode_tasks.git import repository

    off = clean_git_env({"OPENCODE_TASKS_HOOKS": "off"})
    if wanted.worktree is not None:
        if wanted.worktree.exists():
            repository.remove_worktree(at.checkout, wanted.worktree)
        with suppress(OSError):
            wanted.worktree.parent.rmdir()
    elif _is_here(at.checkout, wanted.branch) and before is not None:
        run_attached(("git", "checkout", "--quiet", before, "--"), cwd=at.checkout.top, env=off)
    if not _is_here(at.checkout, wanted.branch):
        repository.delete_branch(at.checkout, wanted.branch, wanted.start)


def _is_here(checkout: Checkout, branch: str) -> bool:
    return plumbing.head_branch(checkout) == branch
