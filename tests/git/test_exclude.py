"""The exclude line goes in once and comes out to the byte, whatever people write around it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git import discovery, exclude
from opencode_tasks.git.discovery import Checkout
from tests.conftest import Repo


@pytest.fixture
def checkout(make_repo: Callable[..., Repo]) -> Checkout:
    return discovery.find(make_repo().top, {})


@pytest.mark.parametrize(
    "before_b", [b"", b"a\n", b"a", b"a\r\nb\r\n", b"caf\xe9\n", b"\n\n", b"# /.tasks\n", b"/.tasks/\n"]
)
def test_remove_is_the_inverse_of_add(checkout: Checkout, before_b: bytes) -> None:
    path = exclude.path_of(checkout)
    path.write_bytes(before_b)
    path.chmod(0o640)
    added = exclude.plan(checkout)
    assert added is not None
    exclude.add(checkout, added)
    assert exclude.has_line(checkout)
    assert exclude.plan(checkout) is None
    exclude.remove(checkout, added)
    assert path.read_bytes() == before_b
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("keep_directory", [True, False])
def test_a_missing_file_is_missing_again(checkout: Checkout, keep_directory: bool) -> None:
    path = exclude.path_of(checkout)
    path.unlink()
    if not keep_directory:
        path.parent.rmdir()
    added = exclude.plan(checkout)
    assert added is not None
    exclude.add(checkout, added)
    assert path.read_text() == "/.tasks\n"
    exclude.remove(checkout, added)
    assert not path.exists()
    assert path.parent.exists() == keep_directory


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("a\n", "a\n/.tasks\nsub/.tasks\n", "a\nsub/.tasks\n"),
        ("a", "a\n/.tasks\nlater\n", "a\nlater\n"),
        ("a", "a\n/.tasks\n", "a"),
        ("a\n", "first\na\n/.tasks\n", "first\na\n"),
        ("a\n", "a\n", "a\n"),
        ("a\n", "a\n/.tasks", "a\n"),
        ("a\n", "a\n/.tasks\r\nb\r\n", "a\nb\r\n"),
    ],
)
def test_what_people_wrote_since_is_kept(checkout: Checkout, before: str, change: str, after: str) -> None:
    path = exclude.path_of(checkout)
    path.write_text(before)
    added = exclude.plan(checkout)
    assert added is not None
    exclude.add(checkout, added)
    path.write_bytes(change.encode())
    exclude.remove(checkout, added)
    assert path.read_bytes() == after.encode()


def test_a_line_of_the_users_own_stays(checkout: Checkout) -> None:
    exclude.path_of(checkout).write_text("/.tasks\n")
    assert exclude.plan(checkout) is None


def test_a_link_stays_a_link(checkout: Checkout, tmp_path: Path) -> None:
    theirs = tmp_path / "dotfiles-exclude"
    theirs.write_text("*.o\n")
    link = checkout.common_dir / "info" / "exclude"
    link.unlink()
    link.symlink_to(theirs)
    added = exclude.plan(checkout)
    assert added is not None
    exclude.add(checkout, added)
    assert link.is_symlink()
    assert theirs.read_text() == "*.o\n/.tasks\n"
    exclude.remove(checkout, added)
    assert link.is_symlink()
    assert theirs.read_text() == "*.o\n"
