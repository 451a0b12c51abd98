"""`task-executions`: what ran, how it ended, and nothing that a command printed gets at the terminal."""

import json
from typing import Any

import pytest

from opencode_tasks.events import New
from opencode_tasks.store import Store
from tests.commands.conftest import Ask, on_a_terminal
from tests.conftest import Repo

KEYS = ["run", "command", "cwd", "exit_code", "started_at", "duration_ms", "agent", "output_tail"]


def ran(run: str, *argv: str, code: int | None = 0, ms: int = 1234, tail: str = "") -> list[New]:
    """The records of a command that ended."""
    finished: dict[str, Any] = {"run": run, "exit_code": code, "duration_ms": ms, "output_tail": tail, "signals": []}
    return [*begun(run, *argv), ("command.finished", finished)]


def begun(run: str, *argv: str, printed: str = "") -> list[New]:
    started: New = ("command.started", {"run": run, "argv": list(argv), "cwd": "/src"})
    return [started, ("command.output", {"run": run, "text": printed})] if printed else [started]


@pytest.fixture
def four(repo: Repo, task_id: str) -> Store:
    """Succeeded, failed, of unknown outcome, and still running."""
    store = Store(repo.common)
    store.record(task_id, *ran("a", "true"), actor="user:ana")
    store.record(task_id, *ran("b", "make", "a b", code=2, ms=61_000, tail="x\ny\n"), actor="agent:one")
    store.record(task_id, *ran("c", "sleep", code=None), actor="user:ana")
    store.record(task_id, *begun("d", "watch", printed="so far"), actor="user:ana")
    return store


def listed(ask: Ask, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask("task-executions", "--json", *args).json["executions"]
    return found


def test_the_document(repo: Repo, four: Store) -> None:
    document = repo.tasks("task-executions", "--json").json
    assert list(document) == ["executions", "next"]
    assert document["next"] is None
    assert all(list(e) == KEYS for e in document["executions"])
    d, c, b, a = document["executions"]
    assert (a["command"], a["exit_code"], a["duration_ms"], a["agent"]) == (["true"], 0, 1234, "user:ana")
    assert (b["command"], b["exit_code"], b["cwd"], b["output_tail"]) == (["make", "a b"], 2, "/src", "x\ny\n")
    assert (c["exit_code"], c["duration_ms"]) == (None, 1234)
    # What is known of one whose end nobody recorded is what it had printed.
    assert (d["exit_code"], d["duration_ms"], d["output_tail"]) == (None, None, "so far")
    assert all(e["started_at"].endswith("Z") for e in document["executions"])


def test_failed(ask: Ask, four: Store) -> None:
    assert [e["run"] for e in listed(ask, "--failed")] == ["c", "b"]


def test_paging(ask: Ask, four: Store, task_id: str) -> None:
    seen: list[str] = []
    cursor: list[str] = []
    for _ in range(3):
        page = ask("task-executions", "--json", "--limit", "2", *cursor).json
        seen += [e["run"] for e in page["executions"]]
        if page["next"] is None:
            break
        cursor = ["--cursor", page["next"]]
        # What begins meanwhile comes before, and moves nothing.
        four.record(task_id, *begun(f"later{len(seen)}", "x"), actor="test")
    assert seen == ["d", "c", "b", "a"]
    assert [e["run"] for e in listed(ask, "--failed", "--limit", "1", "--cursor", "c")] == ["b"]
    assert len(listed(ask, "--limit", str(10**30))) == 5


def test_a_pipe_gets_one_line_an_execution(repo: Repo, four: Store) -> None:
    rows = [line.split("\t") for line in repo.tasks("task-executions").out.splitlines()]
    assert [row[1:] for row in rows] == [
        ["running?", "", "user:ana", "watch"],
        ["unknown", "1.2 s", "user:ana", "sleep"],
        ["2", "1 min 1 s", "agent:one", "make 'a b'"],
        ["0", "1.2 s", "user:ana", "true"],
    ]


def test_with_output(ask: Ask, four: Store) -> None:
    shown = ask("task-executions", "--output").out
    assert "make 'a b'\n  exit 2, 1 min 1 s, by agent:one\n    x\n    y\n" in shown
    assert "watch\n  exit running?, not ended, by user:ana\n    so far" in shown
    assert [line for line in shown.splitlines() if not line.isprintable()] == []


def test_nothing_has_run(ask: Ask, task_id: str) -> None:
    assert ask("task-executions").out == "No command has run.\n"
    assert ask("task-executions", "--output").out == "No command has run.\n"
    assert ask("task-executions", "--json").json == {"executions": [], "next": None}


def test_usage(ask: Ask, four: Store) -> None:
    bad = (["--limit", "0"], ["--limit", "-2"], ["--limit", "x"], ["--cursor", "gone"], ["--failed", "--cursor", "a"])
    for args in bad:
        refused = ask("task-executions", "--json", *args, check=False)
        assert (refused.code, refused.json["error"]["code"]) == (2, "usage"), args
    refused = ask("task-executions", "--json", "gone", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "no_task")


EVIL = "\x1b]0;title\x07\x1b[2J\x00 back\x08\x08 \u202eleft\n\tnext\r\n"


def test_what_was_run_and_printed_cannot_steer_the_terminal(repo: Repo, task_id: str) -> None:
    Store(repo.common).record(task_id, *ran("e", "echo", EVIL, tail=EVIL), actor="evil\x1b[31m\nactor")
    (execution,) = repo.tasks("task-executions", "--json").json["executions"]
    assert (execution["command"][1], execution["output_tail"]) == (EVIL, EVIL)
    for args in (["task-executions"], ["task-executions", "--output"]):
        shown = repo.tasks(*args).out
        assert not [c for c in shown if not c.isprintable() and c not in "\n\t"], args
    assert "\x1b]0" not in on_a_terminal(repo, "opencode-tasks", "task-executions")


def test_long_output_is_cut_and_says_so(ask: Ask, repo: Repo, task_id: str) -> None:
    printed = begun("long", "yes", printed="x" * 50_000 + "end")
    Store(repo.common).record(task_id, *printed, ("command.output", {"run": "long", "text": "!"}), actor="test")
    (execution,) = listed(ask)
    assert len(execution["output_tail"]) == 4096
    assert execution["output_tail"].endswith("end!")
    assert "    …xxx" in ask("task-executions", "--output").out


def test_records_of_another_program_that_left_something_out(ask: Ask, repo: Repo, task_id: str) -> None:
    store = Store(repo.common)
    odd: list[dict[str, Any]] = [{}, {"run": "x"}, {"run": ["x"], "argv": [], "cwd": ""}, {"run": "y", "argv": 3}]
    store.record(task_id, *(("command.started", data) for data in odd), actor="other")
    unknown: list[New] = [("command.output", {"run": "nobody", "text": "?"}), ("command.output", {})]
    store.record(task_id, *unknown, *ran("good", "true"), actor="other")
    assert [e["run"] for e in listed(ask)] == ["good"]
    assert len(ask("task-history", "--json").json["events"]) == 2 + 4 + 2 + 2
    for line in ask("task-history", "--jsonl").out.splitlines():
        json.loads(line)
    assert len(ask("task-history").out.splitlines()) == 10
