"""The branch and the index move together, or are made to by the next who comes: killed at every step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.git import advance, discovery, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from tests.conftest import Repo


@pytest.fixture
def scene(make_repo: Callable[..., Repo]) -> tuple[Repo, Checkout, str]:
    """A branch with a commit ahead of it that came from elsewhere; the files are as that has them already."""
    repo = make_repo()
    repo.write("staged", "s\n")
    repo.git("add", "staged")
    was = repo.git("write-tree").out.strip()
    repo.git("commit", "--quiet", "-m", "ahead", "--", "README.md", check=False)
    repo.git("read-tree", "HEAD")
    repo.write("README.md", "new\n")
    repo.write("new", "n\n")
    repo.git("add", "README.md", "new")
    tree = repo.git("write-tree").out.strip()
    tip = repo.git("commit-tree", tree, "-p", "HEAD", "-m", "ahead").out.strip()
    repo.git("read-tree", "HEAD")
    repo.git("add", "staged")
    assert was
    return repo, discovery.find(repo.top, {}), tip


def status(repo: Repo) -> str:
    return repo.git("status", "--porcelain").out


def test_what_is_staged_stays_staged(scene: tuple[Repo, Checkout, str], tmp_path: Path) -> None:
    repo, checkout, tip = scene
    was = repo.git("rev-parse", "HEAD").out.strip()
    assert advance.advance(checkout, "main", tip, tmp_path / "journal") == ("moved", was)
    assert (repo.git("rev-parse", "main").out.strip(), status(repo)) == (tip, "A  staged\n")
    assert advance.advance(checkout, "main", tip, tmp_path / "journal") == ("there", tip)
    assert advance.advance(checkout, "main", was, tmp_path / "journal") == ("behind", tip)
    assert advance.advance(checkout, "gone", was, tmp_path / "journal") == ("gone", "")
    assert not list(checkout.git_dir.glob("index.*"))


def test_an_edit_in_the_same_instant_is_seen(scene: tuple[Repo, Checkout, str], tmp_path: Path) -> None:
    """Git tells what changed by times; a copied index must not lose them."""
    repo, checkout, tip = scene
    for n in range(5):
        repo.write("racy", f"{n}\n")
        repo.git("add", "racy")
        repo.write("racy", f"{n + 1}\n")
        assert advance.advance(checkout, "main", tip, tmp_path / "journal")[0] in ("moved", "there")
        repo.git("update-ref", "refs/heads/main", f"{tip}~")
        repo.git("read-tree", "-i", "-m", tip, f"{tip}~")
        assert "AM racy" in status(repo)


_STEPS = ("the journal", "the lock", "the branch", "the index")


@pytest.mark.parametrize("step", range(2 * len(_STEPS)))
def test_killed_at_any_step(
    scene: tuple[Repo, Checkout, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    repo, checkout, tip = scene
    journal = tmp_path / "journal"
    if os.fork() == 0:
        try:
            _dying_at(step, monkeypatch)
            advance.advance(checkout, "main", tip, journal)
        finally:
            os._exit(0)
    _, how = os.wait()
    assert os.waitstatus_to_exitcode(how) == 9
    assert advance.advance(checkout, "main", tip, journal)[0] in ("moved", "there")
    assert (repo.git("rev-parse", "main").out.strip(), status(repo)) == (tip, "A  staged\n")
    assert not journal.exists()
    assert not list(checkout.git_dir.glob("index.*"))


def _dying_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before or after the journal is written, the lock taken, the branch moved, the index exchanged."""
    which, is_after = divmod(step, 2)

    def around(real: Callable[..., Any], applies: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if not applies(*args):
                return real(*args, **named)
            if is_after:
                real(*args, **named)
            os._exit(9)

        return call

    places: list[tuple[Any, str, Callable[..., bool]]] = [
        (files, "replace", lambda *_: True),
        (os, "link", lambda *_: True),
        (plumbing, "git", lambda *words: "update-ref" in words),
        (Path, "replace", lambda path, *_: path.name == "index.lock"),
    ]
    place, name, applies = places[which]
    monkeypatch.setattr(place, name, around(getattr(place, name), applies))


def test_another_git_at_work_is_waited_out(scene: tuple[Repo, Checkout, str], tmp_path: Path) -> None:
    repo, checkout, tip = scene
    lock = checkout.git_dir / "index.lock"
    lock.write_text("theirs")
    assert advance.advance(checkout, "main", tip, tmp_path / "journal")[0] == "busy"
    assert lock.read_text() == "theirs"
    lock.unlink()
    repo.git("checkout", "--quiet", "--detach")
    assert advance.advance(checkout, "main", tip, tmp_path / "journal")[0] == "busy"
    repo.git("checkout", "--quiet", "main")
    repo.write("new", "other\n")
    repo.git("add", "new")
    assert advance.advance(checkout, "main", tip, tmp_path / "journal")[0] == "staged"
    repo.git("reset", "--quiet")
    repo.commit("ours")
    assert advance.advance(checkout, "main", tip, tmp_path / "journal")[0] == "diverged"
    assert advance.advance(checkout, "main", tip, tmp_path / "journal", rewrite=True)[0] == "moved"
