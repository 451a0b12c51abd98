"""A day with many tasks on a large repository: what git has and what each task remembers are one and the same.

`pytest tests/test_a_day.py --tasks 50` is the long one.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands.test_init import installed_parts
from tests.conftest import Repo, run

ROOT = Path(__file__).parents[1]
FILES, COMMITS = 5000, 300


@pytest.fixture
def large(tmp_path: Path, engine_host: str) -> Repo:
    """This repository's own history, then three hundred commits and five thousand files more, and a submodule."""
    run(["git", "clone", "--quiet", "--local", str(ROOT), str(tmp_path / "library")], cwd=tmp_path)
    run(["git", "clone", "--quiet", "--local", str(ROOT), str(tmp_path / "large")], cwd=tmp_path)
    repo = Repo(tmp_path / "large", {"DOCKER_HOST": engine_host, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    repo.git("checkout", "--quiet", "-B", "main")
    lines = []
    for number in range(COMMITS):
        lines += ["commit refs/heads/main", "committer Ada <ada@example.invalid> 1700000000 +0000", "data 2", "x"]
        lines += ["from refs/heads/main^0"] if number == 0 else []
        for file in range(number, FILES, COMMITS):
            lines += [f"M 100644 inline many/{file % 50}/{file}.txt", f"data {len(str(file)) + 1}", str(file)]
    stream = "\n".join([*lines, ""])
    run(["git", "fast-import", "--quiet"], cwd=repo.top, stdin=stream)
    repo.git("reset", "--quiet", "--hard")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"), "lib")
    repo.git("commit", "--quiet", "-m", "a submodule")
    return repo


@dataclass
class Done:
    """One task, as far as this test has made it: `subjects` of all commits that were ever on its branch."""

    id: str
    repo: Repo
    branch: str
    subjects: list[str] = field(default_factory=list)
    status: str = "running"
    has_branch: bool = True


class Day:
    def __init__(self, repo: Repo, luck: random.Random) -> None:
        self.repo, self.luck = repo, luck
        self.tasks: list[Done] = []

    def begin(self, number: int) -> Done:
        how = self.luck.choice(["checkout", "create", "worktree", "worktree"])
        if how == "checkout":
            before = set(self.repo.ids())
            self.repo.git("checkout", "--quiet", "-b", f"task/by-hand-{number}", "main")
            (task_id,) = set(self.repo.ids()) - before
            made = Done(task_id, self.repo, f"task/by-hand-{number}")
        else:
            words = ["--worktree"] if how == "worktree" else []
            said = self.repo.tasks("create-task", f"Number {number}", "--from", "main", *words, "--json").json
            top = Path(said["workspace"]["path"])
            made = Done(said["id"], self.repo if top == self.repo.top else Repo(top, self.repo.env), said["branch"])
        self.tasks.append(made)
        return made

    def commit(self, task: Done, *, inside: bool = False) -> None:
        subject = f"{task.id} {len(task.subjects)}"
        name = f"work/{task.id}/{len(task.subjects)}"
        if inside:
            script = f'mkdir -p work/{task.id}; echo {subject} >{name}; git add {name}; git commit -qm "{subject}"'
            task.repo.tasks("exec", "--", "sh", "-ec", script)
        else:
            task.repo.write(name, f"{subject}\n")
            task.repo.git("add", name)
            task.repo.git("commit", "--quiet", "-m", subject)
        task.subjects.append(subject)

    def turn(self, task: Done) -> None:
        """Something that people do in the middle of a task."""
        what = self.luck.choice(["amend", "rebase", "rename", "more", "base moves"])
        if what == "amend":
            subject = f"{task.subjects[-1]} better"
            task.repo.git("commit", "--quiet", "--amend", "-m", subject)
            task.subjects.append(subject)
        elif what == "rebase":
            task.repo.git("rebase", "--quiet", "--force-rebase", "main")
        elif what == "rename":
            task.repo.git("branch", "-m", f"{task.branch}-renamed")
            task.branch += "-renamed"
        elif what == "base moves":
            self.on_main(lambda: self.repo.commit("main goes on", **{"main.txt": f"{self.luck.random()}\n"}))
        else:
            self.commit(task)

    def on_main(self, do: Callable[[], object]) -> None:
        here = self.repo.branch
        self.repo.git("checkout", "--quiet", "main")
        do()
        self.repo.git("checkout", "--quiet", here)

    def end(self, task: Done) -> None:
        how = self.luck.choice(["--merge", "--squash", "--rebase", "by hand", "delete", "open", "plain"])
        if how.startswith("--"):
            task.repo.tasks("complete-task", task.id, how)
            task.status = "completed"
        elif how == "plain":
            task.repo.tasks("complete-task", task.id)
            task.status = "completed"
        self.repo.git("checkout", "--quiet", "main")
        if how == "by hand":
            self.repo.git("merge", "--quiet", "--no-ff", "--no-edit", task.branch)
        if how == "delete" and task.repo is self.repo:
            self.repo.git("branch", "-q", "-D", task.branch)
            task.has_branch = False
        if task.repo is self.repo and task.status == "running":
            task.status = "paused"
        if how.startswith("--") and self.luck.random() < 0.5:
            self.repo.tasks("cleanup-task", task.id, "--discard", "ignored,unpushed")
            task.has_branch = False

    def check(self) -> None:
        for task in self.tasks:
            said = self.repo.tasks("task-status", task.id, "--json").json
            assert (said["status"], said["branch"]) == (task.status, task.branch), task
            events = self.repo.events(task.id)
            recorded = [e["data"]["subject"] for e in events if e["type"] == "commit.recorded"]
            assert sorted(set(recorded)) == sorted(set(task.subjects)), task
            if task.has_branch:
                tip = self.repo.git("rev-parse", f"refs/heads/{task.branch}").out.strip()
                last = [e["data"] for e in events if e["type"] in ("commit.recorded", "commit.rewritten")][-1:]
                assert [one.get("head", one.get("sha")) for one in last] in ([tip], []), task


def test_a_day(large: Repo, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    before = installed_parts(large)
    large.tasks("init")
    day = Day(large, random.Random(seed))
    for number in range(pytestconfig.getoption("--tasks")):
        task = day.begin(number)
        day.commit(task)
        if number % 5 == 0:
            day.commit(task, inside=True)
            large.tasks("task-status", task.id)
        day.turn(task)
        day.turn(task)
        day.end(task)
    large.git("checkout", "--quiet", "main")
    day.check()
    large.git("fsck", "--strict", "--no-dangling")
    memory = large.common / "opencode-tasks" / "memory.git"
    run(["git", f"--git-dir={memory}", "fsck", "--no-dangling"], cwd=tmp_path)
    large.tasks("doctor")
    large.tasks("reconcile")
    day.check()
    large.tasks("uninstall", "--purge")
    for tree in large.git("worktree", "list", "--porcelain").out.split("\n\n")[1:]:
        if tree:
            large.git("worktree", "remove", "--force", tree.split("\n")[0].removeprefix("worktree "), check=False)
    for branch in large.git("for-each-ref", "--format=%(refname:short)", "refs/heads").out.split():
        if branch != "main":
            large.git("branch", "-q", "-D", branch)
    after = installed_parts(large)
    shutil.rmtree(tmp_path / "large.worktrees", ignore_errors=True)
    assert {n for n in before if n.startswith(".git")} == {n for n in after if n.startswith(".git")}
    assert {n: v for n, v in before.items() if n.startswith(".git/")} == {
        n: v for n, v in after.items() if n.startswith(".git/")
    }
    assert os.path.lexists(large.top / "lib" / ".git")
