"""The plugin's child as OpenCode has it: a line of JSON each way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import Repo

Reply = dict[str, Any]


class Child:
    def __init__(self, repo: Repo, pid: int) -> None:
        argv = [sys.executable, "-I", "-m", "opencode_tasks.opencode_hooks", str(repo.top), str(pid)]
        self.process = subprocess.Popen(
            argv,
            cwd=repo.top,
            env={**os.environ, **repo.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.number = 0

    def ask(self, hook: str, session: str = "ses_one", **data: object) -> Reply:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.number += 1
        said = {"root": session, "session": session, **data, "id": self.number, "hook": hook}
        self.process.stdin.write(json.dumps(said).encode() + b"\n")
        self.process.stdin.flush()
        reply: Reply = json.loads(self.process.stdout.readline())
        assert reply.pop("id") == self.number
        return reply

    def leave(self) -> None:
        """As OpenCode does when it is killed: it only closes its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0


class Children:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def __call__(self, repo: Repo, pid: int | None = None) -> Child:
        child = Child(repo, pid or os.getpid())
        self.stack.callback(child.process.__exit__, None, None, None)
        self.stack.callback(child.process.kill)
        return child


@pytest.fixture
def children() -> Iterator[Children]:
    with ExitStack() as stack:
        yield Children(stack)
