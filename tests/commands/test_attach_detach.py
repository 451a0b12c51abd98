"""`attach` and `detach`: one agent alone or several together, and a dead holder is in nobody's way."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from opencode_tasks.store import Store
from tests.commands.conftest import Ask
from tests.commands.test_list_status_history import TASK_KEYS
from tests.conftest import Ran, Repo

LEASE_KEYS = ["agent", "mode", "epoch", "ttl_s", "since", "host", "boot_id", "pid", "pid_start", "token"]


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a lease until it is killed."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def refused(ran: Ran) -> tuple[int, str]:
    return ran.code, ran.json["error"]["code"]


def test_the_document(repo: Repo, task_id: str) -> None:
    document = repo.tasks("attach", "--agent", "one", "--ttl", "60", "--json").json
    assert list(document) == [*TASK_KEYS, "lease"]
    assert document["agents"] == ["one"]
    lease = document["lease"]
    assert sorted(lease) == sorted(LEASE_KEYS)
    assert (lease["agent"], lease["mode"], lease["epoch"], lease["ttl_s"]) == ("one", "exclusive", 1, 60)
    # Who called the command holds it, not the command, which has ended.
    assert lease["pid"] is None
    detached = repo.tasks("detach", "--agent", "one", "--reason", "done", "--json").json
    assert (list(detached), detached["agents"]) == (TASK_KEYS, [])
    assert repo.events(task_id)[-1]["data"]["reason"] == "done"


def test_alone_means_alone(ask: Ask, repo: Repo, task_id: str, holder: subprocess.Popen[bytes]) -> None:
    ask("attach", "--agent", "one", "--pid", str(holder.pid))
    for mode in ("exclusive", "collaborative"):
        second = ask("attach", "--agent", "two", "--mode", mode, "--json", check=False)
        assert refused(second) == (1, "held")
        error = second.json["error"]
        assert "held by agent one (exclusive, since 20" in error["message"]
        assert f"process {holder.pid}" in error["message"]
        assert "is running" in error["message"]
        assert f"detach {task_id} --agent one" in error["hint"]
    assert ask("task-status", "--json").json["agents"] == ["one"]
    # Whoever has it may ask again: nothing is written.
    events = len(repo.events(task_id))
    assert ask("attach", "--agent", "one", "--pid", str(holder.pid), "--json").json["lease"]["epoch"] == 1
    assert len(repo.events(task_id)) == events


def test_a_dead_holder_is_in_nobodys_way(ask: Ask, task_id: str, holder: subprocess.Popen[bytes]) -> None:
    ask("attach", "--agent", "one", "--pid", str(holder.pid), "--ttl", "100000")
    holder.kill()
    holder.wait()
    taken = ask("attach", "--agent", "two", "--json").json
    assert (taken["agents"], taken["lease"]["epoch"]) == (["two"], 2)


def test_a_killed_holder_that_nobody_waited_for_is_dead(
    ask: Ask, task_id: str, holder: subprocess.Popen[bytes]
) -> None:
    ask("attach", "--agent", "one", "--pid", str(holder.pid))
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie, for its parent sleeps
    assert ask("attach", "--agent", "two", "--json").json["agents"] == ["two"]


def test_taking_over_shuts_the_holder_out(ask: Ask, repo: Repo, task_id: str, holder: subprocess.Popen[bytes]) -> None:
    store = Store(repo.common)
    first = store.attach(task_id, "one", actor="one", pid=holder.pid)
    taken = ask("attach", "--agent", "two", "--take-over", "--json").json
    assert (taken["agents"], taken["lease"]["epoch"]) == (["two"], 2)
    assert repo.events(task_id)[-1]["data"]["took_over"] == ["one"]
    with pytest.raises(Exception, match="held by two"):
        store.record(task_id, ("note.added", {}), actor="one", lease=first)
    assert "taking over from one" in ask("task-history").out
    assert ask("detach", "--agent", "one").out == f"one did not hold {task_id}\n"
    assert ask("task-status", "--json").json["agents"] == ["two"]


def test_a_command_writes_under_the_lease_that_its_environment_names(
    ask: Ask, repo: Repo, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = ask("attach", "--agent", "it's one", "--json").json["lease"]
    shown = ask("attach", "--agent", "it's one").out.splitlines()[1]
    said = subprocess.run(["sh", "-c", f"{shown}; env"], capture_output=True, text=True, check=True).stdout
    assert f"OPENCODE_TASKS_LEASE={lease['token']}\n" in said
    monkeypatch.setenv("OPENCODE_TASKS_LEASE", lease["token"])
    ask("task-decisions", "--add", "Under the lease")
    written = repo.events(task_id)[-1]
    assert (written["actor"], written["epoch"]) == ("agent:it's one", lease["epoch"])
    monkeypatch.delenv("OPENCODE_TASKS_LEASE")
    ask("attach", "--agent", "two", "--take-over")
    monkeypatch.setenv("OPENCODE_TASKS_LEASE", lease["token"])
    late = ask("task-decisions", "--add", "Too late", "--json", check=False)
    assert refused(late) == (1, "fenced")
    assert "held by two (epoch 2" in late.json["error"]["message"]
    assert refused(ask("complete-task", "--json", check=False)) == (1, "fenced")
    # Reading needs no lease, and what is no lease is said at once.
    assert [d["text"] for d in ask("task-decisions", "--json").json["decisions"]] == ["Under the lease"]
    for token in ("odd", "a/b/c/d", f"{task_id}/1", f"{task_id}/x/y/z", f"{task_id}/1//z", "\x1b[31m"):
        monkeypatch.setenv("OPENCODE_TASKS_LEASE", token)
        assert refused(ask("task-decisions", "--add", "x", "--json", check=False)) == (2, "usage"), token


def test_several_together(ask: Ask, task_id: str) -> None:
    together = ("--mode", "collaborative")
    ask("attach", "--agent", "one", *together)
    assert ask("attach", "--agent", "two", *together, "--json").json["agents"] == ["one", "two"]
    assert refused(ask("attach", "--agent", "three", "--json", check=False)) == (1, "held")
    assert ask("detach", "--agent", "one", "--json").json["agents"] == ["two"]
    assert refused(ask("attach", "--agent", "three", "--json", check=False)) == (1, "held")
    ask("detach", "--agent", "two")
    assert ask("attach", "--agent", "three", "--json").json["agents"] == ["three"]


def test_by_default_you_are_the_agent(ask: Ask, task_id: str) -> None:
    said = ask("attach").out
    (agent,) = ask("task-status", "--json").json["agents"]
    assert agent.startswith("user:")
    assert said.splitlines()[0] == f"{agent} holds {task_id} (exclusive, epoch 1, for 300 s after each use)"
    assert ask("detach").out == f"{agent} left {task_id}\n"
    assert ask("detach").out == f"{agent} did not hold {task_id}\n"


def test_a_conflict_shows_both_sides(ask: Ask, repo: Repo, task_id: str) -> None:
    rev = Store(repo.common).get(task_id).rev
    Store(repo.common).update(task_id, {"title": "Other"}, actor="user:ana")
    late = ask("attach", "--agent", "one", "--expected-rev", str(rev), "--json", check=False)
    assert refused(late) == (1, "conflict")
    assert f"at revision {rev + 1}, and you go by {rev}" in late.json["error"]["message"]
    assert "task.updated by user:ana" in late.json["error"]["message"]
    assert ask("attach", "--agent", "one", "--expected-rev", str(rev + 1), "--json").json["agents"] == ["one"]


def test_nobody_works_on_what_is_closed(ask: Ask, repo: Repo, task_id: str) -> None:
    ask("attach", "--agent", "one")
    Store(repo.common).ensure_status(task_id, "completed", reason="test", actor="test")
    assert refused(ask("attach", task_id, "--agent", "two", "--json", check=False)) == (1, "not_running")
    assert ask("detach", task_id, "--agent", "one", "--json").json["agents"] == []
    Store(repo.common).delete(task_id, reason="test", actor="test")
    assert refused(ask("attach", task_id, "--json", check=False)) == (1, "not_running")
    assert ask("detach", task_id, "--json").json["agents"] == []


def test_usage(ask: Ask, repo: Repo, task_id: str, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    bad = (
        ["--ttl", "0"],
        ["--ttl", "-1"],
        ["--ttl", "long"],
        ["--mode", "odd"],
        ["--pid", "self"],
        ["--pid", str(holder.pid)],
        ["--pid", "0"],
        ["--pid", "-1"],
        ["--pid", str(10**30)],
        ["--agent", ""],
        ["--agent", " "],
        ["--agent", "two\nlines"],
        ["--agent", "esc\x1b[31m"],
        ["--agent", "x" * 100_000],
        ["a", "b"],
    )
    for args in bad:
        assert refused(ask("attach", "--json", *args, check=False)) == (2, "usage"), args
    for command in ("attach", "detach"):
        assert refused(ask(command, "gone", "--json", check=False)) == (1, "no_task")
    assert len(repo.events(task_id)) == 2
    # Whatever another program has called itself, it can be detached.
    Store(repo.common).attach(task_id, "odd\nname\x1b", actor="test")
    shown = ask("detach", "--agent", "odd\nname\x1b").out
    assert "\x1b" not in shown
    assert Store(repo.common).get(task_id).agents == ()


def test_of_many_at_once_one_gets_it(repo: Repo, task_id: str, holder: subprocess.Popen[bytes]) -> None:
    command = ["opencode-tasks", "attach", task_id, "--pid", str(holder.pid), "--json", "--agent"]
    env = {**os.environ, **repo.env}
    racing = [
        subprocess.Popen([*command, f"agent{n}"], cwd=repo.top, env=env, stdout=subprocess.PIPE) for n in range(6)
    ]
    for process in racing:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in racing) == [0, 1, 1, 1, 1, 1]
    assert [e["type"] for e in repo.events(task_id)].count("lease.taken") == 1
