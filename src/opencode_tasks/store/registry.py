"""The tasks of one clone: create, read, list, record events."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks import events
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError, Data, Event
from opencode_tasks.store import files, log, state
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.store.log import Head
from opencode_tasks.task import Base, Status, Task, Workspace, is_id

_UNFINISHED = ".new-"


class Store:
    """`hot` is for git hooks: the same locks and bytes with fewer imports.

    Every method may be called by several processes at the same time.
    """

    def __init__(self, common_dir: Path, *, hot: bool = False) -> None:
        self.layout = Layout(common_dir)
        self.hot = hot

    def exists(self) -> bool:
        return self.layout.store.is_dir()

    def require(self) -> None:
        """Raises `TaskError` (code `not_initialised`)."""
        if not self.exists():
            raise TaskError("This repository has no task store", hint="opencode-tasks init", code="not_initialised")

    def make(self) -> bool:
        """Make the store's directories; False when they were there."""
        made = not self.exists()
        with files.refused_writes(self.layout.root):
            # 0700: events hold command lines, and checkpoints whatever lies in the workspace.
            self.layout.root.mkdir(mode=0o700, exist_ok=True)
            self.layout.store.mkdir(exist_ok=True)
            self.layout.locks.mkdir(exist_ok=True)
        if not self.layout.clone.exists():
            with self.registry_lock():  # two of them must not give this clone two names
                if not self.layout.clone.exists():
                    files.replace(self.layout.clone, f"{os.urandom(4).hex()}\n".encode(), durable=True)
        return made

    @property
    def clone_id(self) -> str:
        try:
            return self.layout.clone.read_text().strip()
        except FileNotFoundError as e:
            raise TaskError(f"{self.layout.clone} is missing", hint="opencode-tasks init") from e

    @property
    def writer(self) -> str:
        """This clone on this host: never a process, so that a log has few writers."""
        host = re.sub(r"[^a-z0-9]+", "-", os.uname().nodename.lower()).strip("-") or "host"
        return f"{self.clone_id}-{host[:32]}"

    @contextmanager
    def registry_lock(self) -> Iterator[None]:
        with locked(self.layout.locks / "registry.lock", hot=self.hot):
            yield

    @contextmanager
    def create_lock(self) -> Iterator[None]:
        """One `create-task` at a time picks a name and a branch. Taken before every other lock."""
        with locked(self.layout.locks / "create.lock", hot=self.hot, timeout_s=60):
            yield

    @contextmanager
    def checkpoint_lock(self, *, timeout_s: float = 60) -> Iterator[None]:
        with locked(self.layout.locks / "checkpoints.lock", hot=self.hot, timeout_s=timeout_s):
            yield

    def create(
        self,
        *,
        id: str,  # noqa: A002 (the field's name)
        title: str,
        branch: str,
        base: Base,
        workspace: Workspace,
        image: str | None,
        actor: str,
    ) -> Task:
        """A new task, whole or not at all: it is built aside and renamed into its place.

        Under the registry lock. Raises `ConflictError` when the id is taken.
        """
        self.require()
        data = {
            "id": id,
            "title": title,
            "branch": branch,
            "base": vars(base),
            "workspace": vars(workspace),
            "image": image,
        }
        building = self.layout.store / f"{_UNFINISHED}{id}"
        try:
            with files.refused_writes(building):
                (building / "log").mkdir(parents=True)
            path = log.segment(building / "log", self.writer)
            first, head = log.append(path, self.writer, Head(), actor, [("task.created", data)])
            task = events.fold(first)
            _write_documents(building, task)
            state.write(building / "state.json", task, head)
            # Exclusive: rename fails when the target exists, for no task is an empty directory.
            with files.refused_writes(self.layout.task(id)):
                building.rename(self.layout.task(id))
        except BaseException as e:
            _delete(building)
            if isinstance(e, OSError) and e.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise ConflictError(f"The task id {id} is taken", hint="try again") from e
            raise
        files.sync_dir(self.layout.store)
        return task

    def record(self, task_id: str, *new: tuple[str, Data], actor: str) -> Task:
        """Append events and bring the projection up to date; the task as it is then.

        Refused whole when one of them is not possible now (`TaskError`, code `transition`).
        """
        with self._locked_task(task_id) as (task, head):
            return self._append(task, head, new, actor)

    def ensure_status(self, task_id: str, to: Status, *, reason: str, actor: str) -> Task:
        """`record` a change of status unless the task has it already."""
        with self._locked_task(task_id) as (task, head):
            if task.status == to:
                return task
            change = ("status.changed", {"from": task.status, "to": to, "reason": reason})
            return self._append(task, head, (change,), actor)

    def _append(self, task: Task, head: Head, new: tuple[tuple[str, Data], ...], actor: str) -> Task:
        events.check(task, new)
        path = self._segment(task.id)
        written, head = log.append(path, self.writer, head, actor, new)
        for event in written:
            task = events.apply(task, event)
        with suppress(TaskError):  # the log has it; the projection catches up at the next write
            state.write(self.layout.state(task.id), task, head)
        return task

    @contextmanager
    def _locked_task(self, task_id: str) -> Iterator[tuple[Task, Head]]:
        self._require_task(task_id)
        with locked(self.layout.locks / f"{task_id}.lock", hot=self.hot):
            projected = self._projection(task_id)
            written_bytes = projected[1].size_bytes if projected else 0
            log.repair_tail(self._segment(task_id), written_bytes=written_bytes)
            yield self._load(task_id)

    def _segment(self, task_id: str) -> Path:
        """The task's log keeps the name it began with: laptops change theirs with the network."""
        own = log.segment(self.layout.log(task_id), self.writer)
        found = log.segments(own.parent)
        return own if own in found or not found else found[0]

    def _require_task(self, task_id: str) -> None:
        if not is_id(task_id) or not self.layout.task(task_id).is_dir():
            raise NoTaskError(f"There is no task {task_id}", hint="opencode-tasks list-tasks")

    def _load(self, task_id: str) -> tuple[Task, Head]:
        """The projection, if it is sound, and what the log has beyond it; else the whole log."""
        path = self._segment(task_id)
        projected = self._projection(task_id)
        if projected is not None:
            # One that is sound and continues no record is of another history: the log decides.
            with suppress(FileNotFoundError, CorruptError):
                if projected[1].size_bytes <= path.stat().st_size:
                    return _continue(*projected, path)
        return _continue(None, Head(), path)

    def _projection(self, task_id: str) -> tuple[Task, Head] | None:
        try:
            task, head = state.read(self.layout.state(task_id))
        except FileNotFoundError:
            return None
        except CorruptError:
            with suppress(OSError):
                state.keep_corrupt(self.layout.state(task_id))
            return None
        return (task, head) if task.id == task_id else None

    def get(self, task_id: str) -> Task:
        """Raises `NoTaskError`, or `CorruptError` when the log itself is damaged."""
        self._require_task(task_id)
        return self._load(task_id)[0]

    def ids(self) -> list[str]:
        try:
            names = [entry.name for entry in os.scandir(self.layout.store) if entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if is_id(name))

    def all(self) -> list[Task]:
        """Every task, newest first, less those that are `damaged`."""
        return self.survey()[0]

    def damaged(self) -> dict[str, str]:
        """Id to what is wrong, for tasks whose log cannot be read. One must not take the others along."""
        return self.survey()[1]

    def survey(self) -> tuple[list[Task], dict[str, str]]:
        """`all` and `damaged` in one pass."""
        tasks: list[Task] = []
        damaged: dict[str, str] = {}
        for task_id in self.ids():
            try:
                tasks.append(self.get(task_id))
            except NoTaskError:
                continue  # deleted meanwhile
            except TaskError as e:
                damaged[task_id] = e.message
        tasks.sort(key=lambda t: (t.created_at, t.id), reverse=True)
        return tasks, damaged

    def resolve(self, text: str) -> Task:
        """The task with this id, unique prefix of an id, or branch. Raises `NoTaskError`."""
        ids = self.ids()
        if text in ids:
            return self.get(text)
        starting = [i for i in ids if text and i.startswith(text)]
        if len(starting) == 1:
            return self.get(starting[0])
        if len(starting) > 1:
            raise NoTaskError(
                f"{text!r} is the beginning of {len(starting)} tasks", hint="one of: " + ", ".join(starting)
            )
        found = [t for t in self.all() if t.branch == text]
        if not found:
            raise NoTaskError(f"There is no task {text!r}", hint="opencode-tasks list-tasks")
        return next((t for t in found if t.is_open), found[0])

    def history(self, task_id: str) -> Iterator[Event]:
        """Every event of the task, oldest first, each verified."""
        self._require_task(task_id)
        for path in log.segments(self.layout.log(task_id)):
            for event, _ in log.read(path):
                yield event

    def sweep_unfinished(self) -> list[str]:
        """Remove what a killed `create` left behind. Only under the registry lock."""
        left = [p for p in self.layout.store.glob(f"{_UNFINISHED}*") if p.is_dir()]
        for path in left:
            _delete(path)
        return [p.name for p in left]


def _continue(task: Task | None, head: Head, path: Path) -> tuple[Task, Head]:
    for event, reached in log.read(path, head):
        task, head = events.apply(task, event), reached
    if task is None:
        raise CorruptError(f"{path} holds no whole record", hint="opencode-tasks doctor")
    return task, head


def _write_documents(task_dir: Path, task: Task) -> None:
    from opencode_tasks.store import documents

    documents.write_first(task_dir, task)


def _delete(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def login() -> str:
    """Who runs us, for the log."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
