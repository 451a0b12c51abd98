"""`switch` looks at how things are, so whatever was missed is made good by the next call."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.config_sections import OBEYED, BranchConfig, Config, ContainerConfig
from opencode_tasks.errors import NoTaskError
from opencode_tasks.git import discovery, plumbing, workspaces
from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace
from tests.conftest import Repo

Place = tuple[Repo, Store, discovery.Checkout]
OFF = {"OPENCODE_TASKS_HOOKS": "off"}


@pytest.fixture
def place(make_repo: Callable[..., Repo]) -> Place:
    made = make_repo()
    checkout = discovery.find(made.top, {})
    store = Store(checkout.common_dir)
    store.make()
    return made, store, checkout


def switch(place: Place, new: NewTask | None = None) -> workspaces.Switch:
    return workspaces.switch(place[1], place[2], Config(), actor="test", new=new)


def test_again_changes_nothing(place: Place) -> None:
    place[0].git("checkout", "-q", "-b", "task/one")
    first = switch(place)
    assert first.created
    again = switch(place)
    assert (again.created, again.left, again.entered) == (False, None, first.entered)


def test_several_missed_checkouts_are_made_good_at_once(place: Place) -> None:
    repo, store, _ = place
    repo.git("checkout", "-q", "-b", "task/one")
    one = switch(place).entered
    repo.git("checkout", "-q", "-b", "task/missed")
    repo.git("checkout", "-q", "-b", "task/two")
    done = switch(place)
    assert one is not None
    assert done.left is not None
    assert (done.left.id, done.left.status) == (one.id, "paused")
    assert len(store.ids()) == 2


def test_a_new_task_goes_to_its_own_branch_only(place: Place) -> None:
    repo, _, checkout = place
    head = plumbing.head_commit(checkout)
    assert head is not None
    repo.git("branch", "task/mine")
    repo.git("checkout", "-q", "-b", "task/other")
    new = NewTask("mine-000000", "Mine", "task/mine", Base("main", head), Workspace("in-place", str(repo.top)))
    entered = switch(place, new).entered
    assert entered is not None
    assert (entered.branch, entered.title) == ("task/other", "Other")


def test_no_commit_no_task(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo(commits=False)
    repo.git("checkout", "-q", "-b", "task/one")
    checkout = discovery.find(repo.top, {})
    store = Store(checkout.common_dir)
    store.make()
    assert workspaces.switch(store, checkout, Config(), actor="test").entered is None
    repo.commit("first")
    assert workspaces.switch(store, checkout, Config(), actor="test").created


def test_a_lost_tie_is_found_by_the_commits(place: Place) -> None:
    repo, _, checkout = place
    repo.git("checkout", "-q", "-b", "task/one")
    first = switch(place)
    plumbing.untie_branch(checkout, "task/one")
    again = switch(place)
    assert first.entered is not None
    assert again.entered is not None
    assert (again.created, again.entered.id) == (False, first.entered.id)


def test_the_branches_for_the_shims(place: Place) -> None:
    repo, store, checkout = place
    repo.git("checkout", "-q", "-b", "feature/grüße")
    plumbing.tie_branch(checkout, "feature/grüße", "some-000000")
    plumbing.tie_branch(checkout, "work/x", "some-000001")
    workspaces.publish_branches(store, checkout, Config(BranchConfig("work/")))
    delicate = "".join(f"protected {path}\n" for path in (".tasks", *OBEYED))
    assert store.layout.branches.read_text() == f"prefix work/\nbranch feature/grüße\n{delicate}"
    before = store.layout.branches.stat().st_ino
    workspaces.publish_branches(store, checkout, Config(BranchConfig("work/")))
    assert store.layout.branches.stat().st_ino == before
    settings = Config(BranchConfig("work/", protected=("main",)), container=ContainerConfig(protected=("ci",)))
    workspaces.publish_branches(store, checkout, settings)
    rules = "rule branch\n"
    assert store.layout.branches.read_text() == f"prefix work/\nbranch feature/grüße\n{rules}{delicate}protected ci\n"


def test_current_task_says_why_there_is_none(place: Place) -> None:
    repo, store, checkout = place
    for words, said in ((["checkout", "-q", "main"], "Branch main"), (["checkout", "-q", "--detach"], "detached")):
        repo.git(*words)
        with pytest.raises(NoTaskError) as caught:
            workspaces.current_task(store, checkout)
        assert said in caught.value.message
        assert caught.value.hint


def test_work_trees_leaves_out_what_is_gone_and_takes_any_path(place: Place, tmp_path: Path) -> None:
    repo, _, checkout = place
    odd = tmp_path / os.fsdecode(b"by\xfftes\nline")
    for path in (odd, tmp_path / "gone"):
        repo.git("worktree", "add", "-q", "--detach", str(path))
    (tmp_path / "gone" / ".git").unlink()
    assert set(workspaces.work_trees(checkout)) == {repo.top, odd}
    assert set(workspaces.work_trees(discovery.find(odd, {}))) == {repo.top, odd}
