"""Sparse checkouts: what is not on the disk by somebody's wish was not deleted, neither then nor now."""

from pathlib import Path

import pytest

from tests.checkpoints.workspace import Work
from tests.conftest import Repo

IN, OUT = "in/file", "out/file"


@pytest.fixture
def wide(repo: Repo) -> Work:
    repo.commit("two folders", **{IN: "in\n", OUT: "out\n"})
    repo.git("checkout", "-q", "-b", "task/work")
    return Work(repo)


def narrow(work: Work) -> None:
    work.repo.git("sparse-checkout", "set", "in", ".opencode")
    assert not (work.top / "out").exists()


def widen(work: Work) -> None:
    work.repo.git("sparse-checkout", "disable")
    assert (work.top / OUT).exists()


def clean(work: Work) -> bool:
    return work.repo.git("status", "--porcelain").out == ""


def test_taken_while_sparse_and_brought_back_while_sparse(wide: Work) -> None:
    narrow(wide)
    made = wide.take()
    wide.write(IN, b"changed\n")
    wide.write("out/new", b"a file where nothing is wanted\n")
    _, plan = wide.back(made)
    assert (plan.added, plan.changed, plan.deleted) == ((), (IN,), ("out/new",))
    assert clean(wide)
    assert not (wide.top / "out").exists()
    widen(wide)
    assert clean(wide)


def test_what_is_taken_away_between_two_is_no_deletion(wide: Work) -> None:
    before = wide.take()
    narrow(wide)
    wide.write(IN, b"changed\n")
    now = wide.take()
    assert now.changed == 1
    _, plan = wide.back(before)
    assert (plan.added, plan.changed, plan.deleted) == ((), (IN,), ())
    assert not (wide.top / "out").exists()
    widen(wide)
    wide.back(now)
    assert (wide.top / OUT).read_bytes() == b"out\n"
    assert (wide.top / IN).read_bytes() == b"changed\n"


def test_what_came_since_is_not_deleted_and_what_was_made_since_is(wide: Work) -> None:
    narrow(wide)
    made = wide.take()
    assert made.sparse
    widen(wide)
    wide.write("new", b"x\n")
    _, plan = wide.back(made)
    assert (plan.deleted, plan.left) == (("new",), (OUT,))
    assert clean(wide)


def test_a_change_outside_is_kept_as_any_other(wide: Work) -> None:
    """Git takes a file away only while it is as the index has it."""
    wide.write(OUT, b"by hand\n")
    wide.repo.git("sparse-checkout", "set", "in", ".opencode", check=False)
    made = wide.take()
    (wide.top / OUT).unlink()
    wide.back(made)
    assert (wide.top / OUT).read_bytes() == b"by hand\n"


def test_a_worktree_has_the_same_patterns(wide: Work) -> None:
    narrow(wide)
    made = wide.repo.tasks("create-task", "aside", "--worktree", "--json").json
    tree = Repo(Path(made["workspace"]["path"]), wide.repo.env)
    assert tree.git("sparse-checkout", "list").out == wide.repo.git("sparse-checkout", "list").out
    assert (tree.top / IN).exists()
    assert not (tree.top / "out").exists()
    assert tree.git("status", "--porcelain").out == ""


def test_settings_that_a_sparse_checkout_leaves_out_are_told(wide: Work) -> None:
    wide.repo.git("sparse-checkout", "set", "in")
    checks = wide.repo.tasks("doctor", "--json", check=False).json["checks"]
    (settings,) = [c for c in checks if c["name"] == "settings"]
    assert (settings["ok"], settings["fix"]) == (False, "git sparse-checkout add .opencode")
