"""Whatever git does to a repository while its tasks are written, their memory is none of its business."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from opencode_tasks.store import Store
from opencode_tasks.task import new_id
from tests.conftest import Repo, run
from tests.store.conftest import new

WRITERS, ROUNDS = 3, 6
_WRITER = """
import os, sys
from pathlib import Path
from opencode_tasks.git import memory
from opencode_tasks.store import Store
from opencode_tasks.store.layout import Layout
common, name, *ids = sys.argv[1:]
store = Store(Path(common), versions=memory.versions(Layout(Path(common))))
for n in range(10_000_000):
    task_id = ids[n % len(ids)]
    if n % 50 == 0:
        store.decide(task_id, f"{name} {n}", actor=name)
        memory.commit_if_due(store)
    store.record(task_id, ("note.added", {"writer": name, "n": n}), actor=name)
    os.write(1, f"{task_id} {n}\\n".encode())
"""


class Git:
    """Git in the repository, with our hooks or without any."""

    def __init__(self, repo: Repo, *, hooks: bool) -> None:
        self._repo = repo
        self._before = [] if hooks else ["-c", "core.hooksPath=/dev/null"]

    def __call__(self, *args: str) -> str:
        return self._repo.git(*self._before, *args).out


def branch_that_tracks_the_store(git: Git, repo: Repo, task_id: str) -> None:
    """As somebody pushes it who does not know what `.tasks` is: the same names, other content."""
    blob = run(["git", "hash-object", "-w", "--stdin"], cwd=repo.top, stdin="overwritten\n").out.strip()
    names = [f".tasks/{task_id}/{name}" for name in ("state.json", "log/x-000001.jsonl", "plan.md")]
    index = {"GIT_INDEX_FILE": str(repo.common / "torture-index")}
    repo.git("read-tree", "main", env=index)
    for name in [*names, ".tasks/new"]:
        repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)
    tree = repo.git("write-tree", env=index).out.strip()
    commit = git("commit-tree", "-p", "main", "-m", "tracks", tree).strip()
    git("branch", "tracks", commit)
    (repo.common / "torture-index").unlink()


def commit(git: Git, repo: Repo, name: str) -> None:
    repo.write(name, f"{name}\n")
    git("add", name)
    git("commit", "--quiet", "-m", name)


def checkouts(git: Git, repo: Repo, mark: str) -> None:
    for branch in ("tracks", "main", "tracks", "main"):
        git("checkout", "--quiet", "--force", branch)
        # Git has put its own directory where the link was, or taken it away again.
        assert (repo.top / ".tasks" / "new").exists() is (branch == "tracks")
    git("checkout", "--quiet", "-b", f"task/{mark}")
    commit(git, repo, f"{mark}-topic")
    git("checkout", "--quiet", "main")


def rebases(git: Git, repo: Repo, mark: str) -> None:
    commit(git, repo, f"{mark}-main")
    git("checkout", "--quiet", f"task/{mark}")
    git("rebase", "--quiet", "main")
    git("checkout", "--quiet", "main")
    git("merge", "--quiet", "--no-ff", "-m", "merged", f"task/{mark}")


def resets(git: Git, repo: Repo, mark: str) -> None:
    commit(git, repo, f"{mark}-reset")
    repo.write(f"{mark}-main", "edited\n")
    git("reset", "--quiet", "--hard", "HEAD~1")


def stashes(git: Git, repo: Repo, mark: str) -> None:
    repo.write(f"{mark}-main", "edited\n")
    repo.write(f"{mark}-untracked", "new\n")
    git("stash", "push", "--quiet", "--all")
    git("stash", "pop", "--quiet")
    git("stash", "push", "--quiet", "--all")
    git("stash", "drop", "--quiet")


def cleans(git: Git, repo: Repo, mark: str) -> None:
    repo.write(f"{mark}-untracked", "new\n")
    git("clean", "--quiet", "-ffdx")


def collects(git: Git, repo: Repo, mark: str) -> None:
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "--quiet", "--prune=now")


def worktrees(git: Git, repo: Repo, mark: str) -> None:
    beside = repo.top.parent / f"{mark}-tree"
    git("worktree", "add", "--quiet", str(beside), f"task/{mark}")
    git("worktree", "remove", "--force", str(beside))
    git("worktree", "add", "--quiet", "--detach", str(beside))
    run(["rm", "-r", str(beside)], cwd=repo.top)
    git("worktree", "prune")
    git("branch", "--quiet", "-D", f"task/{mark}")


ACTS: list[Callable[[Git, Repo, str], None]] = [checkouts, rebases, resets, stashes, cleans, worktrees, collects]


@pytest.fixture
def writers(repo: Repo) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that write to two tasks and say on stdout what is written."""
    store = Store(repo.common)
    ids = [store.create(new(new_id("torture")), actor="test").id for _ in range(2)]
    command = [sys.executable, "-c", _WRITER, str(repo.common)]
    started = []
    for n in range(WRITERS):
        said = (repo.top.parent / f"writer{n}").open("w")
        with said:
            started.append(subprocess.Popen([*command, f"w{n}", *ids], stdout=said, text=True))
    yield started
    for process in started:
        process.kill()
        process.wait()


