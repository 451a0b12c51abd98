"""A task to take checkpoints of; no engine is needed."""

import pytest

from tests.checkpoints.workspace import Work
from tests.conftest import Repo


@pytest.fixture
def work(repo: Repo) -> Work:
    repo.git("checkout", "--quiet", "-b", "task/work")
    return Work(repo)
