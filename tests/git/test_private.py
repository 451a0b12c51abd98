"""The container's git directory as the host makes it."""

from concurrent.futures import ThreadPoolExecutor

from opencode_tasks.git import discovery, private
from opencode_tasks.store import Store
from tests.conftest import Repo, run


def test_many_make_it_at_once_and_it_is_one_and_whole(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    repo.git("config", "user.name", 'A "quoted" \\ name')
    repo.git("config", "remote.origin.url", "https://user:token@example.invalid/x")
    (repo.top / "README.md").write_text("changed\n")
    task_id = repo.only_id()
    layout, checkout = Store(repo.common).layout, discovery.find(repo.top, {})
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: private.ensure(layout, checkout, task_id, "task/one"), range(4)))
    assert made == {layout.private_git(task_id)}
    assert [p.name for p in layout.private_git(task_id).parent.iterdir() if p.name.startswith(".new-")] == []
    # As the container sees it, with the objects where they are borrowed from.
    (own,) = made
    alternates = own / "objects" / "info" / "alternates"
    alternates.write_text(alternates.read_text().replace(private.OBJECTS, str(repo.common / "objects")))
    git = ("git", f"--git-dir={own}", f"--work-tree={repo.top}")
    assert run([*git, "config", "user.name"], cwd=repo.top).out == 'A "quoted" \\ name\n'
    assert "token" not in (own / "config").read_text()
    assert run([*git, "status", "--porcelain"], cwd=repo.top).out == " M README.md\n"
    assert run([*git, "rev-parse", "HEAD", "main"], cwd=repo.top).out == repo.git("rev-parse", "HEAD", "main").out
    assert private.untaken(layout, task_id, "task/one") == ""
