"""Commands that only read: they answer while the store is written, and when it cannot be written."""

import subprocess
import sys
from typing import Any

import pytest

from opencode_tasks.store import Store
from tests.commands.conftest import Ask
from tests.commands.test_list_status_history import refused
from tests.conftest import Repo

READING = [
    ["list-tasks"],
    ["task-status"],
    ["find-task", "parser"],
    ["task-history"],
    ["task-executions"],
    ["task-decisions"],
    ["task-stats"],
]


@pytest.mark.parametrize("index", ["index", "no index"])
def test_a_store_that_cannot_be_written_is_read(
    ask: Ask, repo: Repo, task_id: str, index: str, request: pytest.FixtureRequest
) -> None:
    Store(repo.common).decide(task_id, "One", actor="test")
    for args in READING:
        ask(*args)
    (repo.store / task_id / "plan.md").write_text("- [x] done\n")
    Store(repo.common).update(task_id, {"title": "Parser, new"}, actor="test")
    if index == "no index":
        (repo.common / "opencode-tasks" / "index.db").unlink()
    request.getfixturevalue("read_only")
    for args in READING:
        ran = ask(*args)
        assert ran.err == ""
        titled = args[0] in ("list-tasks", "task-status", "find-task", "task-history")
        assert ("Parser, new" in ran.out) is titled, args
    assert ask("task-stats", "--json").json["decisions"] == 1
    assert ask("task-status", "--json").json["plan"] == {"done": 1, "total": 1}
    for words in (["complete-task"], ["task-decisions", "--add", "Two"], ["attach"]):
        assert refused(ask(*words, "--json", check=False)) == (1, "read_only"), words


def test_decisions_written_by_hand_in_a_store_that_cannot_be_written(
    ask: Ask, repo: Repo, task_id: str, request: pytest.FixtureRequest
) -> None:
    ask("task-decisions", "--add", "One")
    with (repo.store / task_id / "decisions.md").open("a") as f:
        f.write("\nBy hand.\n")
    request.getfixturevalue("read_only")
    assert [d["text"] for d in ask("task-decisions", "--json").json["decisions"]] == ["One", "By hand.\n"]


_WRITER = """
import sys
from pathlib import Path
from opencode_tasks.git import memory
from opencode_tasks.store import Store
store = Store(Path(sys.argv[1]))
for n in range(100_000):
    store.record(sys.argv[2], ("command.started", {"run": str(n), "argv": ["x" * 500], "cwd": "/"}), actor="writer")
    if n % 50 == 0:
        store.update(sys.argv[2], {"title": f"Parser {n}"}, actor="writer")
        memory.commit_if_due(store)
        print(n, flush=True)
"""


def test_while_it_is_written_every_answer_is_whole(ask: Ask, repo: Repo, task_id: str) -> None:
    command = [sys.executable, "-c", _WRITER, str(repo.common), task_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        revs: list[int] = []
        for _ in range(3):
            writer.stdout.readline()
            answers: dict[str, Any] = {args[0]: ask(*args, "--json").json for args in READING}
            events = ask("task-history", "--limit", "1000000", "--json").json["events"]
            revs += [answers["task-status"]["rev"], len(events)]
            assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
            assert len(answers["list-tasks"]["tasks"]) == 1
            assert answers["list-tasks"]["damaged"] == {}
            assert len(answers["find-task"]["tasks"]) == 1
        writer.kill()
    assert revs == sorted(revs)
    assert revs[0] < revs[-1]
