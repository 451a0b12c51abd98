"""Finding the checkout without starting git, compared with what git itself says."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery
from tests.conftest import Repo, run

MakeRepo = Callable[..., Repo]


def refused(cwd: Path, environ: dict[str, str] | None = None) -> TaskError:
    with pytest.raises(TaskError) as caught:
        discovery.find(cwd, environ or {})
    return caught.value


@pytest.mark.parametrize(
    "name", ["plain", "with space", "new\nline", "grüße-日本", "co:lon", "quo'te\"", " lead", "-dash"]
)
def test_any_path_is_found_from_its_top_and_from_a_folder_in_it(make_repo: MakeRepo, name: str) -> None:
    repo = make_repo(name)
    inner = repo.top / "a" / "b"
    inner.mkdir(parents=True)
    for cwd in (repo.top, inner):
        found = discovery.find(cwd, {})
        assert (found.top, found.git_dir, found.common_dir) == (repo.top, repo.top / ".git", repo.top / ".git")
        assert not found.is_linked


@pytest.mark.parametrize("name", ["linked", "new\nline", "with space"])
def test_a_linked_worktree_shares_the_common_directory(make_repo: MakeRepo, tmp_path: Path, name: str) -> None:
    repo = make_repo()
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "w" / name))
    found = discovery.find(tmp_path / "w" / name, {})
    assert found.is_linked
    assert found.common_dir == repo.top / ".git"
    assert found.git_dir.parent == repo.top / ".git" / "worktrees"
    assert found.occupant_file.parent == found.git_dir


def test_a_submodule_is_a_repository_of_its_own(make_repo: MakeRepo) -> None:
    outer, inner = make_repo("outer"), make_repo("inner")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.top), "sub")
    found = discovery.find(outer.top / "sub", {})
    assert found.top == outer.top / "sub"
    assert found.git_dir == found.common_dir == outer.top / ".git" / "modules" / "sub"


def test_a_separate_git_directory_is_followed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    run(["git", "init", "-q", f"--separate-git-dir={tmp_path / 'elsewhere'}", top], cwd=tmp_path)
    assert discovery.find(top, {}).git_dir == tmp_path / "elsewhere"


def test_a_link_to_the_checkout_is_resolved(make_repo: MakeRepo, tmp_path: Path) -> None:
    repo = make_repo()
    (tmp_path / "link").symlink_to(repo.top)
    assert discovery.find(tmp_path / "link", {}).top == repo.top


def test_git_dir_of_a_hook_is_honoured(make_repo: MakeRepo) -> None:
    repo = make_repo()
    assert discovery.find(repo.top, {"GIT_DIR": ".git"}).top == repo.top
    (repo.top / "sub").mkdir()
    assert discovery.find(repo.top / "sub", {"GIT_DIR": str(repo.top / ".git")}).top == repo.top


def test_git_dir_over_files_of_another_repository_is_refused(make_repo: MakeRepo) -> None:
    one, two = make_repo("one"), make_repo("two")
    error = refused(two.top, {"GIT_DIR": str(one.top / ".git")})
    assert error.code == "not_a_repository"
    assert "git worktree add" in error.hint
    bare_folder = two.top.parent
    assert refused(bare_folder, {"GIT_DIR": str(one.top / ".git"), "GIT_WORK_TREE": "."}).code == "not_a_repository"


def test_outside_a_repository(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.code == "not_a_repository"
    assert "git init" in error.hint


@pytest.mark.parametrize("inside", [".", "refs"])
def test_a_bare_repository(tmp_path: Path, inside: str) -> None:
    run(["git", "init", "-q", "--bare", "bare"], cwd=tmp_path)
    error = refused(tmp_path / "bare" / inside)
    assert error.code == "bare_repository"
    assert error.hint


def test_inside_the_git_directory(make_repo: MakeRepo) -> None:
    assert refused(make_repo().top / ".git" / "refs").code == "bare_repository"


@pytest.mark.parametrize("content", ["gitdir: /nowhere/at/all\n", "gitdir: ../gone", "rubbish", ""])
def test_a_git_file_that_points_nowhere(tmp_path: Path, content: str) -> None:
    (tmp_path / ".git").write_text(content)
    assert refused(tmp_path).code == "not_a_repository"


def test_an_empty_git_folder_is_passed_over_as_git_does(make_repo: MakeRepo) -> None:
    repo = make_repo()
    (repo.top / "inner" / ".git").mkdir(parents=True)
    assert discovery.find(repo.top / "inner", {}).top == repo.top
    assert run(["git", "rev-parse", "--show-toplevel"], cwd=repo.top / "inner").out.strip() == str(repo.top)


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    top = tmp_path / os.fsdecode(b"by\xfftes")
    top.mkdir()
    run(["git", "init", "-q"], cwd=top)
    assert discovery.find(top, {}).top == top
