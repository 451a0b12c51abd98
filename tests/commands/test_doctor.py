"""`doctor`: every kind of damage is named with its fix, the fix works, and the rest stays fine."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.git import memory
from opencode_tasks.store import Store
from tests.commands.conftest import Ask, on_a_terminal
from tests.conftest import Repo, run

NEED_ENGINE = {"engine", "image", "volumes", "containers"}


def checks(repo: Repo, *args: str) -> dict[str, Any]:
    """By the name of each."""
    done = repo.tasks("doctor", "--json", *args, check=False)
    document = done.json
    assert done.code == (0 if document["ok"] else 1)
    assert all(list(c)[:4] == ["name", "ok", "detail", "fix"] for c in document["checks"])
    assert all(c["ok"] or c["fix"] for c in document["checks"])
    return {c["name"]: c for c in document["checks"]}


def bad(repo: Repo) -> set[str]:
    """The names that are not ok, but for those that want an engine: there is none here."""
    return {name for name, c in checks(repo).items() if not c["ok"]} - NEED_ENGINE


def test_without_an_engine_everything_else_is_fine(repo: Repo) -> None:
    found = checks(repo)
    assert {name for name, c in found.items() if not c["ok"]} == NEED_ENGINE & set(found)
    assert "no-engine.sock" in found["engine"]["detail"]


def _no_link(repo: Repo) -> None:
    (repo.top / ".tasks").unlink()


def _no_exclude(repo: Repo) -> None:
    (repo.common / "info" / "exclude").unlink()


def _no_hook(repo: Repo) -> None:
    (repo.common / "hooks" / "post-commit").unlink()


def _edited_hook(repo: Repo) -> None:
    with (repo.common / "hooks" / "commit-msg").open("a") as f:
        f.write("# edited\n")


def _mode_of_hook(repo: Repo) -> None:
    (repo.common / "hooks" / "commit-msg").chmod(0o644)


def _old_python(repo: Repo) -> None:
    shared = repo.common / "hooks" / "opencode-tasks.sh"
    shared.write_text(
        shared.read_text().replace("\npython='", "\npython='/gone", 1).replace("\npython=/", "\npython=/gone/", 1)
    )


def _hooks_path(repo: Repo) -> None:
    repo.git("config", "core.hooksPath", str(repo.top.parent / "elsewhere"))


DAMAGES: list[tuple[Callable[[Repo], None], str]] = [
    (_no_link, "link"),
    (_no_exclude, "exclude"),
    (_no_hook, "hooks"),
    (_edited_hook, "hooks"),
    (_mode_of_hook, "hooks"),
    (_old_python, "hooks"),
    (_hooks_path, "hooks"),
]


def test_what_init_mends(repo: Repo) -> None:
    for damage, name in DAMAGES:
        damage(repo)
        found = checks(repo)
        assert not found[name]["ok"], damage.__name__
        assert found[name]["fix"] == "opencode-tasks init"
        repo.tasks("init")
    assert bad(repo) == set()


def test_something_else_has_the_name_of_the_link(repo: Repo) -> None:
    (repo.top / ".tasks").unlink()
    (repo.top / ".tasks").write_text("mine")
    found = checks(repo)["link"]
    assert not found["ok"]
    assert "rename" in found["fix"]
    assert (repo.top / ".tasks").read_text() == "mine"


@pytest.fixture
def log(repo: Repo, task_id: str) -> Path:
    """The log of a task that history knows: its second record is about to be damaged."""
    store = Store(repo.common)
    store.decide(task_id, "One", actor="test")
    memory.commit(store)
    (only,) = (repo.store / task_id / "log").iterdir()
    return only


def damage(log: Path, old: bytes = b'"reason":"test"') -> bytes:
    content_b = log.read_bytes()
    assert old in content_b
    log.write_bytes(content_b.replace(old, old.upper(), 1))
    return content_b


def test_a_damaged_record_is_told_and_nothing_changed(repo: Repo, task_id: str, log: Path) -> None:
    damage(log)
    damaged_b = log.read_bytes()
    found = checks(repo)["store"]
    assert not found["ok"]
    assert task_id in found["detail"]
    assert found["fix"] == "opencode-tasks doctor --repair"
    assert log.read_bytes() == damaged_b


def test_repair_gives_back_what_history_has(repo: Repo, task_id: str, log: Path) -> None:
    sound_b = damage(log)
    found = checks(repo, "--repair")
    assert found[f"repair {task_id}"]["detail"] == "mended, nothing is lost"
    assert log.read_bytes().startswith(sound_b)
    assert repo.events(task_id)[-1]["type"] == "log.repaired"
    assert ".corrupt-" in found["kept aside"]["detail"]
    assert bad(repo) == set()
    assert f"repair {task_id}" not in checks(repo, "--repair")


def test_repair_says_what_nobody_has(ask: Ask, repo: Repo, task_id: str, log: Path) -> None:
    shutil.rmtree(repo.common / "opencode-tasks" / "memory.git")
    damage(log)
    for args in (["task-history"], ["task-decisions"], ["task-decisions", "--add", "x"]):
        refused = ask(*args, "--json", check=False)
        assert (refused.code, refused.json["error"]["code"]) == (1, "corrupt"), args
    found = checks(repo, "--repair")[f"repair {task_id}"]
    assert found["ok"]
    assert "goes on; lost: records 2 to 2 of" in found["detail"]
    task = ask("task-status", "--json").json
    assert task["degraded"] == [found["detail"].removeprefix("goes on; lost: ")]
    assert (task["status"], task["decisions"]) == ("pending", 1)
    assert bad(repo) == set()


def test_what_cannot_be_mended_stays_as_it_is(ask: Ask, repo: Repo, task_id: str, log: Path) -> None:
    shutil.rmtree(repo.common / "opencode-tasks" / "memory.git")
    (repo.store / task_id / "state.json").unlink()
    damage(log, b'"title"')
    damaged_b = log.read_bytes()
    found = checks(repo, "--repair")[f"repair {task_id}"]
    assert not found["ok"]
    assert "backup" in found["fix"]
    assert log.read_bytes() == damaged_b
    listed = ask("list-tasks", "--json")
    assert list(listed.json["damaged"]) == [task_id]
    assert task_id in listed.err


def test_rebuild_makes_every_projection_as_it_was(ask: Ask, repo: Repo, task_id: str, log: Path) -> None:
    state, decisions = repo.store / task_id / "state.json", repo.store / task_id / "decisions.md"
    was = state.read_bytes(), decisions.read_bytes()
    state.unlink()
    decisions.unlink()
    (repo.common / "opencode-tasks" / "index.db").write_bytes(b"no database")
    found = checks(repo, "--rebuild")
    assert (found["rebuild"]["ok"], found["rebuild index"]["detail"]) == (True, "of 1 tasks")
    assert (state.read_bytes(), decisions.read_bytes()) == was
    assert [t["id"] for t in ask("find-task", "one", "--json").json["tasks"]] == [task_id]
    damage(log)
    shutil.rmtree(repo.common / "opencode-tasks" / "memory.git")
    assert checks(repo, "--rebuild")["rebuild"]["fix"] == "opencode-tasks doctor --repair"


def test_a_directory_copied_by_hand(repo: Repo, task_id: str) -> None:
    twin = "copied-by-hand-000000"
    shutil.copytree(repo.store / task_id, repo.store / twin)
    found = checks(repo)["store"]
    assert not found["ok"]
    assert f"{twin}: " in found["detail"]
    assert task_id in found["detail"]
    shutil.rmtree(repo.store / twin)
    assert bad(repo) == set()


def test_a_clock_in_the_future(ask: Ask, repo: Repo, task_id: str) -> None:
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("opencode_tasks.store.log.now", lambda: "2199-01-01T00:00:00.000Z")
        Store(repo.common).update(task_id, {"title": "Later"}, actor="test")
    found = checks(repo)["clock"]
    assert (found["ok"], task_id in found["detail"]) == (False, True)
    assert bad(repo) == {"clock"}
    # It goes on all the same, in order.
    ask("task-decisions", "--add", "After it")
    assert repo.events(task_id)[-1]["ts"] < repo.events(task_id)[-2]["ts"]
    assert ask("task-status", "--json").json["title"] == "Later"


def test_history_that_is_gone_begins_anew(ask: Ask, repo: Repo, task_id: str) -> None:
    ask("attach")
    assert "last commit" in checks(repo)["history"]["detail"]
    shutil.rmtree(repo.common / "opencode-tasks" / "memory.git")
    found = checks(repo)["history"]
    assert (found["ok"], found["fix"]) == (False, "any command that changes a task commits it")
    ask("detach")
    assert bad(repo) == set()


def test_a_store_that_cannot_be_written(repo: Repo, task_id: str, read_only: None) -> None:
    assert checks(repo)["access"]["fix"] == "have its file system mounted writable"
    assert bad(repo) == {"access"}
    found = checks(repo, "--rebuild")
    assert {name for name, c in found.items() if not c["ok"]} - NEED_ENGINE == {"access", "rebuild", "rebuild index"}


_IMPATIENT = """
from opencode_tasks import cli
from opencode_tasks.commands import progress
progress._PATIENCE_S = -1
cli.main(["doctor", "--rebuild"])
"""


def test_a_long_step_shows_how_far_it_is_on_a_terminal_alone(repo: Repo, task_id: str) -> None:
    seen = on_a_terminal(repo, sys.executable, "-c", _IMPATIENT)
    assert "reading the logs" in seen
    assert "making the index" in seen
    ran = run([sys.executable, "-c", _IMPATIENT], cwd=repo.top, env=repo.env)
    assert ran.err == ""
    assert "reading the logs" not in ran.out


def test_a_branch_tied_to_a_task_that_is_gone(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    shutil.rmtree(repo.store / repo.only_id())
    found = checks(repo)["branches"]
    assert not found["ok"]
    assert "task/one" in found["detail"]


def test_no_store(repo: Repo) -> None:
    shutil.rmtree(repo.common / "opencode-tasks")
    found = checks(repo)
    assert not found["store"]["ok"]
    assert found["store"]["fix"] == "opencode-tasks init"


def test_before_init(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    assert {"store", "link", "exclude", "hooks"} <= bad(repo)
    assert not (repo.common / "opencode-tasks").exists()
    repo.tasks("init")
    assert bad(repo) == set()


def test_settings_that_cannot_be_read_are_a_finding(repo: Repo) -> None:
    repo.write(".opencode/tasks.toml", "[branch]\nprefx = 'x/'\n")
    done = repo.tasks("doctor", "--json", check=False)
    assert done.code == 1
    assert "prefix" in done.out


def test_a_person_reads_one_line_a_check(repo: Repo) -> None:
    _no_link(repo)
    lines = repo.tasks("doctor", check=False).out.splitlines()
    (line,) = [li for li in lines if li.split("\t")[1] == "link"]
    assert line.startswith("PROBLEM\t")
    assert "fix: opencode-tasks init" in line
