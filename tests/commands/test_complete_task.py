"""`complete-task` closes a task for good, keeps its files in a checkpoint and says what is still open."""

import sys
from pathlib import Path

import pytest

from tests.conftest import Repo, run


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def test_a_task_is_closed_and_its_files_are_kept(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.write("unsaved", "x\n")
    sha = repo.commit("mine")
    repo.write("README.md", "changed\n")
    done = repo.tasks("complete-task")
    assert f"1 commit not merged into main: {sha[:9]} mine" in done.out
    assert "1 uncommitted file: README.md" in done.out
    task = repo.tasks("task-status", "--json").json
    assert (task["status"], task["checkpoints"]["count"]) == ("completed", 1)
    (kept,) = repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    assert kept["id"] == task["checkpoints"]["last"]
    assert repo.branch == "task/one"
    assert (repo.top / "README.md").read_text() == "changed\n"


def test_again_is_refused_with_what_is_possible(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.tasks("complete-task")
    before = repo.events(repo.only_id())
    done = repo.tasks("complete-task", "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "transition")
    assert "possible from completed" in done.json["error"]["hint"]
    assert repo.events(repo.only_id()) == before


def test_a_paused_task_is_closed_from_another_branch_without_touching_it(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("checkout", "-q", "-b", "task/two")
    assert repo.tasks("complete-task", "task/one", "--json").json["status"] == "completed"
    assert repo.tasks("task-status", "--json").json["status"] == "running"
    assert (repo.common / "opencode-task").exists()


def test_a_completed_task_gets_no_more_trailers(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.tasks("complete-task")
    before = repo.events(repo.only_id())
    repo.git("commit", "-q", "--allow-empty", "-m", "late")
    late = repo.events(repo.only_id())[len(before) :]
    assert [e["type"] for e in late] in ([], ["commit.recorded"])
    assert repo.tasks("task-status", "--json").json["status"] == "completed"


def plan_of(repo: Repo, task_id: str | None = None) -> Path:
    return repo.store / (task_id or repo.only_id()) / "plan.md"


def test_the_plan_says_what_was_done(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    plan = plan_of(repo)
    before = plan.read_text() + "- [ ] First\n- [ ] Left\n"
    plan.write_text(before)
    one = repo.commit("Begin [step 1]", file="x\n")
    repo.git("checkout", "-q", "main")
    repo.commit("main's own", other="x\n")
    repo.git("checkout", "-q", "task/one")
    repo.git("merge", "-q", "--no-edit", "main")
    merge = repo.git("rev-parse", "HEAD").out.strip()
    two = repo.commit("Add \x1b[31m # <!-- [ ] more")
    decided = repo.tasks("task-decisions", "--add", "Use X", "--json").json["decisions"][0]["id"]
    done = repo.tasks("complete-task")
    assert "plan" not in done.out
    head, _, section = plan.read_text().partition("\n## Done\n")
    assert head == before.replace("[ ] First", "[x] First")
    assert section.splitlines()[1:] == [
        "",
        "Commits:",
        "",
        f"- `{one[:9]}` Begin [step 1]",
        f"- `{merge[:9]}` Merge branch 'main' into task/one",
        f"- `{two[:9]}` Add \N{REPLACEMENT CHARACTER}[31m # <!-- [ ] more",
        "",
        "Decisions:",
        "",
        f"- `{decided}` Use X",
        "",
        "Open ends:",
        "",
        "- step 2: Left",
    ]
    assert repo.tasks("task-status", "--json").json["plan"] == {"done": 1, "total": 2}


def test_after_a_merge_the_plan_has_the_same_commits(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    sha = repo.commit("mine", file="x\n")
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "task/one")
    repo.tasks("complete-task", "task/one")
    assert plan_of(repo).read_text().endswith(f"Commits:\n\n- `{sha[:9]}` mine\n")


def test_after_a_rebase_the_plan_has_the_new_commits_and_not_the_bases(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("mine", file="x\n")
    repo.git("checkout", "-q", "main")
    repo.commit("main's own", other="x\n")
    repo.git("checkout", "-q", "task/one")
    repo.git("rebase", "-q", "main")
    sha = repo.git("rev-parse", "HEAD").out.strip()
    repo.tasks("complete-task")
    assert plan_of(repo).read_text().endswith(f"Commits:\n\n- `{sha[:9]}` mine\n")


def test_killed_between_plan_and_status_the_next_one_writes_the_same(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("mine", file="x\n")
    script = (
        "import os, sys; from opencode_tasks.store import Store; from opencode_tasks.__main__ import main; "
        "Store.ensure_status = lambda *a, **k: os._exit(9); sys.argv[1:] = ['complete-task']; main()"
    )
    assert run([sys.executable, "-c", script], cwd=repo.top, env=repo.env, check=False).code == 9
    written = plan_of(repo).read_text()
    assert "## Done" in written
    assert repo.tasks("complete-task", "--json").json["status"] == "completed"
    assert plan_of(repo).read_text() == written


def test_a_plan_that_cannot_be_written_keeps_no_task_open(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("mine", file="x\n")
    plan = plan_of(repo)
    plan.rename(plan.with_name("elsewhere"))
    plan.symlink_to("elsewhere")
    before = plan.read_text()
    done = repo.tasks("complete-task")
    assert f"what was done is not in its plan: {plan} was left as it is: a link" in done.out
    assert plan.read_text() == before
    assert repo.tasks("task-status", "--json").json["status"] == "completed"


def test_without_a_plan_none_is_made(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("mine", file="x\n")
    plan_of(repo).unlink()
    done = repo.tasks("complete-task")
    assert "plan" not in done.out
    assert not plan_of(repo).exists()
