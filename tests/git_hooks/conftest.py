"""Hooks without containers."""

from pathlib import Path

import pytest

from tests.conftest import Repo


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


@pytest.fixture
def task_repo(repo: Repo) -> Repo:
    """On the branch of its only task."""
    repo.git("checkout", "-q", "-b", "task/one")
    return repo
