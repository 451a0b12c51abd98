"""A commit checks the steps of the plan that it says it does, and disturbs nobody who edits the plan meanwhile."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran, Repo, run

PLAN = "# T\n\n## Steps\n\n- [ ] Read the config file\n- [ ] Write tests\n- [ ] Docs\n\n## Notes\n"


@pytest.fixture
def plan(repo: Repo) -> Path:
    """Of the task that is checked out."""
    repo.git("checkout", "-q", "-b", "task/one")
    path = repo.store / repo.only_id() / "plan.md"
    path.write_text(PLAN)
    return path


def commit(repo: Repo, message: str, *words: str) -> Ran:
    return repo.git("commit", "-q", "--allow-empty", "-m", message, *words)


def updates(repo: Repo) -> list[dict[str, Any]]:
    return [e["data"] for e in repo.events(repo.only_id()) if e["type"] == "plan.updated"]


def done(plan: Path) -> str:
    """Of each box, what is in it."""
    return "".join(line.partition("[")[2][0] for line in plan.read_text().splitlines() if "[" in line)


@pytest.mark.parametrize(
    ("message", "steps"),
    [
        ("Begin [step 2]", [2]),
        ("Begin\n\nWith more.\n[steps 1, 3]", [1, 3]),
        ("Begin [step 1-3]", [1, 2, 3]),
        ("cli: read a CONFIG file", [1]),
    ],
)
def test_a_commit_checks_what_it_does(repo: Repo, plan: Path, message: str, steps: list[int]) -> None:
    ran = commit(repo, message)
    sha = repo.git("rev-parse", "HEAD").out.strip()
    assert updates(repo) == [{"steps": steps, "by": "commit", "commit": sha}]
    assert done(plan) == "".join("x" if n in steps else " " for n in (1, 2, 3))
    assert plan.read_text().replace("[x]", "[ ]") == PLAN
    assert ran.err == ""
    assert repo.tasks("task-status", "--json").json["plan"] == {"done": len(steps), "total": 3}
    assert [p.name for p in plan.parent.iterdir() if "plan" in p.name] == ["plan.md"]


def test_a_mark_counts_and_not_the_words_beside_it(repo: Repo, plan: Path) -> None:
    commit(repo, "Read the config file [step 3]")
    assert done(plan) == "  x"


@pytest.mark.parametrize("message", ["Something else", "Docs", "wip: read config file", "Do not write tests yet"])
def test_what_is_not_certain_checks_nothing(repo: Repo, plan: Path, message: str) -> None:
    before = plan.stat()
    assert commit(repo, message).err == ""
    assert (updates(repo), plan.read_text()) == ([], PLAN)
    assert (plan.stat().st_ino, plan.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_words_can_be_turned_off_and_marks_cannot(repo: Repo, plan: Path) -> None:
    repo.write(".opencode/tasks.toml", "[plan]\nmatch_words = false\n")
    commit(repo, "Read config file")
    assert done(plan) == "   "
    repo.git("commit", "-q", "--allow-empty", "-m", "Write tests", env={"OPENCODE_TASKS_PLAN_MATCH_WORDS": "on"})
    commit(repo, "More [step 3]")
    assert done(plan) == " xx"


def test_an_amended_or_reverted_commit_checks_nothing_more(repo: Repo, plan: Path) -> None:
    repo.commit("Read config file [step 2]", file="x\n")
    repo.git("commit", "-q", "--amend", "--no-edit")
    plan.write_text(PLAN)  # somebody knows better
    repo.git("revert", "--no-edit", "HEAD")
    assert done(plan) == "   "
    assert [u["steps"] for u in updates(repo)] == [[2]]


def test_whatever_bytes_it_has_all_but_the_box_stays(repo: Repo, plan: Path) -> None:
    before = b"\xef\xbb\xbf# T \r\n\r\n- [ ] caf\xe9 \0 \r\n* [ ] two\t\r\n\xff\r- [ ] no end"
    plan.write_bytes(before)
    plan.chmod(0o640)
    commit(repo, "Do [steps 1, 3]")
    assert plan.read_bytes() == before.replace(b"[ ] caf", b"[x] caf").replace(b"[ ] no", b"[x] no")
    assert plan.stat().st_mode & 0o7777 == 0o640


def test_a_step_that_is_not_there_is_said(repo: Repo, plan: Path) -> None:
    ran = commit(repo, "Do [steps 2, 4, 7]")
    assert ran.err == f"opencode-tasks: The commit names step 4, 7, and {plan} has 3 steps\n"
    assert done(plan) == " x "


def _gone(plan: Path) -> None:
    plan.unlink()


def _link(plan: Path) -> None:
    plan.rename(plan.with_name("elsewhere"))
    plan.symlink_to("elsewhere")


def _directory(plan: Path) -> None:
    plan.unlink()
    plan.mkdir()


def _pipe(plan: Path) -> None:
    plan.unlink()
    os.mkfifo(plan)


def _huge(plan: Path) -> None:
    plan.write_text(PLAN + "x" * (1 << 20))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_gone, "No such file or directory"),
        (_link, "a link"),
        (_directory, "no ordinary file"),
        (_pipe, "no ordinary file"),
        (_huge, "larger than 256 KiB"),
    ],
)
def test_a_plan_that_is_no_file_of_ours_is_left_alone_and_git_goes_on(
    repo: Repo, plan: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(plan)
    for message in ("Do [step 1]", "Read config file"):
        ran = commit(repo, message)
        nothing_to_say = spoil is _gone and "[" not in message
        assert ran.err == ("" if nothing_to_say else f"opencode-tasks: {plan} was left as it is: {said}\n")
    assert updates(repo) == []
    assert [e["data"]["subject"] for e in repo.events(repo.only_id()) if e["type"] == "commit.recorded"][-2:] == [
        "Do [step 1]",
        "Read config file",
    ]
    assert repo.tasks("task-status", "--json").json["plan"] == {"done": 0, "total": 0}
    if spoil is _link:
        assert (plan.with_name("elsewhere").read_text(), plan.is_symlink()) == (PLAN, True)


def test_a_plan_that_somebody_is_writing_is_left_to_him(repo: Repo, plan: Path) -> None:
    with plan.open("a") as f:
        ran = commit(repo, "Do [step 1]")
        assert ran.err == f"opencode-tasks: {plan} is being written by another program, and was left as it is\n"
        f.write("- [ ] Mine\n")
    assert plan.read_text() == f"{PLAN}- [ ] Mine\n"
    commit(repo, "Do [step 4]")
    assert done(plan) == "   x"


# Each save takes in what the file has, and adds a line: one that is missing at the end was lost by somebody else.
EDITOR = """
import os, sys, time
from pathlib import Path
path, how, end = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
n = 0
while n < 3 or not end.exists():
    line = f"\\n- [ ] mine {n}\\n"
    if how == "at the end":
        with path.open("a") as f:
            f.write(line)
    else:
        old = path.read_text()
        beside = path.with_name("editor")
        beside.write_text(old + line)
        if path.read_text() != old:
            continue  # where an editor asks what to do
        os.rename(beside, path)
    n += 1
    time.sleep(0.02)
