"""Everything git does with branches while hooks are installed: who has the work tree, and that git is not disturbed."""

from pathlib import Path
from typing import Any

from tests.conftest import Repo, run


def start(repo: Repo, branch: str, *words: str) -> str:
    """Check a new branch out; the id of its task."""
    before = set(repo.ids())
    repo.git("checkout", "-q", "-b", branch, *words)
    (made,) = set(repo.ids()) - before
    return made


def statuses(repo: Repo, task_id: str) -> list[str]:
    return [e["data"]["to"] for e in repo.events(task_id) if e["type"] == "status.changed"]


def document(repo: Repo, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = repo.tasks("task-status", "--json", *words).json
    return found


def test_a_new_branch_becomes_a_task(repo: Repo) -> None:
    done = repo.git("checkout", "-b", "task/fix-the_parser/now")
    task = document(repo)
    assert f"opencode-tasks: task {task['id']} created" in done.err
    assert task["title"] == "Fix the parser now"
    assert task["branch"] == "task/fix-the_parser/now"
    assert task["base"] == {"branch": "main", "commit": repo.git("rev-parse", "HEAD").out.strip()}
    assert task["status"] == "running"
    assert repo.git("config", "branch.task/fix-the_parser/now.opencodetask").out.strip() == task["id"]
    folder = repo.store / task["id"]
    assert (folder / "plan.md").read_text()
    assert (folder / "decisions.md").read_text()
    assert repo.git("status", "--porcelain").out == ""


def test_branch_names_git_allows(repo: Repo) -> None:
    for name in ("task/grüße-日本", "task/-dash", "task/quo'te", 'task/dou"ble', "task/a#b", "task/$x"):
        task_id = start(repo, name)
        repo.git("checkout", "-q", "main")
        repo.git("checkout", "-q", name)
        assert statuses(repo, task_id) == ["running", "paused", "running"], name
    assert document(repo)["branch"] == name


def test_leaving_pauses_and_returning_resumes(repo: Repo) -> None:
    one = start(repo, "task/one")
    two = start(repo, "task/two")
    repo.git("checkout", "-q", "-")
    assert (statuses(repo, one), statuses(repo, two)) == (["running", "paused", "running"], ["running", "paused"])
    repo.git("checkout", "-q", "--detach")
    assert statuses(repo, one)[-1] == "paused"
    repo.git("switch", "-q", "task/two")
    assert statuses(repo, two)[-1] == "running"


def test_a_rebase_neither_pauses_nor_relabels(repo: Repo) -> None:
    one = start(repo, "task/one")
    for n in range(3):
        repo.commit(f"mine {n}", **{f"mine{n}": "x\n"})
    repo.git("checkout", "-q", "main")
    repo.commit("theirs", mine1="conflict\n")
    repo.git("checkout", "-q", "task/one")
    before = statuses(repo, one)
    assert repo.git("rebase", "main", check=False).code == 1
    assert document(repo)["id"] == one
    repo.write("mine1", "both\n")
    repo.git("add", "mine1")
    repo.git("rebase", "--continue", env={"GIT_EDITOR": "true"})
    assert repo.branch == "task/one"
    assert statuses(repo, one) == before
    found = repo.git("log", "-3", "--format=%(trailers:key=Task-Id,valueonly,separator=%x2C)").out.split()
    assert found == [one, one, one]
    assert repo.git("rebase", "--abort", check=False).code != 0
    assert repo.git("status", "--porcelain").out == ""


def test_an_aborted_and_an_interactive_rebase(repo: Repo) -> None:
    one = start(repo, "task/one")
    for n in range(3):
        repo.commit(f"mine {n}", **{f"mine{n}": "x\n"})
    tip = repo.git("rev-parse", "HEAD").out
    before = statuses(repo, one)
    edit = {"GIT_SEQUENCE_EDITOR": "sed -i 2s/pick/edit/", "GIT_EDITOR": "true"}
    repo.git("rebase", "-q", "-i", "main", env=edit)
    repo.git("rebase", "--abort")
    assert repo.git("rev-parse", "HEAD").out == tip
    squash = {"GIT_SEQUENCE_EDITOR": "sed -i 2,3s/pick/squash/", "GIT_EDITOR": "true"}
    repo.git("rebase", "-q", "-i", "main", env=squash)
    assert repo.git("rev-list", "--count", "main..").out.strip() == "1"
    assert one in repo.git("log", "-1", "--format=%B").out
    assert statuses(repo, one) == before


def test_a_rebase_begun_from_another_branch_ends_on_the_task(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.commit("mine", mine="x\n")
    repo.git("checkout", "-q", "main")
    repo.commit("theirs", theirs="x\n")
    repo.git("rebase", "-q", "main", "task/one")
    repo.commit("after")
    assert document(repo)["status"] == "running"
    assert statuses(repo, one) == ["running", "paused", "running"]


def test_a_bisect_does_not_pause(repo: Repo) -> None:
    one = start(repo, "task/one")
    for n in range(5):
        repo.git("commit", "-q", "--allow-empty", "-m", str(n))
    repo.git("bisect", "start", "HEAD", "HEAD~4")
    assert repo.git("symbolic-ref", "-q", "HEAD", check=False).code == 1
    assert document(repo)["id"] == one
    repo.git("bisect", "good")
    repo.git("bisect", "reset")
    assert repo.branch == "task/one"
    assert statuses(repo, one) == ["running"]


def test_stash_reset_and_clean_leave_the_memory_alone(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.write("README.md", "changed\n")
    repo.write("new", "x\n")
    repo.git("stash", "-q", "--all")
    repo.git("stash", "pop", "-q")
    assert (repo.top / "new").read_text() == "x\n"
    repo.git("reset", "-q", "--hard")
    repo.git("clean", "-ffdxq")
    assert document(repo)["id"] == one
    assert statuses(repo, one) == ["running"]
    repo.git("add", "--all")
    assert repo.git("status", "--porcelain").out == ""


def test_a_renamed_branch_keeps_its_task(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.git("branch", "-m", "task/renamed")
    assert document(repo) | {"rev": 0} == document(repo, "task/renamed") | {"rev": 0}
    assert (document(repo)["id"], document(repo)["branch"]) == (one, "task/renamed")
    repo.commit("after the rename")
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-m", "task/renamed", "kept/elsewhere")
    repo.git("checkout", "-q", "kept/elsewhere")
    assert document(repo, one)["branch"] == "kept/elsewhere"
    assert repo.ids() == [one]
    assert [e["type"] for e in repo.events(one)].count("branch.renamed") == 2


def test_the_old_name_of_a_renamed_branch_is_free_for_another_task(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.git("branch", "-m", "task/renamed")
    again = start(repo, "task/one")
    assert document(repo)["id"] == again
    assert document(repo, one)["branch"] == "task/renamed"


def test_a_copied_branch_is_a_task_of_its_own(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.git("branch", "-c", "task/copy")
    assert document(repo)["id"] == one
    repo.git("checkout", "-q", "task/copy")
    assert document(repo)["id"] != one
    assert document(repo, one)["status"] == "paused"
    assert document(repo, one)["branch"] == "task/one"


def test_a_deleted_branch_made_again_without_its_commits_is_another_task(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.commit("mine")
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "task/one")
    two = start(repo, "task/one")
    assert document(repo)["id"] == two != one
    assert document(repo, "task/one")["id"] == two


def test_commands_for_the_task_of_a_deleted_branch_keep_off_its_namesake(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.commit("mine")
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "task/one")
    two = start(repo, "task/one")
    assert repo.tasks("checkpoint", "--task", one, "--json", check=False).json["error"]["code"] != "bug"
    assert repo.tasks("complete-task", one).code == 0
    assert document(repo)["id"] == two
    assert document(repo)["status"] == "running"
    repo.git("checkout", "-q", "main")
    repo.tasks("cleanup-task", one)
    assert repo.git("rev-parse", "--verify", "-q", "task/one").code == 0
    assert document(repo, "task/one")["id"] == two


def test_a_worktree_by_hand_is_the_tasks_workspace_and_follows_a_move(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "task/one", str(tmp_path / "w1"))
    one = repo.only_id()
    assert document(repo, one)["workspace"] == {"kind": "worktree", "path": str(tmp_path / "w1")}
    assert (tmp_path / "w1" / ".tasks" / one).is_dir()
    (tmp_path / "w1" / "unsaved").write_text("x")
    repo.git("worktree", "move", str(tmp_path / "w1"), str(tmp_path / "w2"))
    assert document(repo, one)["workspace"] == {"kind": "worktree", "path": str(tmp_path / "w2")}
    refused = repo.tasks("cleanup-task", one, check=False)
    assert (refused.code, "unsaved" in refused.err) == (1, True)
    assert (tmp_path / "w2" / "unsaved").exists()
    assert repo.git("rev-parse", "--verify", "-q", "task/one").code == 0


def test_two_worktrees_do_not_pause_each_other(repo: Repo, tmp_path: Path) -> None:
    one = start(repo, "task/one")
    repo.git("worktree", "add", "-q", "-b", "task/two", str(tmp_path / "two"))
    run(["git", "checkout", "-q", "-b", "task/three"], cwd=tmp_path / "two", env=repo.env)
    assert statuses(repo, one) == ["running"]
    listed = {t["branch"]: t["status"] for t in repo.tasks("list-tasks", "--json").json["tasks"]}
    assert listed == {"task/one": "running", "task/two": "paused", "task/three": "running"}


def test_a_completed_task_is_not_resumed(repo: Repo) -> None:
    one = start(repo, "task/one")
    repo.tasks("complete-task")
    repo.git("checkout", "-q", "main")
    assert f"task {one} is completed: it is not resumed" in repo.git("checkout", "task/one").err
    assert repo.ids() == [one]


def test_a_branch_that_differs_in_case_is_noted(repo: Repo) -> None:
    start(repo, "task/one")
    assert "differs only in case" in repo.git("checkout", "-b", "task/One").err


def test_settings_that_cannot_be_read_stop_no_checkout_and_no_pause(repo: Repo) -> None:
    repo.write(".opencode/tasks.toml", "<<<<<<< HEAD\n")
    done = repo.git("checkout", "-b", "task/one")
    assert "not valid TOML" in done.err
    assert repo.branch == "task/one"
    repo.git("checkout", "main")
    # Not its last event: without settings a container was tried in the background, and that there is no engine is told.
    assert [t["status"] for t in repo.tasks("list-tasks", "--json").json["tasks"]] == ["paused"]


def test_pull_and_merge_on_a_task(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    one = start(repo, "task/one")
    repo.commit("mine", mine="x\n")
    repo.git("push", "-q", "-u", "origin", "task/one")
    repo.git("clone", "-q", "-b", "task/one", str(tmp_path / "origin.git"), str(tmp_path / "peer"))
    peer = Repo(tmp_path / "peer", repo.env)
    peer.commit("theirs", theirs="x\n")
    peer.git("push", "-q")
    repo.git("pull", "-q")
    repo.commit("mine again", mine="y\n")
    peer.commit("theirs again", theirs="y\n")
    peer.git("push", "-q")
    repo.git("pull", "-q", "--no-rebase", "--no-edit")
    assert repo.git("log", "-1", "--format=%(trailers:key=Task-Id,valueonly)").out.strip() == one
    repo.git("pull", "-q", "--rebase")
    assert statuses(repo, one) == ["running"]
