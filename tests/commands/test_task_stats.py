"""`task-stats`: the sums are right, drawn as bars on a terminal and told in plain lines in a pipe."""

import re
from pathlib import Path

import pytest

from opencode_tasks.commands.period import ago, told
from opencode_tasks.errors import UsageError
from opencode_tasks.store import Store
from tests.commands.conftest import Ask, bare_task, on_a_terminal
from tests.commands.test_task_executions import begun, ran
from tests.conftest import Repo

KEYS = [
    "tasks",
    "by_status",
    "commands",
    "failures",
    "command_ms",
    "checkpoints",
    "decisions",
    "pending_ms",
    "running_ms",
    "paused_ms",
    "cpu_ms",
    "oom_kills",
    "held",
    "memory_bytes",
    "disk",
]


@pytest.fixture
def worked(repo: Repo, task_id: str) -> Store:
    """Two tasks with commands, one that was not begun."""
    store = Store(repo.common)
    store.record(task_id, *ran("a", "true", ms=1000), *ran("b", "false", code=1, ms=500), actor="test")
    store.record(task_id, *ran("c", "lost", code=None, ms=0), *begun("d", "running"), actor="test")
    store.decide(task_id, "One", actor="test")
    other = bare_task(repo, "Other", branch="task/other", owner="ana")
    for status in ("running", "paused", "completed"):
        store.ensure_status(other, status, reason="test", actor="test")
    store.record(other, *ran("a", "true", ms=4000), actor="test")
    bare_task(repo, "Third", branch="task/third")
    return store


def test_the_document(repo: Repo, worked: Store) -> None:
    document = repo.tasks("task-stats", "--json").json
    assert list(document) == KEYS
    assert (document["tasks"], document["by_status"]) == (3, {"running": 1, "completed": 1, "pending": 1})
    assert (document["commands"], document["failures"], document["command_ms"]) == (5, 2, 5500)
    assert (document["checkpoints"], document["decisions"]) == (0, 1)
    assert all(type(document[f"{status}_ms"]) is int for status in ("pending", "running", "paused"))
    sizes = ["memory_bytes", "history_bytes", "checkpoints_bytes", "index_bytes", "checkpoints_budget_bytes"]
    assert list(document["disk"]) == sizes
    assert "of 2.0 GiB" in repo.tasks("task-stats").out
    assert document["disk"]["checkpoints_bytes"] == 0
    used = sum(p.lstat().st_blocks * 512 for p in [repo.store, *repo.store.rglob("*")])
    assert document["disk"]["memory_bytes"] == used


def test_of_one_task_and_of_some(ask: Ask, repo: Repo, worked: Store, task_id: str) -> None:
    one = ask("task-stats", task_id, "--json").json
    assert (one["tasks"], one["commands"], one["failures"]) == (1, 4, 2)
    assert list(one["disk"]) == ["memory_bytes"]
    assert ask("task-stats", "--owner", "ana", "--json").json["command_ms"] == 4000
    assert ask("task-stats", "--status", "pending", "--json").json["tasks"] == 1
    assert ask("task-stats", "--older-than", "1h", "--json").json["tasks"] == 0
    assert ask("task-stats", task_id, "--status", "running", "--json").json["tasks"] == 1
    assert ask("task-stats", task_id, "--status", "paused", "--json").json["tasks"] == 0
    worked.delete(task_id, reason="test", actor="test")
    assert ask("task-stats", "--json").json["tasks"] == 2
    assert ask("task-stats", task_id, "--json").json["commands"] == 4


def test_time_in_the_status_goes_on(ask: Ask, worked: Store, task_id: str) -> None:
    first = ask("task-stats", task_id, "--json").json
    assert first["running_ms"] <= ask("task-stats", task_id, "--json").json["running_ms"]
    assert first["paused_ms"] == 0


def test_a_clock_in_the_future_counts_nothing(ask: Ask, repo: Repo) -> None:
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("opencode_tasks.store.log.now", lambda: "2199-01-01T00:00:00.000Z")
        made = bare_task(repo, "From the future", branch="task/future")
        Store(repo.common).ensure_status(made, "running", reason="test", actor="test")
    document = ask("task-stats", made, "--json").json
    assert (document["pending_ms"], document["running_ms"]) == (0, 0)


def test_a_pipe_gets_plain_lines(repo: Repo, worked: Store) -> None:
    said = repo.tasks("task-stats").out
    assert "█" not in said
    assert said.startswith("3 tasks\n")
    rows = dict(line.strip().split("\t") for line in said.splitlines() if line.startswith("  "))
    assert (rows["succeeded"], rows["failed"], rows["decisions"]) == ("3", "2", "1")
    assert "5 commands, 5.5 s\n" in said
    assert re.fullmatch(r"\d+ KiB", rows["memory"])


def test_a_terminal_gets_bars_to_scale(repo: Repo, worked: Store) -> None:
    seen = on_a_terminal(repo, "opencode-tasks", "task-stats").replace("\r", "")
    bars = {name: (len(bar), said) for name, bar, said in re.findall(r"^  (\S+) +(█*) +(\S.*)$", seen, re.MULTILINE)}
    assert bars["succeeded"] == (24, "3")
    assert bars["failed"] == (16, "2")
    assert (bars["decisions"], bars["completed"]) == ((24, "1"), (24, "1"))
    assert "\x1b" not in seen


def test_no_task_at_all(ask: Ask) -> None:
    document = ask("task-stats", "--json").json
    assert (document["tasks"], document["by_status"], document["commands"]) == (0, {}, 0)
    assert ask("task-stats").out.startswith("0 tasks\n")


def test_usage(ask: Ask, repo: Repo) -> None:
    for args in (["--status", "odd"], ["--newer-than", "x"], ["a", "b"], ["--limit", "1"]):
        refused = ask("task-stats", "--json", *args, check=False)
        assert (refused.code, refused.json["error"]["code"]) == (2, "usage"), args
    refused = ask("task-stats", "gone", "--json", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "no_task")


def test_sizes_of_what_is_odd_or_gone(tmp_path: Path) -> None:
    from opencode_tasks.commands.task_stats import size_bytes

    assert size_bytes(tmp_path / "absent") == 0
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "b\udcff").write_bytes(b"x" * 5000)
    assert size_bytes(tmp_path) == sum(p.lstat().st_blocks * 512 for p in [tmp_path, *tmp_path.iterdir()])


PERIODS = [
    (0, "0.0 s"),
    (1500, "1.5 s"),
    (59_000, "59 s"),
    (60_000, "1 min"),
    (61_000, "1 min 1 s"),
    (3_600_000, "1 h"),
    (3_723_000, "1 h 2 min"),
    (86_400_000, "1 d"),
    (10**12, "11574 d 1 h"),
]


def test_lengths_of_time() -> None:
    assert [told(ms) for ms, _ in PERIODS] == [said for _, said in PERIODS]
    assert ago(None) is None
    assert (ago("1m") or "") > (ago("1h") or "") > (ago("1d") or "") > (ago("4w") or "")
    # Two thousand years: what is listed is compared as text.
    assert re.fullmatch(r"0\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ago("700000d") or "")
    for text in ("", "1", "d", "1y", "-1d", "1.5h", "1 d", "1d ", "9999999d", "999999w", "1D"):
        with pytest.raises(UsageError):
            ago(text)
