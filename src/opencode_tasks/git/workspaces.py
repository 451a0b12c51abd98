"""Which task occupies which work tree.

`switch` brings tasks into agreement with the branch that is checked out *now*. It looks
at the state and not at what happened, so a hook that never ran (`--no-verify`, a GUI, a
crash) is made good by the next call, from wherever it comes.
"""

import os
from contextlib import suppress
from pathlib import Path

from opencode_tasks.config_sections import OBEYED, Config
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.events import New
from opencode_tasks.git import discovery, gone, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store, files
from opencode_tasks.store.registry import NewTask
from opencode_tasks.store.tasks import login
from opencode_tasks.task import Base, Status, Task, Workspace, new_id, title_of_branch
from opencode_tasks.values import value

ACTOR = "git"


@value
class Switch:
    """`left` lost the work tree, `entered` has it; `notes` are for the person."""

    left: Task | None = None
    entered: Task | None = None
    created: bool = False
    notes: tuple[str, ...] = ()


def switch(store: Store, checkout: Checkout, config: Config, *, actor: str, new: NewTask | None = None) -> Switch:
    """Pause the task that was left, make or resume the one whose branch is checked out.

    `new`: what a task of that branch begins with. Its name is nobody else's, in any case.
    """
    branch = plumbing.occupying_branch(checkout)
    before = occupant(checkout)
    created, entered, notes = False, None, []
    if new is not None and new.branch != branch:
        new = None  # somebody checked out another branch since
    if branch is not None:
        created, entered = _task_for(store, checkout, config, branch, actor=actor, new=new)
    if created and entered and new is None and (twin := _case_twin(checkout, entered.branch)):
        notes.append(f"branch {twin} differs only in case: on some file systems the two are one")
    left = None
    if before is not None and (entered is None or before != entered.id):
        left = _leave(store, before, branch, actor)
    if entered is not None:
        if entered.is_open:
            entered = _enter(store, checkout, entered, actor)
        else:
            notes.append(f"task {entered.id} is {entered.status}: it is not resumed")
    if entered is None or not entered.is_open:
        checkout.occupant_file.unlink(missing_ok=True)
    publish_branches(store, checkout, config)
    return Switch(left, entered, created, tuple(notes))


def occupant(checkout: Checkout) -> str | None:
    """The id of the task that owns this work tree, as the last `switch` left it."""
    with suppress(FileNotFoundError):
        return checkout.occupant_file.read_text().strip() or None
    return None


def current_task(store: Store, checkout: Checkout) -> Task:
    """The task of the branch that is checked out here. Raises `NoTaskError`."""
    store.require()
    branch = plumbing.occupying_branch(checkout)
    if branch is None:
        raise NoTaskError(f"HEAD is detached in {checkout.top}: no branch, no task", hint="git checkout task/<name>")
    found = tied(store, checkout, branch)
    if found is None:
        raise NoTaskError(
            f"Branch {branch} has no task",
            hint="opencode-tasks create-task TITLE, or name one: opencode-tasks list-tasks",
        )
    return found


def task_here(store: Store, checkout: Checkout) -> Task | None:
    """`current_task`, or None."""
    with suppress(NoTaskError):
        return current_task(store, checkout)
    return None


def tied(store: Store, checkout: Checkout, branch: str) -> Task | None:
    """The task of `branch`. A rename, which git tells nobody, is recorded when it is seen here."""
    task_id = plumbing.task_of_branch(checkout, branch)
    if task_id is None:
        return None
    with suppress(NoTaskError):
        task = store.get(task_id)
        if task.branch == branch:
            return task
        if plumbing.task_of_branch(checkout, task.branch) != task_id:
            return store.record(task_id, ("branch.renamed", {"from": task.branch, "to": branch}), actor=ACTOR)
        # Both names carry it: `git branch -c` copied the configuration, and the task stays where it was.
    return None


def settled(store: Store, checkout: Checkout, task: Task) -> Task:
    """`task` as git has it now: its branch may have been renamed, its worktree moved, and no hook told us."""
    names = [b for b, task_id in plumbing.tasks_by_branch(checkout).items() if task_id == task.id]
    if len(names) == 1 and names[0] != task.branch:
        task = tied(store, checkout, names[0]) or task
    if holds(task, Path(task.workspace.path), checkout):
        return task
    for top in work_trees(checkout):
        found = holds(task, top, checkout)
        if found:
            return store.record(task.id, ("workspace.moved", {"workspace": vars(_workspace(found))}), actor=ACTOR)
    if task.status == "running" and gone.is_gone(task):
        with suppress(TaskError):  # closed meanwhile, or nothing can be written now
            return store.ensure_status(task.id, "paused", reason=gone.REASON, actor=ACTOR)
    return task


def holds(task: Task, top: Path, beside: Checkout) -> Checkout | None:
    """The work tree at `top`, when it is of this repository and has the task's branch checked out now."""
    try:
        checkout = discovery.find(top, {})
    except TaskError:
        return None
    if checkout.top != top or checkout.common_dir != beside.common_dir:
        return None
    if plumbing.occupying_branch(checkout) != task.branch:
        return None
    # A deleted task branch's name may belong to another task by now.
    owned = occupant(checkout) == task.id or plumbing.task_of_branch(checkout, task.branch) == task.id
    return checkout if owned else None


