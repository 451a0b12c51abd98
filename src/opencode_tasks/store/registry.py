"""The tasks of one clone together: create, list, find, change several at once."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks import fold
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import New
from opencode_tasks.store import files, log, state
from opencode_tasks.store.agents import Agents
from opencode_tasks.store.deciding import Deciding
from opencode_tasks.store.feed import Entry
from opencode_tasks.store.layout import UNFINISHED
from opencode_tasks.store.locks import locked, shared
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.store.stream import label
from opencode_tasks.task import Base, Choice, Task, Workspace, is_id
from opencode_tasks.values import value

if TYPE_CHECKING:  # the index costs a hook nothing
    from opencode_tasks.store.index import Index
    from opencode_tasks.store.transactions import Append


@value
class NewTask:
    """What a task begins with."""

    id: str
    title: str
    branch: str
    base: Base
    workspace: Workspace
    image: str | None = None
    owner: str | None = None
    parent: str | None = None
    depends_on: tuple[str, ...] = ()
    limits: Choice = Choice()


class Store(Agents, Deciding):
    """The memory of one clone. What `Streams` says of its arguments and of processes holds here, too."""

    def make(self) -> bool:
        """Make the store's directories; False when they were there. Raises `TaskError` on a network file system."""
        from opencode_tasks.store.filesystem import require_local

        require_local(self.layout.common_dir)
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

    @contextmanager
    def registry_lock(self) -> Iterator[None]:
        with locked(self.layout.lock("registry"), hot=self.hot):
            yield

    @contextmanager
    def checkpoint_lock(self, task_id: str, *, timeout_s: float = 60) -> Iterator[None]:
        """Of one task's checkpoints. Other tasks' go on."""
        with (
            locked(self.layout.lock(f"{task_id}.checkpoints"), hot=self.hot, timeout_s=timeout_s),
            shared(self.layout.lock("checkpoints"), timeout_s=timeout_s),
        ):
            yield

    @contextmanager
    def all_checkpoints_lock(self, *, timeout_s: float = 60) -> Iterator[None]:
        """Of the checkpoints of every task."""
        with locked(self.layout.lock("checkpoints"), hot=self.hot, timeout_s=timeout_s):
            yield

    def create(self, new: NewTask, *, actor: str, then: Sequence[New] = ()) -> Task:
        """A new task, whole or not at all: it is built aside and renamed into its place. `then`: its next events.

        Under the registry lock: what is built aside would else be swept away.
        Raises `ConflictError` when the id is taken, `NoTaskError` when the parent is not there.
        """
        if new.parent is not None:
            task = self.create_many([new], actor=actor)[0]
            return self.record(task.id, *then, actor=actor) if then else task
        self.require()
        building = self.layout.store / f"{UNFINISHED}{new.id}"
        try:
            task = self._build(building, new, actor, then=then)
            told = (Entry(new.id, rev, label(event)) for rev, event in enumerate(then, 2))
            self._feed.note(Entry(new.id, 1, "task.created"), *told)
            # Exclusive: rename fails when the target exists, for no task is an empty directory.
            with files.refused_writes(self.layout.task(new.id)):
                building.rename(self.layout.task(new.id))
        except BaseException as e:
            _delete(building)
            if isinstance(e, OSError) and e.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise _taken(new.id) from e
            raise
        files.sync_dir(self.layout.store)
        self.written += ["task.created", *(type_ for type_, _ in then)]
        return task

    def create_many(self, new: Sequence[NewTask], *, actor: str) -> list[Task]:
        """All of them or none. A parent gets its child in the same transaction. Under the registry lock."""
        from opencode_tasks.store import transactions

        self.require()
        parents: dict[str, list[New]] = {}
        for task in new:
            if task.parent is not None:
                parents.setdefault(task.parent, []).append(("child.added", {"id": task.id}))
        ids = [task.id for task in new]
        within = {p: parents.pop(p) for p in list(parents) if p in ids}
        if len(set(ids)) != len(ids):
            raise ConflictError("Two of the new tasks have the same id", hint="give each its own")
        try:
            with transactions.all_locked(self.layout, set(parents), hot=self.hot):
                made = [self._built_aside(task, actor, then=within.get(task.id, ())) for task in new]
                appended = [self._prepared(parent, events, actor) for parent, events in parents.items()]
                self._feed.note(*(Entry(task.id, task.rev, "task.created") for task in made))
                transactions.commit(self.layout, transactions.Transaction(tuple(ids), tuple(appended)))
        except BaseException:
            committed = {i for _, t in transactions.pending(self.layout) for i in t.created}
            for task_id in set(ids) - committed:
                _delete(self.layout.store / f"{UNFINISHED}{task_id}")
            raise
        self.written.append("task.created")
        return made

    def _built_aside(self, new: NewTask, actor: str, *, then: Sequence[New]) -> Task:
        if self.layout.task(new.id).exists():
            raise _taken(new.id)
        return self._build(self.layout.store / f"{UNFINISHED}{new.id}", new, actor, then=then)

    def _build(self, building: Path, new: NewTask, actor: str, *, then: Sequence[New] = ()) -> Task:
        from opencode_tasks.store import documents

        if not is_id(new.id):
            raise TaskError(f"{new.id!r} is not a task's id", hint="task.new_id makes one", code="usage")
        _delete(building)
        with files.refused_writes(building):
            (building / "log").mkdir(parents=True)
        data = {**vars(new), "base": vars(new.base), "workspace": vars(new.workspace), "limits": vars(new.limits)}
        events, content_b, head = log.lines(self.writer, Head(), 0, actor, 0, [("task.created", data), *then])
        log.append(building / "log" / log.name_of(self.writer, 1), 0, content_b)
        task = fold.fold(events)
        documents.write_first(building, task)
        state.write(building / "state.json", task, Position({self.writer: head}, events[-1].key))
        return task

    def record_many(
        self, new: Mapping[str, Sequence[New]], *, actor: str, expected_rev: Mapping[str, int] | None = None
    ) -> list[Task]:
        """Append to several tasks: to all of them or to none."""
        from opencode_tasks.store import transactions

        for task_id in new:
            self._require_task(task_id)
        transactions.recover(self.layout, hot=self.hot)
        with transactions.all_locked(self.layout, set(new), hot=self.hot):
            for task_id in new:
                self._require_current(self._stream(task_id).load()[0], (expected_rev or {}).get(task_id), None)
            appended = tuple(self._prepared(task_id, events, actor) for task_id, events in new.items())
            transactions.commit(self.layout, transactions.Transaction((), appended))
            made = []
            for task_id, events in new.items():
                task, at = self._stream(task_id).load()
                self._stream(task_id).project(task, at)
                self.written += [type_ for type_, _ in events]
                made.append(task)
        return made

    def _prepared(self, task_id: str, new: Sequence[New], actor: str) -> "Append":
        """What a transaction will append. Under the task's lock."""
        self._require_task(task_id)
        stream = self._stream(task_id)
        return stream.prepare(stream.load(), new, actor)

    def recover(self) -> None:
        """Carry out what others had committed and were killed in, so that it is listed, too."""
        if self.layout.any_transaction():
            from opencode_tasks.store import transactions

            with suppress(TaskError):  # a store that cannot be written is read as it is
                transactions.recover(self.layout, hot=self.hot)

    def ids(self) -> list[str]:
        try:
            names = [entry.name for entry in os.scandir(self.layout.store) if entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if is_id(name))

    def all(self) -> list[Task]:
        """Every task that is not deleted, newest first, less those that are `damaged`. Reads every task's files."""
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
                task = self.get(task_id)
            except NoTaskError:
                continue  # deleted meanwhile
            except TaskError as e:
                damaged[task_id] = e.message
                continue
            if task.deleted_at is None:
                tasks.append(task)
        tasks.sort(key=lambda t: (t.created_at, t.id), reverse=True)
        return tasks, damaged

    @property
    def index(self) -> "Index":
        """List, find and count without opening every task."""
        from opencode_tasks.store.index import Index

        return Index(self)

    def resolve(self, text: str) -> Task:
        """The task with this id, unique prefix of an id, or branch. Raises `NoTaskError`."""
        if is_id(text) and self.layout.task(text).is_dir():
            return self.get(text)
        starting, of_branch = self.index.named(text)
        if len(starting) == 1:
            return self.get(starting[0])
        if len(starting) > 1:
            shown = ", ".join(starting[:10]) + (" …" if len(starting) > 10 else "")
            raise NoTaskError(f"{text!r} is the beginning of {len(starting)} tasks", hint=f"one of: {shown}")
        if not of_branch:
            raise NoTaskError(f"There is no task {text!r}", hint="opencode-tasks list-tasks")
        found = [self.get(task_id) for task_id in of_branch]
        return next((t for t in found if t.is_open), found[0])

    def rebuild(self, task_id: str) -> Task:
        """Every record read and verified, and the projections made anew from them."""
        with self._locked_task(task_id):
            stream = self._stream(task_id)
            stream.project(*stream.from_start())
            self._project_decisions(task_id)
            return self._sound(task_id)[0]

    def sweep_unfinished(self) -> list[str]:
        """Remove what a killed `create` left behind. Only under the registry lock."""
        from opencode_tasks.store import transactions

        committed = {f"{UNFINISHED}{i}" for _, t in transactions.pending(self.layout) for i in t.created}
        left = [p for p in self.layout.store.glob(f"{UNFINISHED}*") if p.is_dir() and p.name not in committed]
        for path in left:
            _delete(path)
        return [p.name for p in left]


def _taken(task_id: str) -> ConflictError:
    return ConflictError(f"The task id {task_id} is taken", hint="try again")


def _delete(path: Path) -> None:
    if not path.exists():
        return
    import shutil

    shutil.rmtree(path, ignore_errors=True)