def acknowledged(repo: Repo) -> dict[str, set[tuple[str, int]]]:
    """Of each task: which writer said to have written which event."""
    found: dict[str, set[tuple[str, int]]] = {}
    for n in range(WRITERS):
        for line in (repo.top.parent / f"writer{n}").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                task_id, count = line.split()
                found.setdefault(task_id, set()).add((f"w{n}", int(count)))
    return found


def written_more(repo: Repo) -> Callable[[], bool]:
    """Whether every writer has got on since this was called."""
    paths = [repo.top.parent / f"writer{n}" for n in range(WRITERS)]
    before = [path.stat().st_size for path in paths]
    return lambda: all(path.stat().st_size > size for path, size in zip(paths, before, strict=True))


@pytest.mark.parametrize(("hooks", "rounds"), [(False, ROUNDS), (True, 1)], ids=["without hooks", "with ours"])
def test_no_event_is_lost_and_git_is_content(
    repo: Repo, writers: list[subprocess.Popen[str]], hooks: bool, rounds: int
) -> None:
    git = Git(repo, hooks=hooks)
    first = next(task_id for task_id in repo.ids() if task_id.startswith("torture"))
    branch_that_tracks_the_store(git, repo, first)
    for n in range(rounds):
        for act in ACTS:
            got_on = written_more(repo)
            act(git, repo, f"r{n}")
            while not got_on():
                assert [process.poll() for process in writers] == [None] * WRITERS, act.__name__
    for process in writers:
        process.kill()
        process.wait()
    said = acknowledged(repo)
    assert len(said) == 2
    store = Store(repo.common)
    for task_id, events in said.items():
        notes = [e.data for e in store.history(task_id) if e.type == "note.added"]
        kept = [(data["writer"], data["n"]) for data in notes]
        assert events <= set(kept)
        assert len(kept) == len(set(kept)) <= len(events) + WRITERS  # killed between the two
        assert store.rebuild(task_id).degraded == ()
    repo.tasks("init")  # what git took away is the link
    assert repo.git("fsck", "--strict", "--no-dangling").out == ""
    memory = run(["git", "fsck", "--strict", "--no-dangling"], cwd=repo.top / ".tasks")
    assert (memory.out, memory.err) == ("", "")
    assert repo.git("status", "--porcelain").out == ""
    assert os.path.realpath(repo.top / ".tasks") == str(repo.store)
    checks = {c["name"]: c for c in repo.tasks("doctor", "--json", check=False).json["checks"]}
    assert checks["store"]["ok"], checks["store"]
    assert checks["branches"]["ok"], checks["branches"]