print(n)
"""


@pytest.mark.parametrize("how", ["by rename", "at the end"])
def test_an_editor_that_saves_at_the_same_time_loses_nothing(repo: Repo, plan: Path, tmp_path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", EDITOR, plan, how, tmp_path / "end"], stdout=subprocess.PIPE
    ) as editor:
        try:
            for n in (1, 2, 3):
                said = commit(repo, f"Do [step {n}]").err
                assert said == "" or "was left as it is" in said or ".kept" in said
        finally:
            (tmp_path / "end").touch()
        saved = int(editor.communicate(timeout=30)[0])
    found = "".join(p.read_text() for p in plan.parent.glob("*plan.md*"))
    assert [n for n in range(saved) if f"- [ ] mine {n}\n" not in found] == []
    assert {step for update in updates(repo) for step in update["steps"]} <= {1, 2, 3}


def test_a_worktree_of_its_own_task_updates_its_own_plan(repo: Repo, plan: Path, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "task/two", str(tmp_path / "two"))
    (other,) = {p.name for p in repo.store.iterdir() if not p.name.startswith(".")} - {plan.parent.name}
    (repo.store / other / "plan.md").write_text(PLAN)
    run(["git", "commit", "-q", "--allow-empty", "-m", "Do [step 1]"], cwd=tmp_path / "two", env=repo.env)
    assert (done(plan), done(repo.store / other / "plan.md")) == ("   ", "x  ")
