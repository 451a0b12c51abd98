"""The real OpenCode, with a scripted model on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import node
from tests.opencode import program
from tests.opencode.model import Model
from tests.opencode.program import OpenCode


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
