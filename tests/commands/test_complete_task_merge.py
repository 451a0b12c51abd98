"""`complete-task --merge|--squash|--rebase`: the base gets the work, or nothing is changed anywhere."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.containers import holds
from opencode_tasks.git import landing
from opencode_tasks.store import Store
from opencode_tasks.store.locks import LockTimeout
from tests.commands.conftest import Ask, made_aside
from tests.conftest import Repo

State = tuple[str, str, str, dict[str, str]]


@pytest.fixture
def aside(repo: Repo) -> tuple[Repo, str]:
    """A task in a worktree with one commit; the main checkout is on `main`, and has moved on. Without our hooks."""
    return made_aside(repo)


def state(*repos: Repo) -> list[State]:
    """Everything that a merge may change: references, index, files."""
    found = []
    for one in repos:
        files = {}
        for folder, names, held in os.walk(one.top):
            names[:] = [name for name in names if name not in (".git", ".tasks")]
            files.update({f"{folder}/{name}": Path(folder, name).read_text() for name in held})
        status = one.git("status", "-s", env={"GIT_OPTIONAL_LOCKS": "0"}).out
        found.append((one.git("for-each-ref").out, one.git("ls-files", "-s").out, status, files))
    return found


def refused(ask: Ask, task_id: str, code: str, *repos: Repo, words: tuple[str, ...] = ("--merge",)) -> str:
    before = state(*repos)
    done = ask("complete-task", task_id, *words, "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, code), done
    assert done.json["error"]["hint"]
    assert state(*repos) == before
    assert ask("task-status", task_id, "--json").json["status"] in ("running", "paused")
    assert not list(repos[0].common.glob("opencode-tasks/merging/*"))
    message: str = done.json["error"]["message"]
    return message


def log(repo: Repo, fmt: str, revisions: str = "main") -> list[str]:
    return repo.git("log", f"--format={fmt}", revisions).out.splitlines()


def test_a_merge_moves_the_base_and_the_files_where_it_is_checked_out(
    repo: Repo, ask: Ask, aside: tuple[Repo, str]
) -> None:
    work, task_id = aside
    repo.write("README.md", "mine, not committed\n")
    old, tip = repo.git("rev-parse", "main", "task/speed-up-the-parser").out.split()
    done = ask("complete-task", task_id, "--merge", "--json").json
    head = repo.git("rev-parse", "main").out.strip()
    assert done["merged"] == {"into": "main", "head": head, "how": "merge", "changed": True}
    assert done["status"] == "completed"
    assert repo.git("show", "-s", "--format=%P%n%B%an", "main").out.split("\n") == [
        f"{old} {tip}",
        "Merge task Speed up the parser",
        "",
        f"Task-Id: {task_id}",
        "Test",
        "",
    ]
    assert (repo.top / "parser.py").read_text() == "fast\n"
    assert repo.git("status", "-s").out == " M README.md\n"
    assert "complete-task: merge task/speed-up-the-parser" in repo.git("reflog", "-1").out
    (event,) = [e["data"] for e in repo.events(task_id) if e["type"] == "branch.merged"]
    branch = {"branch": "task/speed-up-the-parser", "tip": tip, "into": "main", "head": head, "how": "merge"}
    assert event == branch
    assert work.branch == "task/speed-up-the-parser"
    assert ask("cleanup-task", task_id).code == 0


def test_squash_is_one_commit_with_all_subjects_and_in_place_one_stays(repo: Repo, ask: Ask) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("First", a="1\n")
    repo.commit("Second", b="1\n")
    repo.commit("Empty")
    done = ask("complete-task", "--squash")
    assert "stays on task/one" in done.out
    assert "not merged" not in done.out
    assert repo.branch == "task/one"
    assert repo.git("status", "-s").out == ""
    body = repo.git("show", "-s", "--format=%B", "main").out.rstrip().split("\n")
    assert body == ["One", "", "- First", "- Second", "- Empty", "", f"Task-Id: {repo.only_id()}"]
    assert repo.git("diff", "main", "task/one").out == ""
    assert len(repo.git("rev-list", "--parents", "-1", "main").out.split()) == 2


def test_a_message_of_ones_own(repo: Repo, ask: Ask) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.commit("First", a="1\n")
    for words in (["-m", "alone"], ["--rebase", "-m", "x"], ["--merge", "--squash"]):
        assert ask("complete-task", *words, check=False).code == 2
    repo.git("config", "commit.gpgSign", "true")
    repo.git("config", "gpg.program", "false")
    assert "git could not make the commit" in refused(ask, repo.only_id(), "git", repo)
    repo.git("config", "commit.gpgSign", "false")
    ask("complete-task", "--squash", "-m", "Mine\n\nwhy")
    body = repo.git("show", "-s", "--format=%B", "main").out.rstrip()
    assert body == f"Mine\n\nwhy\n\nTask-Id: {repo.only_id()}"


def test_rebase_keeps_who_wrote_what_and_when_and_drops_what_the_base_has(
    repo: Repo, ask: Ask, aside: tuple[Repo, str]
) -> None:
    work, task_id = aside
    who = {
        "GIT_AUTHOR_NAME": "Zoë X",
        "GIT_AUTHOR_EMAIL": "z@example.invalid",
        "GIT_AUTHOR_DATE": "2001-02-03T04:05:06+0700",
    }
    work.write("README.md", "new\n")
    work.git("commit", "-q", "-am", "Same\n\n  indented  \n", env=who)
    work.git("commit", "-q", "--allow-empty", "-m", "Empty on purpose")
    work.git("-c", "i18n.commitEncoding=latin1", "commit", "-q", "--allow-empty", "-m", "caf\udce9")
    repo.commit("The same", **{"parser.py": "fast\n"})
    os.utime(repo.top / "README.md", (1, 1))  # touched is not changed
    ask("complete-task", task_id, "--rebase")
    assert log(repo, "%s|%an|%ae|%aI|%e")[:3] == [
        "café|Test|test@example.invalid|" + log(work, "%aI", "HEAD")[0] + "|latin1",
        "Empty on purpose|Test|test@example.invalid|" + log(work, "%aI", "HEAD~1")[0] + "|",
        "Same|Zoë X|z@example.invalid|2001-02-03T04:05:06+07:00|",
    ]
    assert log(repo, "%s")[3] == "The same"
    assert (
        repo.git("cat-file", "commit", "main~2").out.partition("\n\n")[2]
        == work.git("cat-file", "commit", "HEAD~2").out.partition("\n\n")[2]
    )
    assert (repo.top / "README.md").read_text() == "new\n"
    assert repo.git("status", "-s").out == ""


def test_rebase_of_a_branch_with_a_merge_is_refused_and_one_on_top_is_taken_as_it_is(
    repo: Repo, ask: Ask, aside: tuple[Repo, str]
) -> None:
    work, task_id = aside
    work.git("merge", "-q", "--no-edit", "main")
    assert "a merge in it" in refused(ask, task_id, "git", repo, work, words=("--rebase",))
    work.git("reset", "-q", "--hard", "HEAD^")
    work.git("rebase", "-q", "main")
    ask("complete-task", task_id, "--rebase")
    assert repo.git("rev-parse", "main").out == work.git("rev-parse", "HEAD").out


def test_conflicts_name_both_intentions_and_the_other_task(repo: Repo, ask: Ask, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.commit("Mine", **{"README.md": "mine\n", "both \x1b": "1\n"})
    repo.git("checkout", "-q", "-b", "task/rename")
    theirs = repo.commit("Theirs", **{"README.md": "theirs\n", "both \x1b": "2\n"})
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "task/rename")
    mine = work.git("rev-parse", "--short=9", "HEAD").out.strip()
    for how in ("--merge", "--squash", "--rebase"):
        said = refused(ask, task_id, "conflict", repo, work, words=(how,)).split("\n")
        assert said[1:4] == [
            "  README.md",
            f"    task/speed-up-the-parser: {mine} Mine",
            f'    main: {theirs[:9]} Theirs (task "Rename")',
        ]
        assert len(said) == 7


def test_what_is_not_committed_is_never_overwritten(repo: Repo, ask: Ask, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.commit("More", **{"README.md": "theirs\n", "deep/er/file": "x\n"})
    work.write("new", "x\n")
    assert "new" in refused(ask, task_id, "unsaved_work", repo, work)
    (work.top / "new").unlink()
    repo.write("README.md", "mine\n")
    assert f"{repo.top} has work" in refused(ask, task_id, "unsaved_work", repo, work)
    repo.git("add", "README.md")
    assert "README.md" in refused(ask, task_id, "unsaved_work", repo, work)
    repo.git("checkout", "-q", "HEAD", "README.md")
    repo.git("config", "core.excludesFile", str(repo.top.parent / "excludes"))
    (repo.top.parent / "excludes").write_text("parser.py\ndeep\n")
    repo.write("parser.py", "precious, ignored\n")
    repo.write("deep", "precious, ignored\n")
    assert "deep, parser.py" in refused(ask, task_id, "unsaved_work", repo, work)
    (repo.top / "parser.py").unlink()
    (repo.top / "deep").unlink()
    repo.write("deep/er/file/precious", "x\n")
    assert "deep/er/file/precious" in refused(ask, task_id, "unsaved_work", repo, work)


def test_what_is_not_finished_is_finished_first(repo: Repo, ask: Ask, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    work.commit("Mine", **{"README.md": "mine\n"})
    repo.commit("Theirs", **{"README.md": "theirs\n"})
    assert work.git("rebase", "main", check=False).code == 1
    assert f"A rebase is not finished in {work.top}" in refused(ask, task_id, "in_use", repo, work)
    work.git("rebase", "--abort")
    work.git("rm", "-q", "README.md")
    work.git("commit", "-q", "--amend", "-m", "Gone")
    repo.git("revert", "--no-edit", "HEAD")
    repo.git("revert", "-n", "HEAD")
    assert f"A revert is not finished in {repo.top}" in refused(ask, task_id, "in_use", repo, work)


def test_an_agent_merges_into_no_protected_branch(
    repo: Repo, ask: Ask, aside: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_BRANCH_PROTECTED", "main")
    monkeypatch.setenv("OPENCODE_PID", "1")
    assert "merges into main" in refused(ask, aside[1], "persons_decision", repo)
    monkeypatch.delenv("OPENCODE_PID")
    ask("complete-task", aside[1], "--merge")


def test_nothing_to_merge_and_nowhere_to(repo: Repo, ask: Ask, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    repo.git("branch", "-q", "-m", "main", "trunk")
    assert "Its base main is gone" in refused(ask, task_id, "no_revision", repo)
    repo.git("branch", "-q", "-m", "trunk", "main")
    repo.git("merge", "-q", "--squash", "task/speed-up-the-parser")
    head = repo.commit("By hand")
    done = ask("complete-task", task_id, "--merge", "--json").json
    assert done["merged"] == {"into": "main", "head": head, "how": "merge", "changed": False}
    assert repo.git("rev-parse", "main").out.strip() == head
    assert work.git("status", "-s").out == ""


def test_every_work_tree_that_has_the_base_follows_or_nothing_does(
    repo: Repo, ask: Ask, aside: tuple[Repo, str]
) -> None:
    work, task_id = aside
    repo.git("worktree", "add", "-q", "--force", "../second", "main")
    second = Repo(repo.top.parent / "second", work.env)
    second.write("parser.py", "mine\n")
    assert f"{second.top} has work" in refused(ask, task_id, "unsaved_work", repo, work, second)
    second.git("stash", "-q", "-u")
    lock = Path(second.git("rev-parse", "--absolute-git-dir").out.strip()) / "index.lock"
    lock.touch()
    assert "could not follow" in refused(ask, task_id, "in_use", repo, work)
    lock.unlink()
    elsewhere = repo.top.parent / "elsewhere"
    second.top.rename(elsewhere)
    assert "a work tree that is not there" in refused(ask, task_id, "in_use", repo, work)
    elsewhere.rename(second.top)
    ask("complete-task", task_id, "--merge")
    assert [one.git("status", "-s").out for one in (repo, second)] == ["", ""]
    assert (second.top / "parser.py").read_text() == "fast\n"


def test_a_branch_does_not_say_how_it_is_merged_the_base_does(repo: Repo, ask: Ask, aside: tuple[Repo, str]) -> None:
    work, task_id = aside
    ran = repo.top / "ran"
    for name in ("merge.mine.driver", "filter.mine.clean", "filter.mine.smudge"):
        repo.git("config", name, f"touch {ran}")
    for hook in ("pre-merge-commit", "post-merge", "reference-transaction", "commit-msg", "post-index-change"):
        path = repo.common / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {ran}\n")
        path.chmod(0o755)
    work.commit("Attributes", **{".gitattributes": "* merge=mine\n", "README.md": "mine\n"})
    ran.unlink(missing_ok=True)
    repo.git("commit", "-q", "--allow-empty", "-m", "x", "--no-verify")
    ran.unlink(missing_ok=True)
    repo.write("README.md", "theirs\n")
    repo.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-am", "Theirs")
    repo.write(".gitattributes", "* merge=mine\n")
    refused(ask, task_id, "conflict", repo, work)
    assert not ran.exists()
    repo.write(".gitattributes", "README.md merge=union\n")
    repo.git("-c", "core.hooksPath=/dev/null", "add", ".gitattributes")
    repo.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "Union")
    work.git("-c", "core.hooksPath=/dev/null", "rm", "-q", ".gitattributes")
    work.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "No attributes")
    ask("complete-task", task_id, "--merge")
    assert not ran.exists()
    assert sorted((repo.top / "README.md").read_text().split()) == ["mine", "theirs"]


def test_who_commits_meanwhile_is_merged_with(
    repo: Repo, ask: Ask, aside: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base moves between the computing and the moving: computed again; the task's own branch: refused."""
    work, task_id = aside
    real = landing.land

    def late(*args: object) -> None:
        monkeypatch.setattr(landing, "land", real)
        repo.commit("Late", late="x\n")
        real(*args)  # type: ignore[arg-type]

    def later(*args: object) -> None:
        work.commit("Later", later="x\n")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(landing, "land", later)
    assert ask("complete-task", task_id, "--merge", check=False).code == 1
    assert repo.git("status", "-s").out == ""
    assert log(repo, "%s")[0] == "Meanwhile"
    assert not list((repo.common / "opencode-tasks" / "merging").iterdir())
    monkeypatch.setattr(landing, "land", late)
    ask("complete-task", task_id, "--merge")
    assert set(log(repo, "%s")[1:3]) == {"Late", "Later"}
    assert repo.git("status", "-s").out == ""
    assert (repo.top / "later").exists()


