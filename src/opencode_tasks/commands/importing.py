"""What was committed inside a task's container, on our branch and written down: around every command in it."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.containers.session import Session
from opencode_tasks.errors import TaskError
from opencode_tasks.git import private
from opencode_tasks.store.locks import locked
from opencode_tasks.task import Task

if TYPE_CHECKING:
    from opencode_tasks.git.discovery import Checkout
    from opencode_tasks.git.incoming import Kind, RefusedError

_MOST_RECORDED = 200


def sync(at: Here, task: Task, session: Session) -> None:
    """When anything moved. What goes wrong is told and stops no command."""
    checkout = workspace_of(at, task)
    if checkout is None or not private.is_due(at.store.layout, checkout, task.id, task.branch):
        return
    from opencode_tasks.git.incoming import RefusedError

    try:
        for line in run(at, task, checkout, session):
            _tell(line)
    except RefusedError as e:
        _tell(f"commits of the container were not taken:\n  {e.message}")
        _tell(hint(task, e))
    except TaskError as e:
        _tell(f"{e.message}" + (f"\n  {e.hint}" if e.hint else ""))


def settle(at: Here) -> None:
    """Branches that were being moved when a process was killed: git may find its index locked until then."""
    from opencode_tasks.git import advance

    for journal in at.store.layout.private_git("x").parent.parent.glob("*/moving.json"):
        with suppress(TaskError):
            task = at.store.get(journal.parent.name)
            checkout = workspace_of(at, task)
            if checkout is not None:
                with locked(at.store.layout.lock(f"{task.id}.git"), timeout_s=0):
                    advance.finish(checkout, task.branch, journal)


def ask(at: Here, task: Task, workspace: "Checkout | None") -> None:
    """Takes what the container's git may still have, where it runs; what then is left is `private.untaken`."""
    if workspace is None or task.status != "running" or task.container.state != "running":
        return
    if not private.untaken(at.store.layout, task.id, task.branch):
        return
    from opencode_tasks.containers import opening

    try:
        with opening.session(at.store, at.config, task, actor=at.actor, use_tty=False) as session:
            sync(at, task, session)
    except TaskError as e:
        _tell(f"{e.message}" + (f"\n  {e.hint}" if e.hint else ""))


def hint(task: Task, refused: "RefusedError") -> str:
    accept = " ".join(f"--accept {kind}" for kind in refused.kinds)
    if accept:
        return f"look at them inside: git log -p; a person who wants them all the same: {command(task)} {accept}"
    return f"they stay in the container's own git; mended inside, they come with the next command, or: {command(task)}"


def command(task: Task) -> str:
    return f"opencode-tasks import-commits {task.id}"


def run(
    at: Here,
    task: Task,
    checkout: "Checkout",
    session: Session,
    *,
    accepted: "Sequence[Kind]" = (),
    rewrite: bool = False,
    again: bool = False,
) -> list[str]:
    """What the person and the agent should know. Raises `TaskError`."""
    from opencode_tasks.containers.git_sync import Sync
    from opencode_tasks.git.incoming import RefusedError

    lines: list[str] = []
    both = Sync(
        at.store,
        at.config,
        task,
        checkout,
        session,
        arrived=lambda old, new: lines.extend(_recorded(at, task, checkout, old, new)),
    )
    try:
        notes = both.run(accepted=accepted, rewrite=rewrite, again=again)
    except RefusedError as e:
        refused = {"branch": task.branch, "reasons": list(e.reasons)}
        at.store.record(task.id, ("commit.refused", refused), actor=at.actor, has_happened=True)
        raise
    return [*lines, *notes]


def _recorded(at: Here, task: Task, checkout: "Checkout", old: str, new: str) -> list[str]:
    """As the hook post-commit does; nothing when a process that was killed has done it."""
    from opencode_tasks.git import incoming, overlap_warning, plumbing
    from opencode_tasks.store import plan_edits

    found = incoming.commits(checkout, new, (old,), most=_MOST_RECORDED)
    if at.store.get(task.id).commits.last in {sha for sha, *_ in found}:
        return []  # they are written down together
    if not found:
        return []
    events: list[tuple[str, dict[str, object]]] = [
        ("commit.recorded", {"sha": sha, "parents": parents, "subject": subject, "branch": task.branch})
        for sha, parents, subject, _ in found
    ]
    if not plumbing.is_ancestor(checkout, old, new):
        gone = incoming.commits(checkout, old, (new,), most=_MOST_RECORDED)
        rewritten = [[sha, new] for sha, *_ in gone]
        events.append(("commit.rewritten", {"by": "amend", "branch": task.branch, "head": new, "rewritten": rewritten}))
    at.store.record(task.id, *events, actor=at.actor, has_happened=True)
    for sha, _, subject, body in found:
        said = plan_edits.Commit(sha, subject, body)
        plan_edits.check_by_commit(at.store, task.id, said, match_words=at.config.plan.match_words, actor=at.actor)
    return overlap_warning.lines(at.store, checkout, task.id) if at.config.git.overlaps else []


def _tell(line: str) -> None:
    sys.stderr.write(f"opencode-tasks: {line}\n")
