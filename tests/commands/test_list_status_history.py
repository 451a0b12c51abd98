"""What `list-tasks`, `task-status` and `task-history` print: DESIGN's contract, key by key."""

import json
import re
from typing import Any

import pytest

from opencode_tasks.store import Store
from opencode_tasks.task import Status
from tests.commands.conftest import Ask, bare_task, on_a_terminal
from tests.conftest import Ran, Repo

TASK_KEYS = [
    "id",
    "title",
    "branch",
    "base",
    "status",
    "workspace",
    "created_at",
    "updated_at",
    "rev",
    "agents",
    "parent",
    "children",
    "depends_on",
    "container",
    "plan",
    "checkpoints",
    "blocked",
    "owner",
    "decisions",
    "conflicts",
    "degraded",
]


def refused(ran: Ran) -> tuple[int, str]:
    return ran.code, ran.json["error"]["code"]


def test_the_document_of_a_task(repo: Repo) -> None:
    made = repo.tasks("create-task", 'Grüße: fix the "parser"\t日本', "--json").json
    assert list(made) == TASK_KEYS
    assert list(made["base"]) == ["branch", "commit"]
    assert list(made["workspace"]) == ["kind", "path"]
    assert list(made["container"])[:3] == ["state", "id", "image"]
    assert list(made["plan"]) == ["done", "total"]
    assert list(made["checkpoints"]) == ["count", "last"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["created_at"])
    shown = repo.tasks("task-status", "--json").json
    more: dict[str, Any] = {
        "network": {"allowed": [], "refused": []},
        "overlaps": [],
        "overlaps_cut": [],
        "workspace_gone": None,
        "import": {"refused": None, "problem": None},
    }
    assert shown == {**made, "devcontainer": shown["devcontainer"], **more}
    listed = repo.tasks("list-tasks", "--json").json
    assert listed == {"tasks": [made], "next": None, "damaged": {}}
    plan = repo.store / made["id"] / "plan.md"
    plan.write_text("- [x] one\n- [ ] two\n* [X] three\n")
    assert repo.tasks("task-status", "--json").json["plan"] == {"done": 2, "total": 3}


def test_finding_a_task_by_id_beginning_and_branch(ask: Ask, repo: Repo) -> None:
    ids = {b: bare_task(repo, b.removeprefix("task/"), branch=b) for b in ("task/same", "task/same-too", "task/other")}
    for name in (ids["task/other"], "other", "oth", "task/other", ids["task/other"][:-1]):
        assert ask("task-status", name, "--json").json["id"] == ids["task/other"], name
    ran = ask("task-status", "same", "--json", check=False)
    assert refused(ran) == (1, "no_task")
    assert list(ran.json["error"]) == ["code", "message", "hint"]
    assert all(ids[b] in ran.json["error"]["hint"] for b in ("task/same", "task/same-too"))
    for name in ("nothing", "../same", "task/", "-1", "OTHER", "%", "x" * 100_000, "\udcff"):
        gone = ask("task-status", "--json", "--", name, check=False)
        assert refused(gone) == (1, "no_task"), name
        assert "list-tasks" in gone.json["error"]["hint"]


def listed(ask: Ask, *args: str) -> list[str]:
    return [task["id"] for task in ask("list-tasks", "--json", *args).json["tasks"]]


