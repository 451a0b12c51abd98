"""The `Task-Id:` trailer through real commits: every way a message comes about, and git's own refusals."""

import shlex

import pytest

from opencode_tasks.git_hooks.trailer import has_text
from tests.conftest import Ran, Repo


@pytest.fixture
def task(repo: Repo) -> str:
    repo.git("checkout", "-q", "-b", "task/one")
    return repo.only_id()


def editor(repo: Repo, script: str) -> dict[str, str]:
    """GIT_EDITOR that runs `script` with the message as `$1`."""
    path = repo.top.parent / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"GIT_EDITOR": shlex.quote(str(path))}


def typed(repo: Repo, text: str) -> dict[str, str]:
    """An editor that puts `text` above what is there, as a person does."""
    (repo.top.parent / "typed").write_text(text)
    return editor(repo, f'cat {shlex.quote(str(repo.top.parent / "typed"))} "$1" >"$1.new" && mv "$1.new" "$1"')


def commit(repo: Repo, *args: str, env: dict[str, str] | None = None, check: bool = True) -> Ran:
    return repo.git("commit", "-q", "--allow-empty", *args, env=env, check=check)


def message(repo: Repo) -> str:
    return repo.git("log", "-1", "--format=%B").out.rstrip("\n")


def trailers(repo: Repo, revision: str = "HEAD") -> list[str]:
    return repo.git("log", "-1", "--format=%(trailers:key=Task-Id,valueonly)", revision).out.split()


@pytest.mark.parametrize(
    ("text", "comment", "expected"),
    [
        (b"", b"#", False),
        (b"\n  \n\t\n", b"#", False),
        (b"# only\n#comments\n", b"#", False),
        (b"; only\n", b";", False),
        (b"# text now\n", b";", True),
        (b"word", b"#", True),
        (b"\xff\xfe\n", b"#", True),
        (b"\n# ------------------------ >8 ------------------------\ndiff --git\n+text\n", b"#", False),
        (b"text\n# ------------------------ >8 ------------------------\ndiff\n", b"#", True),
        (b"#\r\n\r\n", b"#", False),
    ],
)
def test_has_text(text: bytes, comment: bytes, expected: bool) -> None:
    assert has_text(text, comment) is expected


GIVEN = [
    (["subject"], "subject\n\nTask-Id: {id}"),
    (["fix: colon in the subject"], "fix: colon in the subject\n\nTask-Id: {id}"),
    (["subject", "body"], "subject\n\nbody\n\nTask-Id: {id}"),
    (["subject", "Signed-off-by: A <a@b>"], "subject\n\nSigned-off-by: A <a@b>\nTask-Id: {id}"),
    (["subject", "before\n---\nafter"], "subject\n\nbefore\n---\nafter\n\nTask-Id: {id}"),
    (["subject", "Task-Id: other-000000"], "subject\n\nTask-Id: other-000000"),
    (["grüße 日本"], "grüße 日本\n\nTask-Id: {id}"),
]


def test_minus_m_and_minus_f(repo: Repo, task: str) -> None:
    for given, expected in GIVEN:
        commit(repo, *(word for text in given for word in ("-m", text)))
        assert message(repo) == expected.format(id=task)
        file = repo.write("../message", "\n\n".join(given))
        commit(repo, "-F", str(file))
        assert message(repo) == expected.format(id=task)


def test_an_editor(repo: Repo, task: str) -> None:
    commit(repo, env=typed(repo, "typed\n\nwhy: because\n"))
    assert message(repo) == f"typed\n\nwhy: because\nTask-Id: {task}"


@pytest.mark.parametrize("char", ["#", ";", "auto"])
def test_an_editor_with_the_diff_and_other_comments(repo: Repo, task: str, char: str) -> None:
    repo.git("config", "core.commentChar", char)
    env = typed(repo, "typed\n")
    for options in ([], ["-v"], ["--cleanup=scissors"], ["--cleanup=scissors", "-v"]):
        repo.write("README.md", f"Task-Id: in a file {options}\n")
        repo.git("add", "README.md")
        commit(repo, *options, env=env)
        assert message(repo) == f"typed\n\nTask-Id: {task}", options


@pytest.mark.parametrize("char", ["#", ";"])
def test_quitting_the_editor_still_aborts(repo: Repo, task: str, char: str) -> None:
    repo.git("config", "core.commentChar", char)
    repo.write("README.md", "text: of the diff\n")
    repo.git("add", "README.md")
    before = repo.git("rev-parse", "HEAD").out
    for options in ([], ["-v"], ["--cleanup=scissors"]):
        for script in (":", ': >"$1"', "exit 1"):
            done = commit(repo, *options, env=editor(repo, script), check=False)
            assert done.code == 1
            assert "empty commit message" in done.err or "problem with the editor" in done.err
    assert repo.git("rev-parse", "HEAD").out == before


