"""The tasks of one clone: create, read, record events, list, find."""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks import fold
from opencode_tasks.errors import ConflictError, NoTaskError, TaskError
from opencode_tasks.events import CorruptError, Event, New
from opencode_tasks.store import files, log, state
from opencode_tasks.store.feed import Entry, Feed
from opencode_tasks.store.layout import UNFINISHED, Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.store.stream import Loaded, Stream
from opencode_tasks.task import Base, Lease, Mode, Status, Task, Workspace, is_id
from opencode_tasks.values import value

if TYPE_CHECKING:  # the index costs a hook nothing
    from opencode_tasks.decisions import Decision, Decisions
    from opencode_tasks.store import damage
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


class Store:
    """`hot` is for git hooks: the same locks and bytes with fewer imports.

    Every method may be called by several processes at the same time; one object is for one thread at
    a time. `versions` gives back what the store's history knows of a task's log. `under`: the lease, and of
    which task, under which this object writes when a call names none.
    """

    def __init__(
        self,
        common_dir: Path,
        *,
        hot: bool = False,
        versions: "damage.Versions | None" = None,
        under: tuple[str, Lease] | None = None,
    ) -> None:
        self.layout = Layout(common_dir)
        self.hot = hot
        self.under = under
        self.written: list[str] = []
        """The types of the events that this object appended, for whoever commits the store's history."""
        self._versions = versions or (lambda _: ())
        self._feed = Feed(self.layout.feed)
        self._streams: dict[str, Stream] = {}
        self._names: tuple[str, str] | None = None

    def exists(self) -> bool:
        return self.layout.store.is_dir()

    def require(self) -> None:
        """Raises `TaskError` (code `not_initialised`)."""
        if not self.exists():
            raise TaskError("This repository has no task store", hint="opencode-tasks init", code="not_initialised")

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

    @property
    def clone_id(self) -> str:
        return self._writer_names()[0]

    @property
    def writer(self) -> str:
        """This clone on this host: never a process, so that a log has few writers."""
        return self._writer_names()[1]

    def _writer_names(self) -> tuple[str, str]:
        if self._names is None:
            try:
                clone = self.layout.clone.read_text().strip()
            except FileNotFoundError as e:
                raise TaskError(f"{self.layout.clone} is missing", hint="opencode-tasks init") from e
            host = re.sub(r"[^a-z0-9]+", "-", os.uname().nodename.lower()).strip("-") or "host"
            self._names = clone, f"{clone}-{host[:32]}"
        return self._names

    @contextmanager
    def registry_lock(self) -> Iterator[None]:
        with locked(self.layout.lock("registry"), hot=self.hot):
            yield

    @contextmanager
    def create_lock(self) -> Iterator[None]:
        """One `create-task` at a time picks a name and a branch. Taken before every other lock."""
        with locked(self.layout.lock("create"), hot=self.hot, timeout_s=60):
            yield

    @contextmanager
    def checkpoint_lock(self, *, timeout_s: float = 60) -> Iterator[None]:
        with locked(self.layout.lock("checkpoints"), hot=self.hot, timeout_s=timeout_s):
            yield

    def create(self, new: NewTask, *, actor: str) -> Task:
        """A new task, whole or not at all: it is built aside and renamed into its place.

        Raises `ConflictError` when the id is taken, `NoTaskError` when the parent is not there.
        """
        if new.parent is not None:
            return self.create_many([new], actor=actor)[0]
        self.require()
        building = self.layout.store / f"{UNFINISHED}{new.id}"
        try:
            task = self._build(building, new, actor)
            self._feed.note(Entry(new.id, 1, "task.created"))
            # Exclusive: rename fails when the target exists, for no task is an empty directory.
            with files.refused_writes(self.layout.task(new.id)):
                building.rename(self.layout.task(new.id))
        except BaseException as e:
            _delete(building)
            if isinstance(e, OSError) and e.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise _taken(new.id) from e
            raise
        files.sync_dir(self.layout.store)
        self.written.append("task.created")
        return task

    def create_many(self, new: Sequence[NewTask], *, actor: str) -> list[Task]:
        """All of them or none. A parent gets its child in the same transaction."""
        from opencode_tasks.store import transactions

        self.require()
        made: list[Task] = []
        parents: dict[str, list[New]] = {}
        for task in new:
            if task.parent is not None:
                parents.setdefault(task.parent, []).append(("child.added", {"id": task.id}))
        ids = [task.id for task in new]
        within = {p: parents.pop(p) for p in list(parents) if p in ids}
        if len(set(ids)) != len(ids):
            raise ConflictError("Two of the new tasks have the same id", hint="give each its own")
        try:
            with self.registry_lock(), transactions.all_locked(self.layout, set(parents), hot=self.hot):
                for task in new:
                    if self.layout.task(task.id).exists():
                        raise _taken(task.id)
                    building = self.layout.store / f"{UNFINISHED}{task.id}"
                    made.append(self._build(building, task, actor, then=within.get(task.id, ())))
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

    def _build(self, building: Path, new: NewTask, actor: str, *, then: Sequence[New] = ()) -> Task:
        from opencode_tasks.store import documents

        if not is_id(new.id):
            raise TaskError(f"{new.id!r} is not a task's id", hint="task.new_id makes one", code="usage")
        _delete(building)
        with files.refused_writes(building):
            (building / "log").mkdir(parents=True)
        data = {**vars(new), "base": vars(new.base), "workspace": vars(new.workspace)}
        events, content_b, head = log.lines(self.writer, Head(), 0, actor, 0, [("task.created", data), *then])
        log.append(building / "log" / log.name_of(self.writer, 1), 0, content_b)
        task = fold.fold(events)
        documents.write_first(building, task)
        state.write(building / "state.json", task, Position({self.writer: head}, events[-1].key))
        return task

    def record(
        self, task_id: str, *new: New, actor: str, expected_rev: int | None = None, lease: Lease | None = None
    ) -> Task:
        """Append events as one batch and bring the projection up to date; the task as it is then.

        Refused whole, with nothing written: when one of them is not possible now (`TaskError`, code
        `transition` or `deleted`), when the task is not at `expected_rev` (`ConflictError`, with what
        happened since), when `lease` is not held any more (`FencedError`).
        """
        with self._locked_task(task_id) as loaded:
            lease = self._require_current(loaded[0], expected_rev, lease)
            return self._append(task_id, loaded, new, actor, lease)

    def ensure_status(
        self,
        task_id: str,
        to: Status,
        *,
        reason: str,
        actor: str,
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> Task:
        """`record` a change of status unless the task has it already."""
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            lease = self._require_current(task, expected_rev, lease)
            if task.status == to:
                return task
            change = ("status.changed", {"from": task.status, "to": to, "reason": reason})
            return self._append(task_id, loaded, (change,), actor, lease)

    def update(
        self,
        task_id: str,
        changes: Mapping[str, object],
        *,
        actor: str,
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> Task:
        """Set title, image, owner, parent or depends_on."""
        with self._locked_task(task_id) as loaded:
            lease = self._require_current(loaded[0], expected_rev, lease)
            return self._append(task_id, loaded, (fold.update(loaded[0], changes),), actor, lease)

    def delete(
        self, task_id: str, *, reason: str, actor: str, expected_rev: int | None = None, lease: Lease | None = None
    ) -> Task:
        """A tombstone: the task is listed no more and takes no more events; its memory stays."""
        return self.record(
            task_id, ("task.deleted", {"reason": reason}), actor=actor, expected_rev=expected_rev, lease=lease
        )

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

    def _append(self, task_id: str, loaded: Loaded, new: Sequence[New], actor: str, lease: Lease | None) -> Task:
        task = self._stream(task_id).append(loaded, new, actor, epoch=lease.epoch if lease else None)
        self.written += [type_ for type_, _ in new]
        return task

    def _locked_task(self, task_id: str) -> "_TaskLock":
        """Hold the task's lock; gives the task as it is then."""
        if task_id not in self._streams:
            self._require_task(task_id)
        return _TaskLock(self, task_id)

    def _sound(self, task_id: str) -> Loaded:
        """The task, its log mended when nothing is lost by that. Under the task's lock."""
        stream = self._stream(task_id)
        found = stream.remembered()
        if found is not None:
            return found
        self._require_task(task_id)
        try:
            return stream.load()
        except CorruptError as e:
            try:
                mended = self._mendable(task_id)
            except CorruptError:
                raise e from None
            if mended.gaps:
                raise
            return self._put_in_place(task_id, mended)

    def _mendable(self, task_id: str) -> "damage.Mended":
        from opencode_tasks.store import damage

        known: dict[str, int] = {}
        with suppress(FileNotFoundError, CorruptError):
            _, at = state.read(self.layout.state(task_id))
            known = {writer: head.seq for writer, head in at.heads.items()}
        return damage.mend(self.layout.log(task_id), task_id, self._versions, known)

    def _put_in_place(self, task_id: str, mended: "damage.Mended") -> Loaded:
        from opencode_tasks.store import damage

        stream = self._stream(task_id)
        stream.forget_projections()
        kept = damage.put_in_place(self.layout.log(task_id), mended)
        # The first record after a gap vouches for it, so that what comes before can be read at all.
        return stream.mended(damage.repaired(mended, kept), actor="store")

    def repair(self, task_id: str) -> Task:
        """Mend the log from history as far as that goes; what is lost is told in the task's `degraded`."""
        with locked(self.layout.lock(task_id), hot=self.hot):
            self.written.append("log.repaired")
            return self._put_in_place(task_id, self._mendable(task_id))[0]

    def require_rev(self, task_id: str, expected_rev: int | None) -> None:
        """Raises `ConflictError`, with what happened since, unless the task is at `expected_rev` (None: any)."""
        if expected_rev is not None:
            self._require_rev(self.get(task_id), expected_rev)

    def _require_current(self, task: Task, expected_rev: int | None, lease: Lease | None) -> Lease | None:
        """The lease under which to write."""
        if lease is None and self.under is not None and self.under[0] == task.id:
            lease = self.under[1]
        if lease is not None:
            from opencode_tasks.store import leases

            leases.require_held(task, lease)
        self._require_rev(task, expected_rev)
        return lease

    def _require_rev(self, task: Task, expected_rev: int | None) -> None:
        if expected_rev is None or task.rev == expected_rev:
            return
        since = [e for n, e in enumerate(self._stream(task.id).events(), 1) if n > expected_rev]
        told = "; ".join(f"{e.type} by {e.actor} at {e.ts}" for e in since[-5:]) or "nothing: you are ahead of it"
        raise ConflictError(
            f"Task {task.id} is at revision {task.rev}, and you go by {expected_rev}. What happened since: {told}",
            hint=f"opencode-tasks task-history {task.id} --after {expected_rev}; then try again from {task.rev}",
        )

    def attach(
        self,
        task_id: str,
        agent: str,
        *,
        actor: str,
        mode: Mode = "exclusive",
        ttl_s: int | None = None,
        pid: int | None = None,
        take_over: bool = False,
        expected_rev: int | None = None,
    ) -> Lease:
        """A lease for `agent`, which process `pid` of this machine holds, if one does.

        Raises `ConflictError` (code `held`) naming the holder that lives and is in the way.
        """
        from opencode_tasks.store import leases

        path = self.layout.lease(task_id)
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            self._require_rev(task, expected_rev)
            if not task.is_open:
                raise TaskError(f"Task {task.id} is {task.status}: nobody works on it any more", code="not_running")
            who, ttl_s = leases.process(pid), ttl_s or leases.DEFAULT_TTL_S
            made = leases.decide(task, agent, mode, ttl_s, who, leases.lives(task, path), take_over=take_over)
            if isinstance(made, Lease):
                leases.renew(path, task, made)
                return made
            task = self._append(task_id, loaded, (made,), actor, None)
            lease = task.leases[-1]
            leases.renew(path, task, lease)
            return lease

    def renew(self, task_id: str, lease: Lease) -> None:
        """Say that the lease is in use. Raises `FencedError` when it is not held any more."""
        from opencode_tasks.store import leases

        with self._locked_task(task_id) as (task, _):
            leases.require_held(task, lease)
            leases.renew(self.layout.lease(task_id), task, lease)

    def detach(self, task_id: str, agent: str, *, actor: str, epoch: int | None = None, reason: str = "") -> Task:
        """End the agent's lease; no change when it has none (any more)."""
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            held = [h for h in task.leases if h.agent == agent and epoch in (None, h.epoch)]
            if not held:
                return task
            data = {"agent": agent, "epoch": held[0].epoch, "reason": reason}
            return self._append(task_id, loaded, (("lease.released", data),), actor, None)

    def decide(
        self,
        task_id: str,
        text: str,
        *,
        actor: str,
        because: str = "",
        alternatives: Sequence[str] = (),
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> "Decision":
        """Record a decision; `decisions.md` shows it. Edits made by hand are taken in before."""
        from opencode_tasks.store import documents

        with self._locked_task(task_id) as loaded:
            lease = self._require_current(loaded[0], expected_rev, lease)
            made = next(documents.new_ids(self._decisions(task_id, loaded[0])))
            data = {"id": made, "text": text, "because": because, "alternatives": list(alternatives)}
            self._append(task_id, loaded, (("decision.added", data),), actor, lease)
            return next(d for d in self._project_decisions(task_id).items if d.id == made)

    def decisions(self, task_id: str) -> "Decisions":
        """What was decided, by command or by hand, in the order of the document."""
        from opencode_tasks.store import documents

        self._require_task(task_id)
        known = self._decisions(task_id, self.get(task_id))
        if documents.hand_edits(self.layout.decisions(task_id), known)[0]:
            with self._locked_task(task_id):
                return self._project_decisions(task_id)
        return known

    def _decisions(self, task_id: str, task: Task) -> "Decisions":
        from opencode_tasks import decisions

        # Without any there is no need to read the log.
        return decisions.fold(task.title, self._stream(task_id).events() if task.decision_events else ())

    def _project_decisions(self, task_id: str) -> "Decisions":
        """Take in what was edited by hand, and write the document. Under the task's lock."""
        from opencode_tasks.store import documents

        path = self.layout.decisions(task_id)
        for _ in range(10):
            loaded = self._sound(task_id)
            known = self._decisions(task_id, loaded[0])
            edits, read_b = documents.hand_edits(path, known)
            if edits:
                self._append(task_id, loaded, edits, f"user:{login()}", None)
                known = self._decisions(task_id, self._sound(task_id)[0])
            if documents.write_decisions(path, known, read_b):
                return known
        raise ConflictError(f"{path} is being edited without end", hint="save it once, then run the command again")

    def _stream(self, task_id: str) -> Stream:
        found = self._streams.get(task_id)
        if found is None:
            if len(self._streams) >= 256:
                self._streams.clear()
            found = self._streams[task_id] = Stream(self.layout, task_id, *self._writer_names(), self._feed)
        return found

    def _require_task(self, task_id: str) -> None:
        if not is_id(task_id) or not self.layout.task(task_id).is_dir():
            raise NoTaskError(f"There is no task {task_id}", hint="opencode-tasks list-tasks")

    def get(self, task_id: str) -> Task:
        """Raises `NoTaskError`, or `CorruptError` when the log itself is damaged beyond what history holds."""
        self._require_task(task_id)
        if self.layout.any_transaction():
            from opencode_tasks.store import transactions

            with suppress(TaskError):  # a store that cannot be written is read as it is
                transactions.recover(self.layout, only=task_id, hot=self.hot)
        try:
            return self._stream(task_id).load()[0]
        except CorruptError as e:
            with suppress(TaskError), self._locked_task(task_id) as (task, _):
                return task
            raise e from None

    def load(self, task_id: str) -> Loaded:
        """The task and how far its log is folded, as it is right now; nothing is mended. Raises as `get`."""
        self._require_task(task_id)
        return self._stream(task_id).load()

    def from_start(self, task_id: str) -> Task:
        """The task as every record of its log says, without any projection."""
        self._require_task(task_id)
        return self._stream(task_id).from_start()[0]

    def events_after(self, task_id: str, at: Position | None) -> Iterator[Event]:
        """The events after `at`, in the order of the fold."""
        self._require_task(task_id)
        yield from self._stream(task_id).events(at)

    def kept_aside(self, task_id: str) -> list[str]:
        """Torn ends and damaged files of the task, which were copied before they were mended."""
        from opencode_tasks.store import damage

        return damage.marks(self.layout.task(task_id)) + damage.marks(self.layout.log(task_id))

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

    def history(self, task_id: str) -> Iterator[Event]:
        """Every event of the task, in the order of the fold, each verified."""
        self._require_task(task_id)
        yield from self._stream(task_id).events()

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


def _concerned(layout: Layout, task_id: str) -> bool:
    from opencode_tasks.store import transactions

    return transactions.concerns(layout, task_id)


class _TaskLock:
    """A class and no generator: every event pays for it."""

    def __init__(self, store: Store, task_id: str) -> None:
        self._store, self._task_id = store, task_id
        self._lock = locked(store.layout.lock(task_id), hot=store.hot)

    def __enter__(self) -> Loaded:
        store, task_id = self._store, self._task_id
        while True:
            if store.layout.any_transaction():
                from opencode_tasks.store import transactions

                transactions.recover(store.layout, only=task_id, hot=store.hot)
            self._lock.__enter__()
            try:
                # Else: committed, and its process killed, since we looked.
                if not store.layout.any_transaction() or not _concerned(store.layout, task_id):
                    return store._sound(task_id)
            except BaseException:
                self._lock.__exit__(None, None, None)
                raise
            self._lock.__exit__(None, None, None)
            self._lock = locked(store.layout.lock(task_id), hot=store.hot)

    def __exit__(self, *raised: object) -> None:
        self._lock.__exit__(None, None, None)


def _taken(task_id: str) -> ConflictError:
    return ConflictError(f"The task id {task_id} is taken", hint="try again")


def _delete(path: Path) -> None:
    if not path.exists():
        return
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def login() -> str:
    """Who runs us, for the log."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