def test_filters(ask: Ask, repo: Repo) -> None:
    store = Store(repo.common)
    ids = [bare_task(repo, f"n{n}", branch=f"task/n{n}", owner=f"o{n % 2}") for n in range(4)]
    ways: list[tuple[str, tuple[Status, ...]]] = [(ids[1], ("running",)), (ids[2], ("running", "completed"))]
    for task_id, statuses in ways:
        for status in statuses:
            store.ensure_status(task_id, status, reason="test", actor="test")
    child = bare_task(repo, "child", parent=ids[0])
    newest_first = [child, *ids[::-1]]
    assert listed(ask) == newest_first
    assert listed(ask, "--recent") == [ids[0], child, ids[2], ids[1], ids[3]]
    assert listed(ask, "--status", "running") == [ids[1]]
    assert listed(ask, "--status", "running", "--status", "completed") == [ids[2], ids[1]]
    assert listed(ask, "--owner", "o1") == [ids[3], ids[1]]
    assert listed(ask, "--owner", "o1", "--status", "running") == [ids[1]]
    assert listed(ask, "--branch", "task/n3") == [ids[3]]
    assert listed(ask, "--parent", ids[0]) == listed(ask, "--parent", "n0") == [child]
    assert listed(ask, "--newer-than", "1h") == newest_first
    assert listed(ask, "--newer-than", "900000h") == listed(ask, "--newer-than", "730000d") == newest_first
    assert listed(ask, "--older-than", "1h") == listed(ask, "--newer-than", "0s") == []
    assert ask("list-tasks", "--older-than", "1h").out == "No task is like that.\n"
    store.delete(ids[3], reason="test", actor="test")
    assert listed(ask, "--deleted") == [ids[3]]
    assert listed(ask) == [child, *ids[2::-1]]
    assert listed(ask, "--limit", str(10**30)) == [child, *ids[2::-1]]


@pytest.mark.parametrize("order", [[], ["--recent"]], ids=["newest", "recent"])
def test_paging_misses_and_repeats_nothing(ask: Ask, repo: Repo, order: list[str]) -> None:
    made = [bare_task(repo, f"n{n}") for n in range(7)]
    seen: list[str] = []
    cursor: list[str] = []
    for _ in range(4):
        page = ask("list-tasks", "--json", "--limit", "2", *order, *cursor).json
        seen += [t["id"] for t in page["tasks"]]
        cursor = ["--cursor", str(page["next"])]
        bare_task(repo, "made meanwhile")
    assert seen == made[::-1]
    assert page["next"] is None


def test_usage(ask: Ask, task_id: str) -> None:
    for words in (
        ["list-tasks", "--limit", "0"],
        ["list-tasks", "--limit", "-1"],
        ["list-tasks", "--limit", "x"],
        ["list-tasks", "--cursor", "gone"],
        ["list-tasks", "--cursor", "x" * 100_000],
        ["list-tasks", "--status", "odd"],
        ["list-tasks", "--newer-than", "soon"],
        ["list-tasks", "surplus"],
        ["task-history", "--limit", "0"],
        ["task-history", "--after", "-1"],
        ["task-history", "--after", "1.5"],
        ["task-status", "a", "b"],
    ):
        assert refused(ask(words[0], "--json", *words[1:], check=False)) == (2, "usage"), words


def test_no_task_and_no_store(ask: Ask, repo: Repo) -> None:
    for command in ("task-status", "task-history", "task-executions", "task-decisions", "attach", "detach"):
        ran = ask(command, "--json", check=False)
        assert (*refused(ran), ran.err) == (1, "no_task", ""), command
    assert ask("list-tasks", "--json").json["tasks"] == []
    assert "create-task" in ask("list-tasks").out
    repo.tasks("uninstall", "--purge")
    for command in ("list-tasks", "task-status", "task-stats", "find-task", "attach", "task-decisions"):
        ran = ask(command, "--json", *(["x"] if command == "find-task" else []), check=False)
        assert refused(ran) == (1, "not_initialised"), command
        assert ran.json["error"]["hint"] == "opencode-tasks init"