def work_trees(checkout: Checkout) -> list[Path]:
    """The root of every work tree of the repository that still exists."""
    tops = [] if checkout.is_linked else [checkout.top]
    for git_dir in plumbing.worktrees(checkout):
        if git_dir == checkout.common_dir:
            if checkout.is_linked and git_dir.name == ".git":
                tops.append(git_dir.parent)
        else:
            pointer = gone.pointer(git_dir)
            if pointer is not None and pointer.exists():
                tops.append(pointer.parent.resolve())
    return tops


def publish_branches(store: Store, checkout: Checkout, config: Config) -> None:
    """Write what the shims go by: the prefix, the task branches without it, rules for commits, delicate paths."""
    prefix = config.branch.prefix
    others = sorted(b for b in plumbing.tasks_by_branch(checkout) if not b.startswith(prefix))
    lines = [f"prefix {prefix}", *(f"branch {b}" for b in others)]
    if config.branch.pattern or config.branch.protected:
        lines.append("rule branch")
    lines += [f"protected {path}" for path in (".tasks", *OBEYED, *config.container.protected) if "\n" not in path]
    content_b = b"".join(os.fsencode(line) + b"\n" for line in lines)
    with suppress(FileNotFoundError):
        if store.layout.branches.read_bytes() == content_b:
            return
    files.replace(store.layout.branches, content_b)


def _task_for(
    store: Store, checkout: Checkout, config: Config, branch: str, *, actor: str, new: NewTask | None
) -> tuple[bool, Task | None]:
    """Whether it was made just now, and the task of `branch` (None: the branch is no task's)."""
    if new is None:
        found = tied(store, checkout, branch)
        if found is not None:
            return False, found
        if not branch.startswith(config.branch.prefix):
            return False, None
    head = new.base.commit if new is not None else plumbing.head_commit(checkout)
    if head is None:
        return False, None
    with store.registry_lock():
        # Again, now that nobody else can be at it: two hooks of one checkout, or a
        # `create-task` beside a `git checkout -b`.
        found = tied(store, checkout, branch)
        if found is None and new is None:  # a new one is asked for, whoever had the name before
            found = _untied(store, checkout, branch, head)
        created = found is None
        if found is None:
            new = new or _unnamed(checkout, branch, head, config.branch.prefix)
            found = store.create(new, actor=actor, then=[_running("pending")])
        plumbing.tie_branch(checkout, branch, found.id)
    return created, found


def _unnamed(checkout: Checkout, branch: str, head: str, prefix: str) -> NewTask:
    """All that a bare `git checkout -b` tells."""
    title = title_of_branch(branch, prefix)
    base, workspace = _base(checkout, branch, head), _workspace(checkout)
    return NewTask(new_id(title), title, branch, base, workspace, owner=login())


def _untied(store: Store, checkout: Checkout, branch: str, head: str) -> Task | None:
    """An open task of this branch whose tie was lost: a kill in `create`, an `uninstall`.

    Not one whose branch was renamed: another name has its tie.

    A new branch that reuses the name does not contain the commits the old task recorded.
    """
    elsewhere = set(plumbing.tasks_by_branch(checkout).values())
    for task_id in store.index.named(branch)[1]:
        task = store.get(task_id)
        if task.branch == branch and task.is_open and task.id not in elsewhere:
            newest = task.commits.last or task.base.commit
            if plumbing.is_ancestor(checkout, newest, head):
                return task
    return None


def _base(checkout: Checkout, branch: str, head: str) -> Base:
    """The branch it came from, and the commit where the two part."""
    main = Checkout(checkout.top, checkout.common_dir, checkout.common_dir)
    candidates = (plumbing.previous_branch(checkout), plumbing.head_branch(main), "main", "master")
    for candidate in candidates:
        if candidate is None or candidate == branch:
            continue
        found = plumbing.git(checkout, "merge-base", f"refs/heads/{candidate}", head, check=False)
        if found.code == 0:
            return Base(candidate, found.out.strip())
    return Base(None, head)


def _workspace(checkout: Checkout) -> Workspace:
    return Workspace("worktree" if checkout.is_linked else "in-place", str(checkout.top))


def _case_twin(checkout: Checkout, branch: str) -> str | None:
    return next((b for b in local_branches(checkout) if b != branch and b.lower() == branch.lower()), None)


def local_branches(checkout: Checkout) -> list[str]:
    listed = plumbing.git(checkout, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/")
    return listed.out.splitlines()


def _leave(store: Store, task_id: str, branch: str | None, actor: str) -> Task | None:
    with suppress(NoTaskError):
        task = store.get(task_id)
        if task.status == "running":
            return store.ensure_status(task_id, "paused", reason=f"checked out {branch or 'a commit'}", actor=actor)
        return task
    return None


def _running(status: Status) -> New:
    return "status.changed", {"from": status, "to": "running", "reason": "checked out"}


def _enter(store: Store, checkout: Checkout, task: Task, actor: str) -> Task:
    here = _workspace(checkout)
    changes: list[New] = []
    if task.workspace != here:
        changes.append(("workspace.moved", {"workspace": vars(here)}))
    if task.status != "running":
        changes.append(_running(task.status))
    if changes:
        try:
            task = store.record(task.id, *changes, actor=actor)
        except TaskError as e:
            if e.code != "transition":
                raise
            task = store.get(task.id)  # another hook was here first
    if occupant(checkout) != task.id:
        files.replace(checkout.occupant_file, f"{task.id}\n".encode())
    return task
