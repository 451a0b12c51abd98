"""`scripts/engine` with an engine of its own, in a directory and a network namespace of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Ran, run

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE = ROOT / "scripts" / "engine"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an engine or make a network namespace")


@dataclass(frozen=True)
class PrivateEngine:
    """In a network namespace, because two engines in one would fight over its firewall."""

    directory: Path
    namespace_pid: int

    def call(self, *args: str, check: bool = True, **env: str) -> Ran:
        inside: list[str | Path] = ["nsenter", "--net", "--mount", f"--target={self.namespace_pid}", ENGINE, *args]
        own = {"OPENCODE_TASKS_ENGINE_DIR": str(self.directory), "DOCKER_HOST": "", **env}
        return run(inside, cwd=ROOT, env=own, check=check, timeout_s=100)

    @property
    def line(self) -> str:
        return f"DOCKER_HOST=unix://{self.directory}/docker.sock\n"

    @property
    def pid(self) -> int:
        return int((self.directory / "dockerd.pid").read_text())

    def daemons(self) -> list[int]:
        """Every live dockerd that has our directory on its command line."""
        found = []
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = cmdline.read_bytes().split(b"\0")
                if words[0].endswith(b"dockerd") and any(os.fsencode(self.directory) in w for w in words):
                    found.append(int(cmdline.parent.name))
        return found


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    # Short: the socket's path may have 108 bytes.
    directory = Path(tempfile.mkdtemp(prefix="oe", dir="/tmp"))
    # An empty /run hides the machine's own engine, if it has one.
    hide = "mount -t tmpfs tmpfs /run && echo ready && exec sleep 300"
    holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", hide], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    engine = PrivateEngine(directory, holder.pid)
    try:
        yield engine
    finally:
        engine.call("stop", check=False)
        holder.kill()
        holder.communicate()
        shutil.rmtree(directory, ignore_errors=True)


def test_starts_once_says_one_line_and_stops(private: PrivateEngine) -> None:
    assert private.call("status", check=False).code == 1
    assert private.call().out == private.line
    first = private.pid
    assert private.call("start").out == private.line
    assert private.call("status").out == private.line
    assert private.daemons() == [first]
    assert private.call("stop").out == ""
    assert private.call("stop").out == ""
    assert private.daemons() == []
    assert private.call("status", check=False).code == 1


def test_two_starts_at_once_make_one_engine_and_a_killed_one_is_replaced(private: PrivateEngine) -> None:
    with ThreadPoolExecutor() as pool:
        said = [future.result().out for future in [pool.submit(private.call) for _ in range(2)]]
    assert said == [private.line, private.line]
    assert len(private.daemons()) == 1
    os.kill(private.pid, signal.SIGKILL)
    assert private.call().out == private.line
    assert len(private.daemons()) == 1


def test_a_stale_pid_file_and_a_dead_docker_host_do_not_mislead_it(private: PrivateEngine) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (private.directory / "dockerd.pid").write_text(str(bystander.pid))
        (private.directory / "docker.sock").touch()
        started = private.call("start", DOCKER_HOST="unix:///nonexistent/docker.sock")
        assert started.out == private.line
        assert "/nonexistent/docker.sock" in started.err
        private.call("stop")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
