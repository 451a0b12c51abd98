"""The installed shims, under real git: when Python starts, and what git gets to see of it all."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git_hooks import MODULES
from tests.conftest import Repo, run

NAMES = tuple(sorted(MODULES))
SHELLS = [
    pytest.param(argv, id=argv.split()[-1] if "busybox" not in argv else "busybox")
    for argv in ("dash", "bash --posix", "busybox sh", "ksh", "zsh")
    if shutil.which(argv.split()[0])
]


class Tracer:
    """Stands in the recorded interpreter's place, writes down each start and goes on to the real one."""

    def __init__(self, repo: Repo, where: Path) -> None:
        self.log = where / "starts"
        self.script = where / "tracing-python"
        self.script.write_text(f'#!/bin/sh\necho "$4" >>{shlex.quote(str(self.log))}\nexec {sys.executable} "$@"\n')
        self.script.chmod(0o755)
        shared = repo.common / "hooks" / "opencode-tasks.sh"
        lines = shared.read_text().splitlines(keepends=True)
        (at,) = [n for n, line in enumerate(lines) if line.startswith("python=")]
        lines[at] = f"python={shlex.quote(str(self.script))}\n"
        shared.write_text("".join(lines))

    def take(self) -> list[str]:
        """The hooks that started Python since the last call."""
        found = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found


@pytest.fixture
def tracer(repo: Repo, tmp_path: Path) -> Tracer:
    return Tracer(repo, tmp_path)


def with_shell(repo: Repo, shell: str) -> None:
    program, *rest = shell.split()
    path = shutil.which(program)
    for name in NAMES:
        hook = repo.common / "hooks" / name
        hook.write_text(hook.read_text().replace("#!/bin/sh", " ".join([f"#!{path}", *rest]), 1))


def foreign(repo: Repo, name: str, *, code: int = 0, mode: int = 0o755) -> Path:
    """A hook of another tool, as it stands after `init` put ours over it."""
    seen = repo.top.parent / f"seen-{name}"
    path = repo.common / "hooks" / f"{name}.before-opencode-tasks"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{shlex.quote(str(seen))}\nexit {code}\n')
    path.chmod(mode)
    return seen


@pytest.mark.parametrize("shell", SHELLS)
def test_a_task_lives_through_checkout_commit_and_return_under_every_shell(
    repo: Repo, tracer: Tracer, shell: str
) -> None:
    with_shell(repo, shell)
    repo.git("checkout", "-q", "-b", "task/one")
    assert tracer.take() == ["post-checkout"]
    task_id = repo.only_id()
    repo.git("commit", "-q", "--allow-empty", "-m", "work")
    # commit-msg sees the trailer and needs no Python.
    assert tracer.take() == ["prepare-commit-msg", "post-commit"]
    assert repo.git("log", "-1", "--format=%(trailers:key=Task-Id,valueonly)").out.strip() == task_id
    repo.git("checkout", "-q", "main")
    assert tracer.take() == ["post-checkout"]
    assert repo.tasks("task-status", task_id, "--json").json["status"] == "paused"


@pytest.mark.parametrize("shell", SHELLS)
def test_no_python_where_no_task_is_concerned(repo: Repo, tracer: Tracer, shell: str) -> None:
    with_shell(repo, shell)
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("checkout", "-q", "main")
    tracer.take()
    repo.git("branch", "other")
    for words in (
        ["checkout", "-q", "other"],
        ["checkout", "-q", "-b", "taskless"],
        ["commit", "-q", "--allow-empty", "-m", "no task's"],
        ["checkout", "-q", "--detach"],
        ["commit", "-q", "--allow-empty", "-m", "nobody's"],
        ["checkout", "-q", "main"],
        ["rebase", "-q", "other"],
        ["clone", "-q", ".", str(repo.top.parent / "clone")],
    ):
        repo.git(*words)
        assert tracer.take() == [], words


def test_a_checkout_of_files_starts_no_python_even_on_a_task_branch(repo: Repo, tracer: Tracer) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    tracer.take()
    repo.write("README.md", "changed\n")
    repo.git("checkout", "-q", "HEAD", "--", "README.md")
    repo.git("restore", "README.md")
    assert tracer.take() == []


def test_a_task_branch_without_the_prefix_is_known_too(repo: Repo, tracer: Tracer) -> None:
    repo.tasks("create-task", "odd", "--branch", "feature/odd")
    repo.git("checkout", "-q", "main")
    tracer.take()
    repo.git("checkout", "-q", "feature/odd")
    assert tracer.take() == ["post-checkout"]
    repo.git("checkout", "-q", "main")
    tracer.take()
    repo.git("checkout", "-q", "-b", "feature/oddly")
    assert tracer.take() == []


