"""The way to a command: the task's container brought up, kept as it is, and a session in it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import holds, links, ready, sockets
from opencode_tasks.containers.linked import LinkedSession
from opencode_tasks.containers.links import Link
from opencode_tasks.containers.session import Session
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store import Store
from opencode_tasks.task import Task

if TYPE_CHECKING:  # docker-py takes longer than most commands
    from opencode_tasks.containers.engine import Engine, Found

    SetUp = Callable[[Found, "Connect"], None]

Connect = Callable[[bool, int], Session]
"""`use_tty` and `stdout_fd` to a session for one command."""

# So long after its start a container may not have its supervisor yet.
_STARTING_S = 3.0
_POLL_S = 0.01


@contextmanager
def session(
    store: Store,
    config: Config,
    task: Task,
    *,
    actor: str,
    use_tty: bool,
    stdout_fd: int = 1,
    set_up: "SetUp | None" = None,
) -> Iterator[Session]:
    """Through the supervisor where it answers, else through the engine. Raises `TaskError`.

    `set_up` is called with the container first, unless it was for this very start of it; it may open sessions.
    """
    with holds.used(store, task.id):
        link = _of_a_ready_one(store, config, task)
        if link is not None:
            yield _linked(link, str(task.container.id), use_tty, stdout_fd)
            return
    from opencode_tasks.containers import agreement, follow
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.containers.runner import EngineSession

    engine = Engine()
    agreement.in_passing(store, engine, config, Path(task.workspace.path))
    follow.bring_up(store, engine, config, task, actor=actor)
    with holds.used(store, task.id):
        found = _as_it_is(store, engine, config, task, actor)
        if store.get(task.id).status != "running":
            # It was left while we started its container: that must not run in the next one's files.
            follow.follow(store, engine, config, task.id, actor=actor)
            raise ConflictError(
                f"Task {task.id} was left while its container started", hint=f"git checkout {task.branch}"
            )

        def connect(use_tty: bool, stdout_fd: int) -> Session:
            link = _link(store, task.id, found)
            if link is not None:
                return _linked(link, found.id, use_tty, stdout_fd)
            return EngineSession(engine, found.id, use_tty=use_tty, stdout_fd=stdout_fd)

        if set_up is not None:
            set_up(found, connect)
        session = connect(use_tty, stdout_fd)
        if isinstance(session, LinkedSession) and follow.is_current(store, engine, config, task, found):
            ready.remember(store, config, task, found.id)
        yield session


@contextmanager
def as_it_is(store: Store, task_id: str) -> Iterator[Session | None]:
    """In what runs now, for a command of ours: nothing is started or made anew. None: nothing runs.

    What was frozen by somebody who was killed is thawed. Raises `TaskError`.
    """
    with holds.used(store, task_id), ExitStack() as held:
        with holds.still(store, task_id):  # what others hold still for a moment does run
            session = _of_what_runs(store, task_id)
        if isinstance(session, LinkedSession):
            held.callback(session.close)
        yield session


def _of_what_runs(store: Store, task_id: str) -> Session | None:
    task = store.get(task_id)
    known = task.container
    folder = sockets.folder(store.clone_id, task_id) if known.state == "running" else None
    link = None if folder is None else links.connect(folder)
    if link is not None:
        return _linked(link, str(known.id), use_tty=False, stdout_fd=1)
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.containers.runner import EngineSession
    from opencode_tasks.containers.spec import LABEL, container_name

    engine = Engine()
    found = engine.find(container_name(task_id))
    if found is None or found.labels.get(f"{LABEL}.clone") != store.clone_id:
        return None
    if found.state == "paused" and task.status == "running":
        engine.unpause(found.id)
    elif found.state != "running":
        return None
    link = _link(store, task_id, found)
    if link is not None:
        return _linked(link, found.id, use_tty=False, stdout_fd=1)
    return EngineSession(engine, found.id, use_tty=False)


def _linked(link: Link, container: str, use_tty: bool, stdout_fd: int) -> LinkedSession:
    return LinkedSession(link, container, is_paused=lambda: _is_paused(container), use_tty=use_tty, stdout_fd=stdout_fd)


def _of_a_ready_one(store: Store, config: Config, task: Task) -> Link | None:
    if not ready.is_ready(store, config, task):
        return None
    folder = sockets.folder(store.clone_id, task.id)
    return None if folder is None else links.connect(folder)


def _as_it_is(store: Store, engine: "Engine", config: Config, task: Task, actor: str) -> "Found":
    """Somebody may have made it anew before we said that we use it."""
    from opencode_tasks.containers import follow
    from opencode_tasks.containers.spec import container_name

    found = engine.find(container_name(task.id))
    if found is None or found.state != "running":
        return follow.bring_up(store, engine, config, task, actor=actor)
    return found


def _link(store: Store, task_id: str, found: "Found") -> Link | None:
    folder = sockets.folder(store.clone_id, task_id)
    while folder is not None:
        link = links.connect(folder)
        if link is not None or links.is_absent(folder) or _age_s(found) > _STARTING_S:
            return link
        time.sleep(_POLL_S)
    return None


def _age_s(found: "Found") -> float:
    try:
        started = datetime.fromisoformat(found.started_at[:19]).replace(tzinfo=UTC)
    except ValueError:
        return _STARTING_S + 1
    return (datetime.now(UTC) - started).total_seconds()


def _is_paused(container: str) -> bool:
    """In a thread of its own, and so with a client of its own."""
    from opencode_tasks.containers.engine import Engine

    try:
        found = Engine().find(container)
    except TaskError:
        return False
    return found is not None and found.state == "paused"
