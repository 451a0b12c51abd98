"""What a base lacks of a branch, however the branch came into it."""

import pytest

from opencode_tasks.git import arrived, discovery
from tests.conftest import Repo


@pytest.fixture
def two(repo: Repo) -> Repo:
    """`work` has two commits; `main` is checked out, and has moved on."""
    off = Repo(repo.top, {**repo.env, "OPENCODE_TASKS_HOOKS": "off"})
    off.git("checkout", "-q", "-b", "work")
    off.commit("One", **{"README.md": "one\n", "ü": "x\n"})
    off.commit("Two", two="2\n")
    off.git("checkout", "-q", "main")
    off.commit("Meanwhile", other="x\n")
    return off


def missing(repo: Repo) -> list[str]:
    main, (tip, base) = discovery.find(repo.top, {}), repo.git("rev-parse", "work", "main").out.split()
    return [line.partition(" ")[2] for line in arrived.missing(main, tip, base)]


def test_some_of_it_and_all_of_it_commit_by_commit(two: Repo) -> None:
    assert missing(two) == ["Two", "One"]
    two.git("cherry-pick", "work~1")
    assert missing(two) == ["Two"]
    two.commit("Changed again", **{"README.md": "again\n"})
    two.git("cherry-pick", "work")
    assert missing(two) == []


def test_squashed_and_changed_since(two: Repo) -> None:
    two.git("merge", "-q", "--squash", "work")
    two.commit("Squashed")
    assert missing(two) == []
    two.commit("Changed again", **{"README.md": "again\n", "ü": "y\n"})
    assert missing(two) == []


def test_a_squash_that_lacks_something_or_was_taken_back_in_part(two: Repo) -> None:
    two.git("merge", "-q", "--squash", "work")
    two.git("rm", "-q", "--force", "two")
    two.commit("Squashed but for two")
    assert missing(two) == ["Two"]


def test_of_binaries_and_modes_patches_do_not_tell(two: Repo) -> None:
    two.git("checkout", "-q", "work")
    (two.top / "picture").write_bytes(b"\0one")
    two.commit("Picture")
    two.git("checkout", "-q", "main")
    two.git("merge", "-q", "--squash", "work")
    (two.top / "picture").write_bytes(b"\0two")
    two.commit("Squashed with another picture")
    assert missing(two) == ["Picture", "Two", "One"]
    two.git("checkout", "-q", "--force", "-B", "work", "main~1")
    (two.top / "README.md").chmod(0o755)
    two.commit("Mode", **{"README.md": "x\n"})
    two.git("checkout", "-q", "main")
    two.commit("Without the mode", **{"README.md": "x\n"})
    assert "Mode" in missing(two)


def test_what_the_branch_itself_took_back_is_not_in_the_base(two: Repo) -> None:
    two.git("checkout", "-q", "work")
    two.git("revert", "--no-edit", "HEAD", "HEAD~1")
    two.git("checkout", "-q", "main")
    assert len(missing(two)) == 4


def test_what_a_merge_itself_changed_is_work(two: Repo) -> None:
    two.git("checkout", "-q", "-B", "work", "main~1")
    sha = two.commit("Two", two="2\n")
    two.git("merge", "-q", "--no-commit", "--no-ff", "main")
    two.commit("Settled", **{"README.md": "settled\n"})
    two.git("checkout", "-q", "main")
    two.git("cherry-pick", sha)
    assert missing(two) == ["Settled"]
    two.commit("The same", **{"README.md": "settled\n"})
    assert missing(two) == []
