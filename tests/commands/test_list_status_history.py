"""What `list-tasks`, `task-status` and `task-history` print: DESIGN's contract, key by key."""

import re
from pathlib import Path

import pytest

from tests.conftest import Repo

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


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def test_the_document_of_a_task(repo: Repo) -> None:
    made = repo.tasks("create-task", 'Grüße: fix the "parser"\t日本', "--json").json
    assert list(made) == TASK_KEYS
    assert list(made["base"]) == ["branch", "commit"]
    assert list(made["workspace"]) == ["kind", "path"]
    assert list(made["container"])[:3] == ["state", "id", "image"]
    assert list(made["plan"]) == ["done", "total"]
    assert list(made["checkpoints"]) == ["count", "last"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["created_at"])
    assert repo.tasks("task-status", "--json").json == made
    listed = repo.tasks("list-tasks", "--json").json
    assert (list(listed)[:2], listed["tasks"], listed["next"]) == (["tasks", "next"], [made], None)
    plan = repo.store / made["id"] / "plan.md"
    plan.write_text("- [x] one\n- [ ] two\n* [X] three\n")
    assert repo.tasks("task-status", "--json").json["plan"] == {"done": 2, "total": 3}


def test_finding_a_task_by_id_beginning_and_branch(repo: Repo) -> None:
    ids = {}
    for branch in ("task/same", "task/same-too", "task/other"):
        ids[branch] = repo.tasks("create-task", branch.removeprefix("task/"), "--json").json["id"]
    for name in (ids["task/other"], "other", "oth", "task/other", ids["task/other"][:-1]):
        assert repo.tasks("task-status", name, "--json").json["id"] == ids["task/other"], name
    refused = repo.tasks("task-status", "same", "--json", check=False)
    assert refused.code == 1
    error = refused.json["error"]
    assert list(error) == ["code", "message", "hint"]
    assert error["code"] == "no_task"
    assert all(ids[b] in error["hint"] for b in ("task/same", "task/same-too"))
    for name in ("nothing", "../same", "", "task/", "-1"):
        gone = repo.tasks("task-status", "--json", "--", name, check=False)
        if name:
            assert (gone.code, gone.json["error"]["code"]) == (1, "no_task"), name
            assert "list-tasks" in gone.json["error"]["hint"]


def test_paging_and_status(repo: Repo) -> None:
    made = [repo.tasks("create-task", f"n{n}", "--json").json["id"] for n in range(4)]
    seen, cursor = [], None
    while True:
        page = repo.tasks("list-tasks", "--json", "--limit", "3", *(["--cursor", cursor] if cursor else [])).json
        seen += [t["id"] for t in page["tasks"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert [t["id"] for t in repo.tasks("list-tasks", "--status", "running", "--json").json["tasks"]] == [made[-1]]
    for words in (["--limit", "0"], ["--limit", "x"], ["--cursor", "gone"], ["--status", "odd"], ["surplus"]):
        refused = repo.tasks("list-tasks", "--json", *words, check=False)
        assert (refused.code, refused.json["error"]["code"]) == (2, "usage"), words


def test_no_task_and_no_store(repo: Repo) -> None:
    for command in ("task-status", "task-history", "complete-task", "cleanup-task"):
        refused = repo.tasks(command, "--json", check=False)
        assert (refused.code, refused.json["error"]["code"], refused.err) == (1, "no_task", "")
    assert repo.tasks("list-tasks", "--json").json["tasks"] == []
    assert "create-task" in repo.tasks("list-tasks").out
    repo.tasks("uninstall", "--purge")
    refused = repo.tasks("list-tasks", "--json", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "not_initialised")
    assert refused.json["error"]["hint"] == "opencode-tasks init"


def test_history_pages_and_is_one_safe_line_an_event(repo: Repo) -> None:
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
    first = repo.tasks("task-history", "--json", "--limit", "2").json
    assert first["next"] == 2
    rest = repo.tasks("task-history", "--json", "--after", "2").json
    assert (first["events"] + rest["events"], rest["next"]) == (whole["events"], None)
    assert repo.tasks("task-history", "--limit", "0", "--json", check=False).code == 2


def test_a_title_with_control_characters_is_shown_safely(repo: Repo) -> None:
    repo.tasks("create-task", "evil \x1b]0;title\x07 \x1b[2J")
    for command in ("list-tasks", "task-status", "task-history"):
        assert "\x1b" not in repo.tasks(command).out, command
        assert "\x07" not in repo.tasks(command).out, command
