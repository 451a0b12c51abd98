"""The shipped JSON Schema: every record that we write is by it, and what differs from it is refused."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import opencode_tasks
from opencode_tasks.changes import CHANGES
from opencode_tasks.checkpoints import upkeep
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.git import discovery, memory
from opencode_tasks.store import Store
from opencode_tasks.store.audit import Audit
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import Container, new_id
from tests.conftest import Repo
from tests.store.conftest import new

Record = dict[str, Any]
_SOURCE = Path(opencode_tasks.__file__).parent
_PAGE = Path(__file__).parents[1] / "docs" / "memory-format.md"
SCHEMA = json.loads((files("opencode_tasks.store") / "event.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
FAMILIES = (
    "task|status|branch|workspace|child|container|checkpoint|commit|command|decision|lease|limit|log|network|plan|"
    "session|tool|permission"
)
EMITTED = {
    found
    for path in _SOURCE.rglob("*.py")
    if path.parent.name != "opencode_hooks" or path.name not in ("__init__.py", "bridge.py")  # names of OpenCode's
    for found in re.findall(rf'"((?:{FAMILIES})\.(?!yaml|md)[a-z]+)"', path.read_text())
}


def types_in_schema() -> set[str]:
    return {ref["$ref"].removeprefix("#/$defs/types/") for ref in SCHEMA["allOf"]}


def test_schema_source_and_documentation_know_the_same_types() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["types"]) == types_in_schema()
    assert set(CHANGES) <= types_in_schema()
    assert set(CHANGES) <= EMITTED
    assert types_in_schema() == EMITTED
    page = _PAGE.read_text()
    table = page[page.index("## What the types do") : page.index("## decisions.md")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    documented = {t for row in rows for t in re.findall(r"`(\w+\.\w+)`", row)}
    assert documented == types_in_schema()


def test_the_keys_of_each_type_are_documented() -> None:
    page = _PAGE.read_text()
    rows = [row for row in page.splitlines() if row.startswith("| `")]
    for name, rule in SCHEMA["$defs"]["types"].items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        data = rule["then"]["properties"]["data"]
        for key in [*data["required"], *data.get("properties", {})]:
            assert name == "checkpoint.created" or re.search(rf"\b{key}\b", row.split("|")[2]), (name, key)


@pytest.fixture
def lived(repo: Repo) -> Iterator[Repo]:
    """A repository in whose store every type of event is, made as the product makes them."""
    repo.git("checkout", "--quiet", "-b", "task/one")
    task_id = repo.only_id()
    store = Store(repo.common, versions=memory.versions(Layout(repo.common)))
    (repo.store / task_id / "plan.md").write_text("- [ ] The work\n")
    repo.commit("work [step 1]", file="1\n")
    made = repo.tasks("checkpoint", "-m", "label", "--json").json["id"]
    repo.write("file", "2\n")
    repo.tasks("restore-checkpoint", made)
    store.record(task_id, ("checkpoint.pinned", {"id": made, "risk": ["many-changes"]}), actor="test")
    upkeep.drop(store, Shadow(store, task_id, discovery.find(repo.top, {})), task_id, ["c2"])
    store.record(task_id, ("checkpoint.dropped", {"ids": [], "layers": [made]}), actor="test")
    repo.tasks("reconcile", task_id, check=False)  # there is no engine
    store.record(task_id, ("container.changed", vars(Container("created", "c" * 64, "name"))), actor="test")
    store.record(task_id, ("container.changed", vars(Container())), actor="test")
    repo.tasks("attach", "--agent", "one")
    repo.tasks("detach", "--agent", "one")
    for text in ("One", "Two", "Three"):
        repo.tasks("task-decisions", "--add", text, "--because", "why", "--instead-of", "other")
    repo.tasks("allow", "pypi.org", "--task", task_id)
    repo.tasks("allow", "pypi.org", "--task", task_id, "--remove")
    _edit_by_hand(repo.store / task_id / "decisions.md")
    repo.tasks("task-decisions")
    started: Record = {"run": "1", "argv": ["odd\udcff", "\x1b"], "cwd": "/"}
    ended: Record = {"run": "1", "exit_code": None, "duration_ms": 1, "output_tail": "", "signals": []}
    store.record(task_id, ("command.started", started), actor="test")
    with Audit(store, task_id, actor="test") as out:
        out.write("command.output", {"run": "1", "text": "\x00\u2028"})
    store.record(task_id, ("command.finished", ended), actor="test")
    reached = {"kind": "memory", "used_bytes": 9, "limit_bytes": 10}
    decided = {"kind": "memory", "decision": "extended", "checkpoint": None, "to_bytes": 20}
    store.record(task_id, ("limit.reached", reached), ("limit.decided", decided), actor="test")
    store.record(task_id, ("session.changed", {"session": "s", "to": "started", "detail": ""}), actor="test")
    store.record(task_id, ("tool.used", {"session": "s", "tool": "write", "paths": ["a"], "error": ""}), actor="test")
    store.record(task_id, ("permission.asked", {"session": "s", "permission": "x", "patterns": []}), actor="test")
    store.record(task_id, ("commit.refused", {"branch": "task/one", "reasons": ["x: a link"]}), actor="test")
    store.update(task_id, {"title": "Other", "depends_on": [task_id]}, actor="test")
    child = store.create(new(new_id("child"), parent=task_id), actor="test")
    store.delete(child.id, reason="test", actor="test")
    store.undelete(child.id, reason="test", actor="test")
    memory.commit(store)
    _flip(next((repo.store / task_id / "log").glob("*.jsonl")))
    repo.tasks("doctor", "--repair", check=False)
    repo.git("branch", "--quiet", "-m", "task/renamed")
    repo.tasks("task-status")
    repo.git("checkout", "--quiet", "main")
    repo.git("worktree", "add", "--quiet", str(repo.top.parent / "beside"), "task/renamed")
    repo.git("merge", "--quiet", "task/renamed")
    repo.git("worktree", "remove", "--force", str(repo.top.parent / "beside"))
    repo.git("checkout", "--quiet", "-b", "task/short")
    repo.commit("short")
    repo.git("commit", "--quiet", "--amend", "--allow-empty", "-m", "shorter")
    repo.git("checkout", "--quiet", "main")
    repo.git("merge", "--quiet", "task/short")
    repo.git("branch", "--quiet", "-D", "task/short")
    repo.commit("list", **{".gitignore": "*.env\n", ".worktreeinclude": "*.env\n"})
    repo.write("x.env", "")
    repo.tasks("create-task", "included", "--worktree")
    repo.tasks("complete-task", task_id)
    repo.tasks("cleanup-task", task_id)
    repo.tasks("cleanup-task", "--undo")
    yield repo
    shutil.rmtree(repo.top.parent / "beside", ignore_errors=True)


def _edit_by_hand(path: Path) -> None:
    """A block changed, one gone, two swapped, one added."""
    head, *blocks = re.split(r"(?=^<!-- decision \w)", path.read_text(), flags=re.MULTILINE)
    one, two, three = blocks
    path.write_text("".join([head, three.rstrip() + "\n\n", one.replace("One", "Uno"), "\nWritten by hand.\n"]))
    del two


def _flip(path: Path) -> None:
    content_b = path.read_bytes()
    path.write_bytes(content_b.replace(b"Three", b"tHree", 1))


def records(repo: Repo) -> list[Record]:
    return [record for task_id in repo.ids() for record in repo.events(task_id)]


WRONG = [None, True, -1, 1.5, "", "odd", [], [1], {}, {"odd": 1}]


def test_every_record_that_we_write_is_by_the_schema_and_what_differs_is_not(lived: Repo) -> None:
    written = records(lived)
    assert [(r, [error.message for error in VALIDATOR.iter_errors(r)]) for r in written] == [(r, []) for r in written]
    by_type = {record["type"]: record for record in written}
    assert set(by_type) == EMITTED
    for type_, record in by_type.items():
        for key in SCHEMA["required"]:
            refused({name: value for name, value in record.items() if name != key})
        refused({**record, "more": 1})
        rule = SCHEMA["$defs"]["types"][type_]["then"]["properties"]["data"]
        for key in rule["required"]:
            cut = copy.deepcopy(record)
            del cut["data"][key]
            refused(cut)
        for key in set(rule.get("properties", {})) & set(record["data"]):
            # Of all that is no such value, some is refused: the schema says something of it.
            odd = [{**record, "data": {**record["data"], key: value}} for value in WRONG]
            assert any(not VALIDATOR.is_valid(one) for one in odd), (type_, key)


def refused(record: Record) -> None:
    assert not VALIDATOR.is_valid(record), record


_SOUND: Record = {
    "v": 1,
    "w": "0badc0de-laptop",
    "seq": 1,
    "lam": 1,
    "ts": "2026-01-02T03:04:05.678Z",
    "actor": "user:ana",
    "epoch": 0,
    "type": "status.changed",
    "data": {"from": "pending", "to": "running", "reason": ""},
    "prev": "0" * 64,
    "h": "a" * 64,
}
_ODD: list[tuple[str, list[object]]] = [
    ("v", [0, 2, "1", None]),
    ("w", ["", "laptop", "0badc0de", "0badc0de-", "0BADC0DE-x", "0badc0de-" + "x" * 33, "0badc0de-a b", 1]),
    ("seq", [0, -1, "1", 1.5, None]),
    ("lam", [0, "1"]),
    ("ts", ["2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+01:00", 0]),
    ("actor", [None, 1]),
    ("epoch", [-1, None]),
    ("type", ["", "Status.changed", "status.", 1]),
    ("data", [None, [], "x", {"from": "pending", "to": "odd", "reason": ""}, {"from": "pending", "to": "running"}]),
    ("prev", ["", "0" * 63, "G" * 64, None]),
    ("h", ["", "a" * 65, "A" * 64]),
]


def test_odd_values_of_every_key() -> None:
    assert VALIDATOR.is_valid(_SOUND)
    for key, values in _ODD:
        for value in values:
            refused({**_SOUND, key: value})


def test_a_type_of_a_newer_version_may_say_anything() -> None:
    assert VALIDATOR.is_valid({**_SOUND, "type": "weather.changed", "data": {"sky": ["blue"], "more": 2}})
    refused({**_SOUND, "type": "weather.changed", "data": {"more": 0}})
    assert VALIDATOR.is_valid({**_SOUND, "data": {**_SOUND["data"], "since": "a later minor version"}})