def test_a_template_that_nobody_filled_in_still_aborts(repo: Repo, task: str) -> None:
    template = repo.write("../template", "\nWhy so\n# explain\n")
    repo.git("config", "commit.template", str(template))
    done = commit(repo, env=editor(repo, ":"), check=False)
    assert done.code == 1
    assert "did not edit the message" in done.err
    commit(repo, env=typed(repo, "subject\n"))
    assert message(repo) == f"subject\n\nWhy so\n\nTask-Id: {task}"


def test_minus_m_after_an_aborted_template_gets_its_trailer(repo: Repo, task: str) -> None:
    template = repo.write("../template", "same words\n")
    commit(repo, "-t", str(template), env=editor(repo, "exit 1"), check=False)
    commit(repo, "-m", "same words")
    assert trailers(repo) == [task]


def test_amending_keeps_one_trailer_even_of_another_task(repo: Repo, task: str) -> None:
    commit(repo, "-m", "one")
    commit(repo, "--amend", "--no-edit")
    commit(repo, "--amend", "-m", "two")
    assert message(repo) == f"two\n\nTask-Id: {task}"
    repo.git("checkout", "-q", "-b", "task/two")
    commit(repo, "--amend", "--no-edit")
    assert trailers(repo) == [task]
    commit(repo, "--amend", "-m", "three")
    assert trailers(repo) != [task]


def test_merge_pull_revert_cherry_pick_and_squash(repo: Repo, task: str) -> None:
    commit(repo, "-m", "on the task")
    repo.git("checkout", "-q", "main")
    repo.commit("on main", other="x\n")
    assert trailers(repo) == []
    repo.commit("to be picked", picked="x\n")
    repo.git("checkout", "-q", "task/one")
    repo.git("merge", "-q", "--no-edit", "main~1")
    assert trailers(repo) == [task]
    assert len(repo.git("log", "-1", "--format=%P").out.split()) == 2
    repo.git("cherry-pick", "main")
    assert message(repo) == f"to be picked\n\nTask-Id: {task}"
    repo.git("revert", "--no-edit", "HEAD")
    assert trailers(repo) == [task]
    repo.git("checkout", "-q", "-b", "task/two", "main")
    repo.git("merge", "-q", "--squash", "task/one")
    commit(repo, env=editor(repo, ":"))
    assert task in repo.git("log", "-1", "--format=%B").out
    repo.git("checkout", "-q", "main")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    repo.git("checkout", "-q", "task/one")
    repo.commit("more", more="x\n")
    repo.git("checkout", "-q", "-b", "task/three", "main")
    repo.commit("diverged", diverged="x\n")
    repo.git("pull", "-q", "--no-rebase", "--no-edit", ".", "task/one")
    assert trailers(repo) == [repo.tasks("task-status", "--json").json["id"]]


def test_a_conflicted_merge_is_concluded_with_its_trailer(repo: Repo, task: str) -> None:
    repo.commit("ours", **{"README.md": "ours\n"})
    repo.git("checkout", "-q", "main")
    repo.commit("theirs", **{"README.md": "theirs\n"})
    repo.git("checkout", "-q", "task/one")
    assert repo.git("merge", "main", check=False).code == 1
    repo.write("README.md", "both\n")
    repo.git("add", "README.md")
    repo.git("commit", "-q", "--no-edit")
    assert trailers(repo) == [task]


@pytest.mark.parametrize("kind", ["all", "only", "patch-index"])
def test_partial_commits_and_the_index_of_the_hook(repo: Repo, task: str, kind: str) -> None:
    repo.write("README.md", "changed\n")
    repo.write("staged", "x\n")
    repo.git("add", "staged")
    words = {"all": ["-a"], "only": ["--only", "README.md"], "patch-index": []}[kind]
    env = {"GIT_INDEX_FILE": str(repo.top / ".git" / "index")} if kind == "patch-index" else {}
    repo.git("commit", "-q", "-m", "part", *words, env=env)
    assert trailers(repo) == [task]
    expected = {"all": ["README.md", "staged"], "only": ["README.md"], "patch-index": ["staged"]}[kind]
    assert repo.git("show", "--name-only", "--format=").out.split() == expected


def test_a_branch_checked_out_behind_our_back_is_noticed_at_the_commit(repo: Repo, task: str) -> None:
    repo.git("checkout", "-q", "-b", "task/two", env={"OPENCODE_TASKS_HOOKS": "off"})
    commit(repo, "-m", "x")
    (two,) = trailers(repo)
    assert two != task
    assert repo.tasks("task-status", task, "--json").json["status"] == "paused"


def test_no_trailer_where_there_is_no_task(repo: Repo, task: str) -> None:
    repo.git("checkout", "-q", "main")
    commit(repo, "-m", "main's")
    repo.git("checkout", "-q", "--detach", "task/one")
    commit(repo, "-m", "nobody's")
    assert trailers(repo) == trailers(repo, "main") == []
    repo.git("checkout", "-q", "task/one")
    repo.tasks("complete-task")
    assert commit(repo, "-m", "late").code == 0
