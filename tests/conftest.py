"""Isolation for every test, and the builders that tests share: real git, real files, real processes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import docker
import pytest

from opencode_tasks import marked
from opencode_tasks.containers import images
from opencode_tasks.containers.engine import Engine
from opencode_tasks.opencode import launcher, present, settings
from opencode_tasks.store.layout import FOLDER
from tests import forked

_TIMEOUT_S = 60
_SERVERS: list[forked.Server] = []
"""Of this process: one, while tests run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tasks", type=int, default=5, help="how many there are in a day (tests/test_a_day.py)")
    parser.addoption("--kills", type=int, default=20, help="how many there are (tests/checkpoints/test_kills.py)")
    parser.addoption("--walks", type=int, default=3, help="how many there are (tests/checkpoints/test_random_edits.py)")
    parser.addoption("--cycles", type=int, default=500, help="how often writers are killed (tests/store/test_kills.py)")


# What takes longest, that which waits for the engine beside that which computes.
_FIRST = [
    *("store/test_bit_flips.py", "commands/test_exec.py", "store/test_crash_points.py", "escape/test_secrets.py"),
    *("store/test_kills.py", "commands/test_reconcile_kills.py", "store/test_contention.py", "escape/test_attacks.py"),
    *(
        "opencode/test_surroundings.py",
        "git_hooks/test_pre_commit_tool.py",
        "commands/test_reconcile.py",
        "escape/test_devcontainer.py",
    ),
]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: one always waits for an engine or a disk. With more, tests of signals time out."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin first: at the end no worker waits for another's."""
    order = {Path(__file__).parent / name: at for at, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True, scope="session")