def test_no_python_in_a_linked_worktree_without_a_task_while_the_main_one_has_one(
    repo: Repo, tracer: Tracer, tmp_path: Path
) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    tracer.take()
    repo.git("worktree", "add", "-q", "-b", "aside", str(tmp_path / "aside"), "main")
    assert tracer.take() == ["post-checkout"], "once: it has nothing for OpenCode yet"
    for words in (["commit", "-q", "--allow-empty", "-m", "x"], ["checkout", "-q", "-b", "another"]):
        run(["git", *words], cwd=tmp_path / "aside", env=repo.env)
    assert tracer.take() == []


def test_hooks_off_starts_no_python_but_the_other_hook(repo: Repo, tracer: Tracer) -> None:
    seen = foreign(repo, "post-checkout")
    repo.git("checkout", "-q", "-b", "task/one", env={"OPENCODE_TASKS_HOOKS": "off"})
    assert tracer.take() == []
    assert len(seen.read_text().splitlines()) == 3
    assert repo.ids() == []


def test_after_uninstall_shims_that_somebody_kept_start_nothing(repo: Repo, tracer: Tracer, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(repo.common / "hooks", kept)
    repo.tasks("uninstall")
    shutil.copytree(kept, repo.common / "hooks", dirs_exist_ok=True)
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("commit", "-q", "--allow-empty", "-m", "x")
    assert tracer.take() == []
    assert "Task-Id" not in repo.git("log", "-1", "--format=%B").out


@pytest.mark.parametrize("shell", SHELLS)
def test_an_interpreter_that_is_gone_is_said_and_git_goes_on(repo: Repo, tracer: Tracer, shell: str) -> None:
    with_shell(repo, shell)
    tracer.script.unlink()
    done = repo.git("checkout", "-b", "task/one")
    assert f"opencode-tasks: {tracer.script} is gone, so post-checkout did nothing" in done.err
    assert "opencode-tasks init" in done.err
    assert repo.git("commit", "--allow-empty", "-m", "x").code == 0
    assert "is gone" not in repo.git("checkout", "main", "--", "README.md").err
    repo.tasks("init")
    assert repo.tasks("task-status", "--json").json["branch"] == "task/one"


def test_a_bug_of_ours_is_logged_and_git_goes_on(repo: Repo, tracer: Tracer) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    tracer.script.write_text("#!/bin/sh\nexit 7\n")
    assert repo.git("commit", "-q", "--allow-empty", "-m", "x").code == 0
    assert repo.git("checkout", "-q", "main").code == 0


def test_a_missing_shared_file_stops_nothing(repo: Repo) -> None:
    (repo.common / "hooks" / "opencode-tasks.sh").unlink()
    assert repo.git("checkout", "-b", "task/one").err == "Switched to a new branch 'task/one'\n"
    assert repo.git("commit", "-q", "--allow-empty", "-m", "x").err == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("branch", ["plain", "task/one"])
def test_the_hook_before_ours_gets_gits_arguments(repo: Repo, branch: str, shell: str) -> None:
    with_shell(repo, shell)
    seen = {name: foreign(repo, name) for name in NAMES}
    head = repo.git("rev-parse", "HEAD").out.strip()
    repo.git("checkout", "-q", "-b", branch)
    repo.git("commit", "-q", "--allow-empty", "-m", "x")
    assert seen["post-checkout"].read_text().splitlines() == [head, head, "1"]
    assert seen["prepare-commit-msg"].read_text().splitlines() == [".git/COMMIT_EDITMSG", "message"]
    assert seen["commit-msg"].read_text().splitlines() == [".git/COMMIT_EDITMSG"]
    assert seen["post-commit"].read_text().strip() == ""
    seen["post-checkout"].unlink()
    repo.git("checkout", "-q", "HEAD", "--", "README.md")
    assert seen["post-checkout"].read_text().splitlines()[2] == "0"


@pytest.mark.parametrize("branch", ["plain", "task/one"])
def test_the_answer_of_the_hook_before_ours_is_gits_answer(repo: Repo, branch: str) -> None:
    repo.git("checkout", "-q", "-b", branch)
    before = repo.git("rev-parse", "HEAD").out
    for name in ("prepare-commit-msg", "commit-msg"):
        foreign(repo, name, code=3)
        assert repo.git("commit", "-q", "--allow-empty", "-m", "x", check=False).code == 1
        assert repo.git("rev-parse", "HEAD").out == before
        foreign(repo, name, code=0)
    foreign(repo, "post-checkout", code=5)
    assert repo.git("checkout", "-q", "-b", f"{branch}-2", check=False).code == 1
    assert repo.branch == f"{branch}-2"
    if branch == "task/one":
        assert repo.tasks("task-status", "--json").json["branch"] == "task/one-2"


def test_a_hook_that_is_not_executable_is_passed_over_as_git_does(repo: Repo) -> None:
    seen = foreign(repo, "post-checkout", code=9, mode=0o644)
    assert repo.git("checkout", "-q", "-b", "task/one").code == 0
    assert not seen.exists()
    assert repo.ids()


def test_a_hook_that_is_a_link_runs_and_finds_its_neighbours(make_repo: Callable[..., Repo], tmp_path: Path) -> None:
    repo = make_repo()
    seen = tmp_path / "seen"
    (tmp_path / "tool").write_text(f"#!/bin/sh\necho ran >>{shlex.quote(str(seen))}\n")
    (tmp_path / "tool").chmod(0o755)
    (repo.common / "hooks" / "post-checkout").symlink_to(tmp_path / "tool")
    repo.tasks("init")
    repo.git("checkout", "-q", "-b", "task/one")
    assert seen.read_text() == "ran\n"
    assert repo.ids()


@pytest.mark.parametrize("name", ["with space", "grüße", "new\nline", "co:lon$dollar'quote"])
def test_the_path_of_the_repository_may_be_anything(make_repo: Callable[..., Repo], name: str) -> None:
    repo = make_repo(name)
    repo.tasks("init")
    repo.git("checkout", "-q", "-b", "task/one")
    task = repo.tasks("task-status", "--json").json
    assert task["workspace"] == {"kind": "in-place", "path": str(repo.top)}
    repo.git("commit", "-q", "--allow-empty", "-m", "x")
    assert task["id"] in repo.git("log", "-1", "--format=%B").out
    aside = repo.top.parent / f"{name} aside"
    repo.git("worktree", "add", "-q", "-b", "task/two", str(aside))
    two = repo.tasks("task-status", "--json", cwd=aside).json
    assert two["workspace"] == {"kind": "worktree", "path": str(aside)}
    assert (aside / ".tasks").resolve() == repo.store


def test_a_user_module_cannot_run_inside_our_hook(repo: Repo) -> None:
    for name in ("json.py", "opencode_tasks.py", "pathlib.py", "sitecustomize.py"):
        repo.write(name, "raise SystemExit('planted')\n")
    done = repo.git("checkout", "-q", "-b", "task/one", env={"PYTHONPATH": str(repo.top)})
    assert "planted" not in done.err
    assert repo.ids()


def test_git_with_another_work_tree_does_not_touch_that_ones_repository(
    repo: Repo, make_repo: Callable[..., Repo]
) -> None:
    other = make_repo("other")
    before = (other.top / ".git" / "config").read_bytes()
    pair = [f"--git-dir={repo.top}/.git", f"--work-tree={other.top}"]
    done = other.git(*pair, "checkout", "-q", "-b", "task/foreign")
    assert "is not the git directory of" in done.err
    assert repo.ids() == []
    assert (other.top / ".git" / "config").read_bytes() == before
    assert not (other.top / ".tasks").exists()


@pytest.mark.parametrize("how", ["-C", "--git-dir", "GIT_DIR", "subfolder"])
def test_however_git_is_told_where_it_is(repo: Repo, how: str) -> None:
    repo.write("sub/file", "x")
    words = {
        "-C": ["-C", str(repo.top)],
        "--git-dir": [f"--git-dir={repo.top}/.git", f"--work-tree={repo.top}"],
        "GIT_DIR": [],
        "subfolder": [],
    }[how]
    cwd = repo.top / "sub" if how == "subfolder" else repo.top if how == "GIT_DIR" else repo.top.parent
    env = {**repo.env, **({"GIT_DIR": ".git"} if how == "GIT_DIR" else {})}
    run(["git", *words, "checkout", "-q", "-b", "task/one"], cwd=cwd, env=env)
    run(["git", *words, "add", "--all"], cwd=cwd, env=env)
    run(["git", *words, "commit", "-q", "-m", "x"], cwd=cwd, env=env)
    task_id = repo.only_id()
    assert task_id in repo.git("log", "-1", "--format=%B").out
    assert [e["type"] for e in repo.events(task_id)][-1] == "commit.recorded"
    assert os.path.lexists(repo.top / ".tasks")
