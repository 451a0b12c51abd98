"""What the plugin's child knows while it lives: the sessions of one OpenCode in one directory."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_tasks.commands import here
from opencode_tasks.commands.here import Here
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.opencode_hooks.names import BRIDGE, REFUSED, TASK
from opencode_tasks.store import leases
from opencode_tasks.task import LEASE, Lease, Task

Said = Mapping[str, Any]
Reply = dict[str, Any]


class Session:
    """One root session; what its subagents do counts as its own. `seen_rev`: the task's when it was last told of it."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.task_id = ""
        self.refused = ""
        self.is_told = False
        self.decided: set[str] = set()


class World:
    def __init__(self, directory: Path, pid: int, socket_path: str) -> None:
        self.directory, self.pid, self.socket_path = directory, pid, socket_path
        self.sessions: dict[str, Session] = {}
        self.held: dict[str, Lease] = {}

    @property
    def agent(self) -> str:
        """One for a whole OpenCode: whoever started it drives all its sessions."""
        return f"opencode-{self.pid}"

    def session(self, said: Said) -> Session:
        name = str(said.get("root") or said.get("session") or "")
        return self.sessions.setdefault(name, Session(name))

    def here(self) -> Here | None:
        """As it is now; None where `init` has not been run."""
        try:
            at = here.find(self.directory, hot=True)
        except TaskError as e:
            if e.code in ("not_a_repository", "bare_repository"):
                return None
            raise
        if not at.store.exists():
            return None
        at.store.recover()
        return at

    def working(self, said: Said) -> tuple[Here, Task, Session] | None:
        """The task on which the session works, under its lease. None: there is none, or it may not."""
        at, session = self.here(), self.session(said)
        if at is None:
            return None
        try:
            task = at.task(None)
        except NoTaskError:
            self._left(at, session)
            return None
        if session.task_id != task.id:
            self._left(at, session)
            session.task_id = task.id
        if not task.is_open:
            self.detach(at, task.id, reason=f"the task is {task.status}")
            session.refused = (
                f"Task {task.id} is {task.status}: nothing is done in it any more. A person checks out another branch"
            )
            return None
        return (at, task, session) if self._holds(at, task, session) else None

    def _holds(self, at: Here, task: Task, session: Session) -> bool:
        try:
            lease = at.store.attach(
                task.id, self.agent, actor=f"agent:{self.agent}", mode=at.config.opencode.mode, pid=self.pid
            )
        except ConflictError as e:
            session.refused = f"{e.message}. {e.hint}"
            return False
        self.held[task.id] = lease
        at.store.under = (task.id, lease)
        session.refused = ""
        return True

    def _left(self, at: Here, session: Session) -> None:
        before, session.task_id, session.refused, session.is_told = session.task_id, "", "", False
        if before and all(other.task_id != before for other in self.sessions.values()):
            self.detach(at, before, reason="another branch was checked out")

    def detach(self, at: Here, task_id: str, *, reason: str) -> None:
        lease = self.held.pop(task_id, None)
        if lease is not None:
            with suppress(TaskError):
                actor = f"agent:{self.agent}"
                at.store.detach(task_id, self.agent, actor=actor, epoch=lease.epoch, reason=reason)

    def state(self, said: Said) -> Reply:
        """What OpenCode's side keeps of the session: the environment of its commands, and its memory if that is new."""
        session = self.session(said)
        env = {BRIDGE: self.socket_path, TASK: session.task_id}
        if session.task_id:
            lease = self.held.get(session.task_id)
            if lease is not None:
                env[LEASE] = leases.text(session.task_id, lease)
        if session.refused:
            env[REFUSED] = session.refused
        return {"task": session.task_id, "refused": session.refused, "env": env}


def log_changed(at: Here, task: Task, session: Session, to: str, detail: str = "") -> None:
    data = {"session": session.id, "to": to, "detail": detail}
    at.store.record(task.id, ("session.changed", data), actor=at.actor, has_happened=True)
