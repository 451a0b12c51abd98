"""A task's files as one row of the index. Reads only; any process may do it."""

import hashlib
import json
import os
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from opencode_tasks import fold
from opencode_tasks.changes import ms_of
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.events import SCHEMA
from opencode_tasks.store import index_texts as texts
from opencode_tasks.store import log, state
from opencode_tasks.store.index_texts import storable
from opencode_tasks.store.log import Head
from opencode_tasks.store.state import Position
from opencode_tasks.task import OPEN, Base, Task, Workspace
from opencode_tasks.values import names_of

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store


class Row(NamedTuple):
    """`values`, `doc`, `texts`: as the three tables have them, less the number of the row."""

    rev: int
    values: tuple[Any, ...]
    doc: tuple[str, int, str]
    texts: tuple[str, ...]


class Known(NamedTuple):
    """What the index has of a task: up to where its log was read, how much of what has texts, and these."""

    at: Position | None = None
    commands: int = 0
    decided: int = 0
    texts: tuple[str, str] = ("", "")


class _Read(NamedTuple):
    """A task's fields as its files have them; `at` is how far its log was read."""

    fields: dict[str, Any]
    at: str


class Reader:
    def __init__(self, store: "Store") -> None:
        self._store = store
        self._folder = f"{store.layout.store}/"

    def plan(self, task_id: str) -> str:
        return f"{self._folder}{task_id}/plan.md"

    def row(self, task_id: str, known: Known) -> Row | None:
        """None: there is no such task. Raises `TaskError` or `OSError` for one that cannot be read."""
        found = self._projected(task_id) or self._loaded(task_id)
        if found is None:
            return None
        fields = found.fields
        title, branch = storable(fields["title"]), storable(fields["branch"])
        plan, stamp = texts.plan(self.plan(task_id), title, branch)
        doc = _DUMPS({name: value for name, value in fields.items() if _DEFAULTS.get(name, _UNSET) != value})
        return Row(
            fields["rev"],
            (*_values(fields), stamp, None),
            (doc, zlib.crc32(doc.encode()), found.at),
            (title, branch, plan, *self._logged(found, known)),
        )

    def _loaded(self, task_id: str) -> _Read | None:
        try:
            task, at = self._store.load(task_id)
        except NoTaskError:
            return None
        except TaskError:
            if not self._store.layout.task(task_id).is_dir():
                return None  # removed just now
            raise
        log_at = {"heads": {w: at.heads[w]._asdict() for w in sorted(at.heads)}, "last": at.last}
        return _Read(json.loads(_DUMPS(state.to_json(task))), _DUMPS(log_at))  # as the other way gives it

    def _projected(self, task_id: str) -> _Read | None:
        """What most tasks are: one segment of one writer, and a projection that is right up to its end.

        At 100,000 tasks this is what counts, so no object is made that is not needed.
        """
        folder = self._folder + task_id
        try:
            found = _STATE.fullmatch(texts.content(f"{folder}/state.json")[0])
            (name,) = os.listdir(f"{folder}/log")
            if found is None or hashlib.sha256(found[1] + b"}").hexdigest().encode() != found["digest"]:
                return None
            expected = log.name_of(found["writer"].decode(), int(found["segment"]))
            if (name, os.stat(f"{folder}/log/{name}").st_size) != (expected, int(found["size_bytes"])):
                return None
            fields = json.loads(found["task"])
        except (OSError, ValueError):
            return None
        if fields.keys() != _FIELDS or fields["id"] != task_id:
            return None
        return _Read(fields, found["log"].decode())

    def _logged(self, found: _Read, known: Known) -> tuple[str, str]:
        """The texts of the decisions and of the commands; the log is only read when it has more of them."""
        fields = found.fields
        decided, commands = known.texts
        has_decisions = fields["decision_events"] != known.decided
        has_commands = fields["commands"]["count"] != known.commands
        if has_decisions or has_commands:
            at = position(found.at)
            if has_decisions:
                decided = texts.decisions(self._store, fields["id"], fields["title"], at)
            if has_commands:
                commands = texts.commands(self._store, fields["id"], at, known.at, commands)
        return decided, commands


# As `state.render` writes it.
_STATE = re.compile(
    rb'(\{"v":%d,"fold":%d,"task":(?P<task>\{.*\}),"log":(?P<log>\{"heads":\{"(?P<writer>[a-z0-9-]+)":\{'
    rb'"segment":(?P<segment>\d+),"seq":\d+,"h":"[0-9a-f]{64}","size_bytes":(?P<size_bytes>\d+)\}\},"last":\[[^]]*\]\})),'
    rb'"sha256":"(?P<digest>[0-9a-f]{64})"\}\n' % (SCHEMA, fold.VERSION),
    re.DOTALL,
)
_FIELDS = frozenset(names_of(Task))
_DUMPS = json.JSONEncoder(separators=(",", ":")).encode
_UNSET = object()
# What a task does not have is not written down: fifty of them are read at once.
_DEFAULTS = {
    name: list(default) if isinstance(default, tuple) else getattr(default, "__dict__", default)
    for name in names_of(Task)
    if (default := getattr(Task, name, _UNSET)) is not _UNSET
}
_NOT_PLAIN = {name for name, default in _DEFAULTS.items() if isinstance(default, list | dict)}


def task_of(doc: str, crc: int) -> Task | None:
    """None when the row is not what was written."""
    if zlib.crc32(doc.encode()) != crc:
        return None
    fields = json.loads(doc)
    if not fields.keys().isdisjoint(_NOT_PLAIN):
        return state.from_json({**_DEFAULTS, **fields})
    fields["base"], fields["workspace"] = Base(**fields["base"]), Workspace(**fields["workspace"])
    return Task(**fields)


def position(at: str) -> Position:
    found = json.loads(at)
    lam, w, seq = found["last"]
    return Position({writer: Head(**head) for writer, head in found["heads"].items()}, (lam, w, seq))


def _values(fields: dict[str, Any]) -> tuple[Any, ...]:
    commands, spent, use = fields["commands"], fields["spent"], fields["use"]
    is_deleted = fields["deleted_at"] is not None
    return (
        fields["id"],
        storable(fields["branch"]),
        None if fields["owner"] is None else storable(fields["owner"]),
        fields["status"],
        fields["parent"],
        fields["created_at"],
        fields["updated_at"],
        int(is_deleted),
        int(not is_deleted and fields["status"] in OPEN),
        commands["count"],
        commands["failures"],
        commands["duration_ms"],
        fields["checkpoints"]["count"],
        fields["decisions"]["count"],
        spent["pending"],
        spent["running"],
        spent["paused"],
        ms_of(fields["status_since"]),
        fields["decision_events"],
        use["cpu_ms"],
        use["memory_bytes"],
        use["oom_kills"],
        use["memory_held"] + use["disk_held"],
    )