def test_history_is_one_safe_line_an_event(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    evil = "red \x1b[31m bell \x07 back\x08 \u202eright-to-left"
    repo.git("commit", "-q", "--allow-empty", "-m", evil)
    whole = repo.tasks("task-history", "--json").json
    assert list(whole) == ["events", "next"]
    assert [e["type"] for e in whole["events"]] == ["task.created", "status.changed", "commit.recorded"]
    assert all(list(e) == ["w", "seq", "ts", "actor", "type", "data"] for e in whole["events"])
    assert whole["events"][-1]["data"]["subject"] == evil
    shown = repo.tasks("task-history").out
    assert len(shown.splitlines()) == 3
    assert all(c.isprintable() for line in shown.splitlines() for c in line.replace("\t", ""))


def test_history_pages(ask: Ask, repo: Repo, task_id: str) -> None:
    store = Store(repo.common)
    for n in range(5):
        store.record(task_id, ("note.added", {"n": n}), actor="test")
    whole = ask("task-history", "--json").json
    assert (len(whole["events"]), whole["next"]) == (7, None)
    first = ask("task-history", "--json", "--limit", "3").json
    assert first["next"] == 3
    rest = ask("task-history", "--json", "--after", "3").json
    assert (first["events"] + rest["events"], rest["next"]) == (whole["events"], None)
    assert ask("task-history", "--json", "--after", str(10**30)).json == {"events": [], "next": None}
    assert ask("task-history", "--json", "--limit", str(10**30)).json == whole
    assert ask("task-history", "--after", "7").out == "No events.\n"


def test_every_line_of_jsonl_is_json(ask: Ask, repo: Repo, task_id: str) -> None:
    odd = "nbsp \xa0 bidi \u202e tag \U000e0001 surrogate \udce9 nul \x00 line \u2028\n end"
    Store(repo.common).record(task_id, ("note.added", {"text": odd}), actor="test")
    whole = ask("task-history", "--json").json["events"]
    assert [json.loads(line) for line in ask("task-history", "--jsonl").out.splitlines()] == whole
    assert whole[-1]["data"]["text"] == odd
    (last,) = ask("task-history", "--jsonl", "--after", "1", "--limit", "1").out.splitlines()
    assert json.loads(last) == whole[1]
    assert ask("task-history", "--jsonl", "--json").json["events"] == whole
    assert ask("task-history", "--jsonl", "--after", "3").out == ""


def test_of_every_type_a_person_reads_a_line(ask: Ask, repo: Repo, task_id: str) -> None:
    from opencode_tasks.commands.task_history import _TOLD

    store = Store(repo.common)
    before = len(repo.events(task_id))
    folded = {"task.created", "task.updated", "status.changed", "lease.taken", "lease.released", "log.repaired"}
    folded |= {"task.restored", "task.undeleted"}
    types = sorted({*_TOLD} - folded - {"command.finished"})
    for type_ in types:
        # Another program's, with little of what its type says: shown all the same.
        data = {"id": "1", "sha": "a", "head": "a", "message": "b", "state": "none"}
        store.record(task_id, (type_, data), actor="test")
    lines = ask("task-history", "--after", str(before)).out.splitlines()
    assert [line.split("\t")[2] for line in lines] == types


def test_a_title_is_shown_safely_and_on_one_line(ask: Ask, repo: Repo) -> None:
    task_id = bare_task(repo, "evil \x1b]0;title\x07 \x1b[2J\nnext\tline\r", branch="main")
    repo.git("config", "branch.main.opencodetask", task_id)
    for command in ("list-tasks", "task-status", "task-history"):
        shown = ask(command).out
        assert not [c for c in shown if not c.isprintable() and c not in "\n\t"], command
    assert len(ask("list-tasks").out.splitlines()) == 1
    assert len(ask("task-history").out.splitlines()) == 1


def test_a_terminal_gets_a_table(repo: Repo, task_id: str) -> None:
    seen = re.sub(r"\x1b\[[\d;]*m", "", on_a_terminal(repo, "opencode-tasks", "list-tasks"))
    assert re.search(r"task +status +container +branch +title", seen)
    assert re.search(rf"{task_id} +running +none +main +Fix the parser", seen)


def test_a_damaged_task_takes_no_other_along(ask: Ask, repo: Repo, task_id: str) -> None:
    damaged = bare_task(repo, "Damaged")
    for path in (repo.store / damaged / "log").iterdir():
        path.write_bytes(b"odd\n")
    (repo.store / damaged / "state.json").unlink()
    ran = ask("list-tasks", "--json")
    assert [t["id"] for t in ran.json["tasks"]] == [task_id]
    assert list(ran.json["damaged"]) == [damaged]
    assert f"task {damaged} cannot be read" in ran.err
    assert "opencode-tasks doctor" in ran.err
    assert refused(ask("task-status", damaged, "--json", check=False)) == (1, "corrupt")
    assert ask("task-stats", "--json").json["tasks"] == 1
