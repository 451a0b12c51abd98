"""What `.gitmodules` says, and what an agent puts where a submodule belongs, leads the host nowhere.

Each planted program is first shown to run where somebody goes by what is there.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git import discovery, repository, submodule_conflicts, submodule_trees, submodules
from tests.conftest import Repo
from tests.submodules import LIB, inside

NAMES = ["..", "../../x", "a/../../../x", "{outside}", "..\\x", "the/lib/hooks", ""]


def linked(repo: Repo) -> Repo:
    repo.git("worktree", "add", "-q", "--detach", str(repo.top.parent / "tree"))
    return Repo(repo.top.parent / "tree", repo.env)


def prepared(repo: Repo) -> submodule_trees.Prepared:
    return submodule_trees.prepare(discovery.find(repo.top, {}))


def named(repo: Repo, name: str, path: str) -> None:
    """One more entry, whose repository would be where the name leads."""
    head = inside(repo).git("rev-parse", "HEAD").out.strip()
    with (repo.top / ".gitmodules").open("a") as f:
        f.write(f'[submodule "{name.replace(chr(92), chr(92) * 2)}"]\n\tpath = {path}\n\turl = /nowhere\n')
    repo.git("config", f"submodule.{name}.url", "/nowhere")
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
    repo.git("commit", "-q", "-m", f"a name: {name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_of_the_repositories(full: Repo, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    named(full, name.format(outside=outside), "planted")
    tree = linked(full)
    before = sorted(full.common.iterdir()), sorted((full.common / "modules").iterdir())
    found = prepared(tree)
    assert [(f.path, f.kind) for f in found.findings] == [("planted", "refused")]
    assert LIB in found.ready
    assert ("planted", "refused") in [(f.path, f.kind) for f in submodule_conflicts.found(discovery.find(full.top, {}))]
    assert not (tree.top / "planted" / ".git").exists()
    assert (sorted(full.common.iterdir()), sorted((full.common / "modules").iterdir())) == before
    assert not outside.exists()


def test_a_path_with_a_link_on_the_way(full: Repo, tmp_path: Path) -> None:
    tree, outside = linked(full), tmp_path / "outside"
    (outside / "lib").mkdir(parents=True)
    (tree.top / "vendor" / "lib").rmdir()
    (tree.top / "vendor").rmdir()
    (tree.top / "vendor").symlink_to(outside)
    assert [(f.kind, f.message) for f in prepared(tree).findings] == [("refused", "vendor is a link")]
    (tree.top / "vendor").unlink()
    (tree.top / "vendor").mkdir()
    (tree.top / "vendor" / "lib").symlink_to(outside)
    assert [(f.kind, f.message) for f in prepared(tree).findings] == [("refused", "vendor/lib is a link")]
    assert list(outside.iterdir()) == [outside / "lib"]
    assert list((outside / "lib").iterdir()) == []


def test_gitmodules_that_is_a_link_is_no_gitmodules(full: Repo) -> None:
    tree = linked(full)
    (tree.top / ".gitmodules").rename(tree.top / "elsewhere")
    (tree.top / ".gitmodules").symlink_to("elsewhere")
    assert prepared(tree) == submodule_trees.Prepared()
    assert list((tree.top / LIB).iterdir()) == []


def plant_directory(tree: Repo, git_dir: Path) -> None:
    tree.git("clone", "-q", "--bare", str(git_dir), str(tree.top / LIB / ".git"))


def plant_file(tree: Repo, git_dir: Path) -> None:
    tree.git("clone", "-q", "--bare", str(git_dir), str(tree.top / "planted"))
    (tree.top / LIB / ".git").write_text("gitdir: ../../planted\n")


def plant_link(tree: Repo, git_dir: Path) -> None:
    tree.git("clone", "-q", "--bare", str(git_dir), str(tree.top / "planted"))
    (tree.top / LIB / ".git").symlink_to("../../planted")


@pytest.mark.parametrize("plant", [plant_directory, plant_file, plant_link])
def test_a_repository_planted_where_a_submodule_belongs_is_not_entered(
    full: Repo, plant: Callable[[Repo, Path], None], tmp_path: Path
) -> None:
    tree, ran = linked(full), tmp_path / "ran"
    plant(tree, full.common / "modules" / "the" / "lib")
    planted = (tree.top / LIB / ".git") if plant is plant_directory else tree.top / "planted"
    with (planted / "config").open("a") as f:
        f.write(f'[core]\n\tbare = false\n\tworktree = {tree.top / LIB}\n\tfsmonitor = "touch {ran}; false"\n')
    tree.git("status", check=False)
    assert ran.exists(), "git itself obeys it"
    ran.unlink()
    checkout = discovery.find(tree.top, {})
    assert [f.kind for f in submodule_conflicts.found(checkout)] == ["inside"]
    assert prepared(tree).ready == ()
    assert submodules.opened(checkout, LIB) is None
    repository.uncommitted(checkout)
    repository.ignored(checkout)
    submodule_trees.take_away(checkout)
    assert (tree.top / LIB / ".git").exists()
    assert not ran.exists()


def test_what_gitmodules_would_run_or_reach_is_neither(full: Repo, tmp_path: Path) -> None:
    """`update` with a command in the file, hooks of the lender, an address that is an option or a program."""
    ran = tmp_path / "ran"
    hook = full.common / "modules" / "the" / "lib" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    inside(full).git("checkout", "-q", "--detach")
    assert ran.exists(), "git itself runs it"
    ran.unlink()
    text = (full.top / ".gitmodules").read_text()
    url = next(line for line in text.splitlines() if "url =" in line)
    full.commit(
        "planted", **{".gitmodules": text.replace(url, f"\turl = ext::sh -c touch% {ran}\n\tupdate = checkout")}
    )
    full.git("config", "submodule.the/lib.update", f"!touch {ran}")
    assert LIB in prepared(linked(full)).ready
    assert not ran.exists()


def test_messages_steer_no_terminal(full: Repo) -> None:
    head = inside(full).git("rev-parse", "HEAD").out.strip()
    full.git("update-index", "--add", "--cacheinfo", f"160000,{head},pla\x1b[2Jnted")
    (line,) = [f.line for f in submodule_conflicts.found(discovery.find(full.top, {})) if f.path != LIB]
    assert line.isprintable()
    assert "has no entry" in line
