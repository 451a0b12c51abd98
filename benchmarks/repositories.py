"""The repositories that are measured, in a directory, with a HOME and settings, of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import BenchmarkError, Step

FILES = 200
DIFFERING = 3
OTHERS_SETTINGS = ("GIT_", "HUSKY", "LEFTHOOK", "OPENCODE_", "PRE_COMMIT", "PYTHON", "XDG_")


@dataclass(frozen=True)
class Repo:
    """A repository with its own HOME and git configuration."""

    top: Path
    env: Mapping[str, str]

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=self.top, env=self.env, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise BenchmarkError(f"`{' '.join(argv)}` exited {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def git(self, *args: str) -> str:
        return self.run("git", *args)

    def tasks(self, *args: str) -> str:
        return self.run(sys.executable, "-I", "-m", "opencode_tasks", *args)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def branch_off(self, branch: str) -> None:
        """A branch whose last commit changes `DIFFERING` files; main is checked out afterwards."""
        self.git("checkout", "--quiet", "-b", branch)
        self.write({file_name(n): f"{branch}\n" for n in range(DIFFERING)})
        self.commit(branch)
        self.git("checkout", "--quiet", "main")

    def checkout(self, row: str, branch: str, settle: Callable[[], None] = lambda: None) -> Step:
        git = shutil.which("git", path=self.env["PATH"]) or "git"
        argv = (git, "-C", str(self.top), "checkout", "--quiet", branch)
        return Step(row, argv, self.env, settle)


@dataclass(frozen=True)
class Bench:
    """Where this run works, and with which environment."""

    root: Path
    env: Mapping[str, str]

    def repo(self, name: str, files: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Repo:
        repo = Repo(self.root / name, {**self.env, **(env or {})})
        repo.top.mkdir()
        repo.git("init", "--quiet")
        repo.write({file_name(n): f"file {n}\n" * 20 for n in range(FILES)})
        repo.write({".gitignore": "node_modules/\n", "package.json": "{}\n", **(files or {})})
        repo.commit("first")
        return repo


def file_name(number: int) -> str:
    return f"src/part{number % 10}/file{number}.txt"


@contextmanager
def bench(where: Path | None = None) -> Iterator[Bench]:
    prefix = "opencode-tasks-benchmark-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=where, ignore_cleanup_errors=True) as made:
        root = Path(made).resolve()
        home = root / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Benchmark\n\temail = benchmark@example.invalid\n"
            "[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS_SETTINGS)}
        # Where no engine answers, for all but the rows that say otherwise.
        nowhere = f"unix://{root}/no-engine.sock"
        yield Bench(root, {**kept, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "DOCKER_HOST": nowhere})