def test_an_old_git_says_so(
    repo: Repo, ask: Ask, aside: tuple[Repo, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    real = repo.git("--exec-path").out.strip()
    old.write_text(
        f'#!/bin/sh\ncase " $* " in *" merge-tree "*) echo usage >&2; exit 129;; esac\nexec {real}/git "$@"\n'
    )
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    assert "git 2.38" in refused(ask, aside[1], "git", repo)


def test_a_base_that_is_another_tasks_is_held_still_meanwhile(
    repo: Repo, ask: Ask, aside: tuple[Repo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, parent_id = aside
    child, child_id = made_aside(repo, "Child", of=parent)
    (Path(parent.git("rev-parse", "--absolute-git-dir").out.strip()) / "opencode-task").write_text(f"{parent_id}\n")
    real, seen = landing._follow, []

    def follow(*args: Any) -> None:
        with pytest.raises(LockTimeout), holds.still(Store(repo.common), parent_id, timeout_s=0):
            seen.append("not held")
        seen.append("held")
        real(*args)

    monkeypatch.setattr(landing, "_follow", follow)
    ask("complete-task", child_id, "--merge")
    assert seen == ["held"]
    assert (parent.top / "child.py").read_text() == "fast\n"
    assert parent.git("status", "-s").out == ""
    assert child.git("merge-base", "--is-ancestor", "HEAD", "task/speed-up-the-parser").code == 0


STEPS = ["write_down", "follow", "swap", "record", "forget", "ensure_status"]


@pytest.mark.parametrize(
    ("name", "by"), [*((name, "complete-task") for name in STEPS), ("follow", "reconcile"), ("swap", "reconcile")]
)
def test_killed_before_or_after_any_step_it_is_finished_or_taken_back(
    repo: Repo, ask: Ask, aside: tuple[Repo, str], name: str, by: str
) -> None:
    (work, task_id), step = aside, STEPS.index(name)
    work.git("mv", "README.md", "moved")
    work.commit("Moved")
    old, tip = repo.git("rev-parse", "main", "task/speed-up-the-parser").out.split()
    if os.fork() == 0:
        die_after(step)
        ask("complete-task", task_id, "--merge", check=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    if by == "reconcile":
        repo.tasks("reconcile", check=False)  # there is no engine, and it says so
        assert not list((repo.common / "opencode-tasks" / "merging").iterdir())
        came_through = repo.git("rev-parse", "main").out.strip() != old
        assert came_through == (step >= STEPS.index("swap"))
        assert repo.git("status", "-s").out == ""
        assert (repo.top / "moved").exists() == came_through
        recorded = [e for e in repo.events(task_id) if e["type"] == "branch.merged"]
        assert len(recorded) == came_through
    if step < STEPS.index("ensure_status"):
        ask("complete-task", task_id, "--merge")
    assert ask("task-status", task_id, "--json").json["status"] == "completed"
    assert repo.git("rev-parse", "main^1", "main^2").out.split() == [old, tip]
    assert repo.git("status", "-s").out == ""
    assert len([e for e in repo.events(task_id) if e["type"] == "branch.merged"]) == 1


def die_after(step: int) -> None:
    """In a process of its own. What git has done is as done as it ever is."""

    def killing(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **named: object) -> None:
            real(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, call)

    name = STEPS[step]
    if name == "ensure_status":
        killing(Store, name)
    elif name == "record":
        from opencode_tasks.commands import merging

        killing(merging, "_record")
    else:
        killing(landing, name if name == "forget" else f"_{name}")


def test_files_that_git_wrote_before_the_power_went_are_taken_back(
    repo: Repo, ask: Ask, aside: tuple[Repo, str]
) -> None:
    """Some files are the new ones, the index is the old one; what somebody wrote since stays."""
    work, task_id = aside
    work.commit("More", **{"README.md": "new\n", "other2": "x\n"})
    if os.fork() == 0:
        die_after(STEPS.index("write_down"))
        ask("complete-task", task_id, "--merge", check=False)
        os._exit(0)
    os.wait()
    repo.write("README.md", "new\n")
    repo.write("other2", "x\n")
    repo.write("parser.py", "somebody's own\n")
    repo.tasks("reconcile", check=False)
    assert repo.git("status", "-s").out == "?? parser.py\n"
    assert (repo.top / "README.md").read_text() == "hello\n"
