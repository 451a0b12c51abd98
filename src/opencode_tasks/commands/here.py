"""Where a command was called, and the task it speaks of."""

import os
import sys
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path

from opencode_tasks.commands import place
from opencode_tasks.commands.place import Place
from opencode_tasks.errors import TaskError
from opencode_tasks.git import memory, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.opencode import present
from opencode_tasks.store import Store
from opencode_tasks.store.tasks import login
from opencode_tasks.task import LEASE, Lease, Task
from opencode_tasks.values import value


@value
class Here(Place):
    checkout: Checkout
    store: Store

    @property
    def actor(self) -> str:
        """Who is told to have done it: the agent whose lease we write under, else the person."""
        return f"agent:{self.store.under[1].agent}" if self.store.under else f"user:{login()}"

    @property
    def agent(self) -> str:
        """Who holds a lease when no name is given."""
        return self.store.under[1].agent if self.store.under else self.actor

    def task(self, named: str | None) -> Task:
        """The task with this id, prefix of an id or branch; without a name that of the branch here."""
        self.store.require()
        if not named:
            found = workspaces.current_task(self.store, self.checkout)
        else:
            found = workspaces.tied(self.store, self.checkout, named) or self.store.resolve(named)
        return self.settled(found)

    def settled(self, task: Task) -> Task:
        """As git has it now. One whose worktree was taken away is paused, and its container frozen."""
        now = workspaces.settled(self.store, self.checkout, task)
        if task.status == "running" and now.status == "paused":
            from opencode_tasks.containers import handover
            from opencode_tasks.git import gone

            notes = handover.after(self.store, self.checkout, self.config, now, None)
            told = f"the worktree of {now.id} is gone: it is paused; to go on: {gone.way_back(self.checkout, now)}"
            for line in (told, *notes):
                sys.stderr.write(f"opencode-tasks: {line}\n")
        return now


def find(cwd: Path | None = None, *, hot: bool = False) -> Here:
    """Raises `TaskError` outside a checkout. `hot`: see `Store`; for what runs many times a minute."""
    return opened(place.find(cwd), hot=hot)


def opened(at: Place, *, hot: bool = False) -> Here:
    """With its store; see `find`."""
    versions = memory.versions(at.layout)
    store = Store(at.checkout.common_dir, hot=hot, versions=versions, under=_lease())
    _opened.append(store)
    return Here(at.checkout, store)


def require_person(what: str) -> None:
    """Raises `TaskError` (code `persons_decision`) for an agent. `what`: only a person does it."""
    from opencode_tasks.store import leases

    why = leases.agent_here()
    if why:
        raise TaskError(
            f"Only a person {what} ({why})",
            hint="a person runs it in a terminal of their own",
            code="persons_decision",
        )


def _lease() -> tuple[str, Lease] | None:
    said = os.environ.get(LEASE)
    if not said:
        return None
    from opencode_tasks.store import leases

    return leases.given(said)


_opened: list[Store] = []


def close() -> None:
    """At the end of the process: what was written goes into the store's history."""
    while _opened:
        store = _opened.pop()
        if store.under is not None and store.written:
            with suppress(TaskError):
                store.renew(*store.under)
        memory.commit_if_due(store)


def ready(*, hot: bool = False) -> Here:
    """`find`, where `init` has been run."""
    here = find(hot=hot)
    here.store.require()
    here.store.recover()
    for line in present.keep_up(here.checkout):  # a worktree made while hooks were off
        sys.stderr.write(f"opencode-tasks: {line}\n")
    return here


def add_task(parser: ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="id, unique beginning of an id, or branch (default: the branch here)")


def add_expected_rev(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--expected-rev",
        type=int,
        metavar="REV",
        help="refuse unless the task is at this revision: `rev` of its document",
    )


def workspace_of(here: Here, task: Task) -> Checkout | None:
    """The work tree that has the task's branch checked out now."""
    return workspaces.holds(task, Path(task.workspace.path), here.checkout)
