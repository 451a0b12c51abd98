"""The first checkpoint copies the user's index, and holds what lies on the disk all the same."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.checkpoints import upkeep
from opencode_tasks.git import discovery
from tests.checkpoints.test_snapshot import wipe
from tests.checkpoints.workspace import Work, digest_of_git
from tests.conftest import Repo, run


def assume_unchanged(work: Work) -> None:
    work.repo.git("update-index", "--assume-unchanged", "one")
    work.write("one", b"hidden edit\n")


def skip_worktree(work: Work) -> None:
    work.repo.git("update-index", "--skip-worktree", "one")
    work.write("one", b"hidden edit\n")


def intent_to_add(work: Work) -> None:
    work.write("new", b"new\n")
    work.repo.git("add", "--intent-to-add", "new")


def unmerged(work: Work) -> None:
    work.repo.git("checkout", "-q", "-b", "other")
    work.repo.commit("theirs", one="theirs\n")
    work.repo.git("checkout", "-q", "task/work")
    work.repo.commit("ours", one="ours\n")
    work.repo.git("merge", "other", check=False)


def split_index(work: Work) -> None:
    work.repo.git("update-index", "--split-index")
    work.write("one", b"edited\n")


def filters(work: Work) -> None:
    """A filter that keeps the size, line endings, keywords: what git stores is not what lies there."""
    work.write(
        ".gitattributes", b"*.rot filter=rot\n*.crlf text eol=crlf\n*.id ident\n*.wide working-tree-encoding=UTF-16LE\n"
    )
    work.repo.git("config", "filter.rot.clean", "tr a-z n-za-m")
    work.repo.git("config", "filter.rot.smudge", "tr a-z n-za-m")
    work.write("a.rot", b"secret\n")
    work.write("b.crlf", b"one\r\ntwo\r\n")
    work.write("c.id", b"$Id: 0123456789012345678901234567890123456789 $\n")
    work.write("d.wide", "wide\n".encode("utf-16-le"))
    work.repo.git("add", "--all")
    work.repo.git("commit", "-q", "-m", "converted")


def racy(work: Work) -> None:
    """As long as before, in the same second."""
    work.write("one", b"a\n")
    work.repo.git("add", "one")
    work.write("one", b"b\n")


def deleted_and_staged(work: Work) -> None:
    (work.top / "one").unlink()
    work.repo.git("rm", "-q", "--cached", "two")
    work.write("three", b"staged\n")
    work.repo.git("add", "three")
    work.write("three", b"and edited\n")


@pytest.mark.parametrize(
    "change",
    [assume_unchanged, skip_worktree, intent_to_add, unmerged, split_index, filters, racy, deleted_and_staged],
)
def test_what_the_users_index_hides(work: Work, change: Callable[[Work], object]) -> None:
    work.repo.commit("files", one="1\n", two="2\n", three="3\n", **{"folder/four": "4\n"})
    change(work)
    before, git = work.contents(), digest_of_git(work.repo)
    made = work.take()
    shadow = f"--git-dir={work.store.layout.checkpoints_git}"
    held = work.repo.git(shadow, "ls-tree", "-r", "-z", "--name-only", made.tree).out.split("\0")
    assert {os.fsencode(path) for path in held if path} == set(before)
    wipe(work.top)
    work.back(made)
    assert work.contents() == before
    assert digest_of_git(work.repo) == git


@pytest.mark.parametrize("kind", ["plain", "sha256", "shallow", "partial", "alternates", "empty"])
def test_repositories_of_every_kind(tmp_path: Path, repo: Repo, kind: str) -> None:
    """And what is taken stays whole when the user's objects are thrown away."""
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.commit("older", one="0\n")
    repo.commit("files", one="1\n", **{"folder/two": "2\n"})
    top = tmp_path / "of a kind"
    ways = {"shallow": ("--depth=1",), "partial": ("--filter=blob:none",), "alternates": ("--shared",)}
    if kind in ("sha256", "empty"):
        run(["git", "init", "-q", f"--object-format={'sha256' if kind == 'sha256' else 'sha1'}", top], cwd=tmp_path)
    else:
        run(["git", "clone", "-q", "--no-local", *ways.get(kind, ()), f"file://{repo.top}", top], cwd=tmp_path)
    other = Repo(top, repo.env)
    if kind == "sha256":
        other.commit("files", one="1\n", **{"folder/two": "2\n"})
    other.tasks("init")
    if kind == "empty":
        other.commit("first", one="1\n")
    other.git("checkout", "-q", "-b", "task/work")
    work = Work(other)
    work.write("one", b"edited\n")
    work.write("untracked", b"x\n")
    made, before = work.take(), work.contents()
    upkeep.run(work.store, discovery.find(top, {}), budget_b=1 << 40)
    objects = work.repo.common / "objects"
    hidden = objects.with_name("hidden")
    objects.rename(hidden)
    objects.mkdir()
    shadow = f"--git-dir={work.store.layout.checkpoints_git}"
    run(["git", shadow, "fsck", "--full", "--strict"], cwd=tmp_path)
    assert run(["git", shadow, "cat-file", "blob", f"{made.tree}:one"], cwd=tmp_path).out == "edited\n"
    objects.rmdir()
    hidden.rename(objects)
    wipe(top)
    work.back(made)
    assert work.contents() == before


def test_an_index_that_is_damaged_or_names_what_is_gone_is_made_anew(work: Work) -> None:
    work.repo.commit("files", one="1\n", two="2\n")
    work.take()
    work.write("one", b"3\n")
    index = next(work.store.layout.checkpoints_git.glob("ix/*/index"))
    for damage in (b"DIRC", b"", index.read_bytes()[:-30]):
        index.write_bytes(damage)
        made, before = work.take(str(len(damage))), work.contents()
        wipe(work.top)
        work.back(made)
        assert work.contents() == before
    # The user's objects were borrowed, and are gone before they were copied.
    work.write("three", b"3\n")
    work.repo.git("add", "three")
    shutil.rmtree(work.store.layout.checkpoints_git)
    work.take()
    work.repo.git("rm", "-q", "--cached", "three")
    work.repo.git("prune", "--expire=now")
    work.write("one", b"4\n")
    made, before = work.take(), work.contents()
    wipe(work.top)
    work.back(made)
    assert work.contents() == before


@pytest.mark.parametrize("is_split", [True, False])
def test_the_users_index_is_broken(work: Work, is_split: bool) -> None:
    """Then above all a checkpoint is wanted."""
    git = work.repo.common
    if is_split:
        work.repo.git("update-index", "--split-index")
        next(git.glob("sharedindex.*")).rename(git / "sharedindex.of-another")
    else:
        (git / "index").write_bytes(b"DIRC, or so")
    work.write("one", b"1\n")
    assert work.repo.git("status", check=False).code
    made, before = work.take(), work.contents()
    wipe(work.top)
    work.back(made)
    assert work.contents() == before


def test_a_linked_worktree_has_an_index_of_its_own(work: Work) -> None:
    work.repo.commit("files", one="1\n")
    made = work.repo.tasks("create-task", "two", "--worktree", "--json").json
    top = Path(made["workspace"]["path"])
    (top / "one").write_text("there\n")
    other = Repo(top, work.repo.env)
    kept = other.tasks("checkpoint", "--json").json
    (top / "one").unlink()
    subprocess.run(["git", "gc", "--quiet", "--prune=now"], cwd=work.top, check=True, timeout=60)
    other.tasks("restore-checkpoint", kept["id"])
    assert (top / "one").read_text() == "there\n"
    assert (work.top / "one").read_text() == "1\n"
