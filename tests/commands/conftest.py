"""What tests of commands share."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from opencode_tasks import cli
from opencode_tasks.git import memory
from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace, new_id, slug
from tests.conftest import Ran, Repo
from tests.store.conftest import new

Ask = Callable[..., Ran]


@pytest.fixture
def ask(repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """`opencode-tasks …` in this process: all of it but the interpreter's start, which takes longest."""
    for name, value in repo.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(repo.top)

    def asked(*args: str, check: bool = True) -> Ran:
        capsys.readouterr()
        code = cli.main(args)
        ran = Ran(code, *capsys.readouterr())
        assert code != 3, (repo.common / "opencode-tasks" / "errors.log").read_text()
        assert code == 0 or not check, ran
        return ran

    return asked


# `kill -9` before the n-th step; what it has done is as done as it ever is.
_DIES_BEFORE = """
import os, signal, subprocess
import docker
from opencode_tasks.store import Store

left = {step}

def counted(real):
    def call(*args, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return call

"""


def dies_before(repo: Repo, step: int, steps: Sequence[str], *words: str, first: str = "") -> bool:
    """Whether it was killed; else it was done before. `steps`: calls that count, as in `Store.record`.

    `first`: Python that is executed there before.
    """
    counting = "".join(f"{call} = counted({call})\n" for call in steps)
    ran = repo.tasks(*words, check=False, before=first + _DIES_BEFORE.format(step=step) + counting)
    assert ran.code in (0, -signal.SIGKILL), ran.err
    return ran.code != 0


def bare_task(repo: Repo, title: str, **fields: str) -> str:
    """A task of which git knows nothing, which is enough to be found."""
    place = Workspace("in-place", str(repo.top))
    made = Store(repo.common).create(new(new_id(title), title=title, workspace=place, **fields), actor="test")
    return made.id


@pytest.fixture
def task_id(repo: Repo) -> str:
    """The task of the branch here, running; no hook has made it, for that takes longer."""
    made = bare_task(repo, "Fix the parser", branch="main")
    repo.git("config", "branch.main.opencodetask", made)
    store = Store(repo.common)
    store.ensure_status(made, "running", reason="test", actor="test")
    memory.commit(store)
    return made


def made_aside(repo: Repo, title: str = "Speed up\nthe parser", *, of: Repo | None = None) -> tuple[Repo, str]:
    """A task in a worktree with one commit, whose base (`main`, or the branch of `of`) moves on. Without our hooks."""
    quiet = Repo((of or repo).top, {**repo.env, "OPENCODE_TASKS_HOOKS": "off"})
    branch, start = f"task/{slug(title)}", quiet.git("rev-parse", "HEAD").out.strip()
    place = repo.top.parent / "worktrees" / slug(title)
    quiet.git("worktree", "add", "-q", "-b", branch, str(place))
    store = Store(repo.common)
    wanted = NewTask(new_id(title), title, branch, Base(quiet.branch, start), Workspace("worktree", str(place)))
    task_id = store.create(wanted, actor="test").id
    repo.git("config", f"branch.{branch}.opencodetask", task_id)
    store.ensure_status(task_id, "running", reason="test", actor="test")
    work = Repo(place, quiet.env)
    work.commit("Faster", **{f"{title.rsplit(maxsplit=1)[-1].lower()}.py": "fast\n"})
    quiet.commit("Meanwhile", other=f"{title}\n")
    return work, task_id


@pytest.fixture
def read_only(repo: Repo) -> Iterator[None]:
    """The store on a file system that cannot be written."""
    place = repo.common / "opencode-tasks"
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def on_a_terminal(repo: Repo, *argv: str, within_s: float = 60) -> str:
    """What a person sees on a terminal of 100 columns while `argv` runs to its end."""
    master, slave = pty.openpty()
    env = {**os.environ, **repo.env, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(argv, cwd=repo.top, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen_b, deadline = b"", time.monotonic() + within_s
    with suppress(OSError):  # the other side is closed
        while select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
            seen_b += os.read(master, 65536)
    os.close(master)
    process.kill()
    assert process.wait() == 0, seen_b
    return seen_b.decode()
