"""The real OpenCode, with a scripted model on loopback; and a repository that is set up for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import node
from tests.conftest import Repo
from tests.opencode import program
from tests.opencode.model import Model
from tests.opencode.program import OpenCode

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> tuple[Path, Path]:
    """`opencode` and `rg`. Never skipped: without npm and its registry, tests fail."""
    packages = program.packages()
    top = node.installed(pytestconfig, *packages)
    opencode, rg = (top / package.rpartition("@")[0] / "bin" for package in packages)
    return opencode / "opencode", rg / "rg"


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.close()


@pytest.fixture
def opencode(programs: tuple[Path, Path], model: Model, isolated: Path) -> Iterator[OpenCode]:
    made = OpenCode(*programs, isolated, model)
    yield made
    made.close()


@pytest.fixture
def ours(live_repo: Repo, opencode: OpenCode) -> Repo:
    """With the real engine, automatic checkpoints, and everything that `init` puts into OpenCode."""
    live_repo.env["OPENCODE_TASKS_CHECKPOINT_AUTOMATIC"] = "commands"
    opencode.env.update(live_repo.env)
    return live_repo


def of(repo: Repo, task_id: str, type_: str) -> list[dict[str, Any]]:
    """What the task's log says of that."""
    return [e["data"] for e in repo.events(task_id) if e["type"] == type_]