def _server() -> Iterator[None]:
    """Of `Repo.tasks`."""
    made = forked.Server()
    _SERVERS.append(made)
    yield
    _SERVERS.remove(made)
    made.close()


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of its own, no git configuration but ours, no setting of the person who runs the tests."""
    return _isolate(monkeypatch, tmp_path_factory.mktemp("home"))


def _isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    for name in list(os.environ):
        if name.startswith(("GIT_", "OPENCODE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    # Tests of these ask for them: everywhere else they only take time.
    monkeypatch.setenv("OPENCODE_TASKS_CHECKPOINT_AUTOMATIC", "off")
    monkeypatch.setenv("OPENCODE_TASKS_CHECKPOINT_BACKGROUND", "off")
    # The commands that the tests call are those of the interpreter that runs them.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.invalid\n[init]\n\tdefaultBranch = main\n"
    )
    return home


def is_ours(path: Path) -> bool:
    """Whether `init` made the file for OpenCode: git does not look at it."""
    return path.is_file() and not path.is_symlink() and marked.state(path) == "ours"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    check: bool = True,
    timeout_s: float = _TIMEOUT_S,
) -> Ran:
    """A real process with a bound on its time; an unexpected exit code fails with both streams."""
    done = subprocess.run(
        [str(a) for a in argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=stdin.encode(),
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    return _judged(argv, done.returncode, done.stdout, done.stderr, check=check)


def _judged(argv: Sequence[str | Path], code: int, out_b: bytes, err_b: bytes, *, check: bool) -> Ran:
    ran = Ran(code, out_b.decode(errors="surrogateescape"), err_b.decode(errors="replace"))
    if check and ran.code != 0:
        shown = " ".join(str(a) for a in argv)
        pytest.fail(f"`{shown}` exited {ran.code}\nstdout: {ran.out}\nstderr: {ran.err}", pytrace=True)
    return ran


@dataclass(frozen=True)
class Repo:
    """A real repository, with the two programs that act on it."""

    top: Path
    env: dict[str, str] = field(default_factory=dict)

    def git(self, *args: str, check: bool = True, env: Mapping[str, str] | None = None) -> Ran:
        return run(["git", *args], cwd=self.top, check=check, env={**self.env, **(env or {})})

    def tasks(self, *args: str, check: bool = True, stdin: str = "", cwd: Path | None = None, before: str = "") -> Ran:
        """`opencode-tasks …` in its own process, which executes `before` (Python) first."""
        argv, cwd = ["opencode-tasks", *args], cwd or self.top
        if any(name.startswith(("PYTHON", "LC_")) for name in self.env):  # that concerns the interpreter's start
            return run(argv, cwd=cwd, check=check, env=self.env, stdin=stdin)
        (server,), env = _SERVERS, {**os.environ, **self.env}
        done = server.run(args, cwd=cwd, env=env, stdin_b=stdin.encode(), timeout_s=_TIMEOUT_S, before=before)
        return _judged(argv, *done, check=check)

    def write(self, name: str, content: str) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def commit(self, message: str = "change", **files: str) -> str:
        """Commit everything (and `files`, name to content); the commit's id."""
        for name, content in files.items():
            self.write(name, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").out.strip()

    @property
    def branch(self) -> str:
        return self.git("symbolic-ref", "--short", "HEAD").out.strip()

    @property
    def common(self) -> Path:
        return (self.top / self.git("rev-parse", "--git-common-dir").out.strip()).resolve()

    @property
    def store(self) -> Path:
        return self.common / "opencode-tasks" / "store"

    def ids(self) -> list[str]:
        return sorted(p.name for p in self.store.iterdir() if not p.name.startswith("."))

    def only_id(self) -> str:
        (only,) = self.ids()
        return only

    def events(self, task_id: str) -> list[dict[str, Any]]:
        """Straight from the files: what the log really says."""
        lines = []
        for path in sorted((self.store / task_id / "log").glob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_bytes().splitlines()]
        return lines


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[..., Repo]:
    """`make_repo(name)`: a repository with one commit. No engine: containers are not started."""

    def make(name: str = "repo", *, commits: bool = True) -> Repo:
        top = tmp_path / name
        top.mkdir(parents=True)
        repo = Repo(top, _without_engine(tmp_path))
        repo.git("init", "--quiet")
        if commits:
            repo.commit("first", **{"README.md": "hello\n"})
        return repo

    return make


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, in which `init` has run, to make others from: that takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        home = _isolate(patch, tmp_path_factory.mktemp("template"))
        top = home / "repo"
        top.mkdir()
        made = Repo(top, _without_engine(home))
        made.git("init", "--quiet")
        made.commit("first", **{"README.md": "hello\n"})
        made.tasks("init")
        made.commit("settings")
    return top


def another(initialised: Path, top: Path) -> None:
    """The same at `top`; a clone of its own."""
    shutil.copytree(initialised, top, symlinks=True)
    store = top / ".git" / "opencode-tasks"
    installed = store / "installed.json"
    installed.write_text(installed.read_text().replace(str(initialised), str(top)))
    (store / "clone").write_text(f"{os.urandom(4).hex()}\n")
    _move_opencode(initialised, top)


def _move_opencode(before: Path, top: Path) -> None:
    """What `init` would do in a repository that was moved; without a process."""
    record = top / ".git" / present.RECORD
    known = json.loads(record.read_text().replace(str(before), str(top)))
    (top / ".opencode" / known["config"]).write_bytes(settings.new_file(str(launcher.path_in(top / ".git" / FOLDER))))
    record.write_text(json.dumps({**known, "stamps": present.stamps(top / ".opencode", known)}))


@pytest.fixture
def repo(initialised: Path, tmp_path: Path) -> Repo:
    """A repository in which `init` has run; without an engine."""
    another(initialised, tmp_path / "repo")
    return Repo(tmp_path / "repo", _without_engine(tmp_path))


@pytest.fixture(scope="session")
def with_submodules(initialised: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import submodules

    with pytest.MonkeyPatch.context() as patch:
        home = _isolate(patch, tmp_path_factory.mktemp("submodules"))
        return submodules.build(initialised, home)


@pytest.fixture
def full(with_submodules: Path, tmp_path: Path) -> Repo:
    """Like `repo`, with a submodule in a submodule (`tests.submodules`)."""
    another(with_submodules, tmp_path / "full")
    return Repo(tmp_path / "full", _without_engine(tmp_path))


def _without_engine(tmp_path: Path) -> dict[str, str]:
    """Nor is a container tried in the background, where the attempt's record would come at a time of its own."""
    return {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock", "OPENCODE_TASKS_CONTAINER_AUTOSTART": "false"}


@pytest.fixture(scope="session")
def engine_host() -> str:
    """The address of the real engine that `make test` provides. Never skipped: without one, tests fail."""
    host = os.environ.get("DOCKER_HOST", "")
    assert host, "no engine: run the tests with `make test`, which finds or starts one (scripts/engine)"
    return host


@pytest.fixture
def client(engine_host: str) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(engine_host)
    yield made
    made.close()


@pytest.fixture
def live_repo(initialised: Path, tmp_path: Path, client: docker.DockerClient, engine_host: str) -> Iterator[Repo]:
    """Like `repo`, with the real engine. Its containers are removed at the end, also where `.git` was attacked."""
    another(initialised, tmp_path / "repo")
    live = Repo(tmp_path / "repo", {"DOCKER_HOST": engine_host})
    clone = (live.top / ".git" / "opencode-tasks" / "clone").read_text().strip()
    yield live
    _wait_for_the_background(live.top)
    live.tasks("uninstall", check=False)
    for left in client.api.containers(all=True, filters={"label": f"opencode-tasks.clone={clone}"}):
        client.api.remove_container(left["Id"], force=True)


def _wait_for_the_background(top: Path) -> None:
    """What a hook has started makes its container late, and nobody would remove that."""
    deadline = time.monotonic() + 30
    while any(map(_is_background, Path("/proc").glob("[0-9]*"), repeat(top))) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_background(process: Path, top: Path) -> bool:
    try:
        return b"\0opencode_tasks\0reconcile\0" in (process / "cmdline").read_bytes() and (
            (process / "cwd").readlink().is_relative_to(top)
        )
    except OSError:
        return False


@pytest.fixture
def engine(engine_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The real engine, as our own code sees it."""
    monkeypatch.setenv("DOCKER_HOST", engine_host)
    made = Engine()
    yield made
    made.api.close()


@pytest.fixture
def base(engine: Engine) -> str:
    """Our base image, to build upon."""
    return images.newest(engine, "base").tag


@pytest.fixture
def project(live_repo: Repo, client: docker.DockerClient) -> Iterator[Repo]:
    """A repository whose project images and volumes are removed at the end."""
    yield live_repo
    clone = (live_repo.common / "opencode-tasks" / "clone").read_text().strip()
    live_repo.tasks("uninstall", "--purge", check=False)
    for image in client.images.list(filters={"label": f"opencode-tasks.clone={clone}"}):
        client.images.remove(str(image.id), force=True)
