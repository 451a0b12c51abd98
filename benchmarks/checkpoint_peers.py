"""Other tools' snapshots: the commands that each runs, in its order, on a repository of its own.

What a peer's own program (Node) takes is left out, and so is what ours takes to start. Each class says where its
commands come from.
"""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import checkpoint_trees
from benchmarks.repositories import Repo
from benchmarks.timing import BenchmarkError
from opencode_tasks.checkpoints import restore, snapshot


@dataclass(frozen=True)
class Ran:
    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def required(self, codes: Sequence[int] = (0,)) -> str:
        if self.code not in codes:
            raise BenchmarkError(f"`{' '.join(self.argv)}` exited {self.code}: {self.err}")
        return self.out


class Peer(ABC):
    """`take` and `back` are what is measured. `forget` drops all that was taken; `edited` is called when an agent's
    step has ended, before the next `take` or `back`.
    """

    name: str
    needs: tuple[str, ...] = ("git",)

    def __init__(self, repo: Repo, place: Path) -> None:
        self.repo = repo
        self.place = place

    def forget(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    @abstractmethod
    def take(self) -> str: ...

    def edited(self) -> None:
        return

    @abstractmethod
    def back(self, taken: str) -> None: ...

    def run(self, *argv: str, env: Mapping[str, str] | None = None, codes: Sequence[int] = (0,)) -> str:
        return self.ran(*argv, env=env).required(codes)

    def ran(self, *argv: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Ran:
        done = subprocess.run(
            argv,
            cwd=self.repo.top,
            env={**self.repo.env, **(env or {})},
            input=os.fsencode(stdin),
            capture_output=True,
            check=False,
            timeout=300,
        )
        return Ran(argv, done.returncode, os.fsdecode(done.stdout), done.stderr.decode(errors="replace").strip())


class Ours(Peer):
    """In process, as hooks and the MCP server call it."""

    name = "opencode-tasks"

    def forget(self) -> None:
        self.store, self.task = checkpoint_trees.fresh_store(self.repo)

    def take(self) -> str:
        return snapshot.take(self.store, self.task, kind="auto", label="", actor="bench")[0].id

    def back(self, taken: str) -> None:
        restore.restore(self.store, self.task, snapshot.named(self.store, self.task, taken), actor="bench")


class Stash(Peer):
    """By hand, as git-stash(1) has it: put away with what is untracked, taken out again at once."""

    name = "git stash"

    def take(self) -> str:
        before = self._top()
        self.run("git", "stash", "push", "--include-untracked", "--quiet")
        if self._top() == before:
            return "HEAD"
        self.run("git", "stash", "apply", "--index", "--quiet")
        return self._top()

    def _top(self) -> str:
        return self.run("git", "rev-parse", "--verify", "--quiet", "refs/stash", codes=(0, 1)).strip()

    def back(self, taken: str) -> None:
        self.run("git", "reset", "--quiet", "--hard")
        self.run("git", "clean", "--quiet", "-fd")
        if taken != "HEAD":
            self.run("git", "stash", "apply", "--index", "--quiet", taken)


class Rsync(Peer):
    """rsync(1), --link-dest: a folder for each snapshot, with hard links to the one before."""

    name = "rsync --link-dest"
    needs = ("rsync",)
    _COPY = ("rsync", "--archive", "--delete", "--exclude=/.git")

    def forget(self) -> None:
        super().forget()
        self.place.mkdir(parents=True)
        self.count = 0

    def take(self) -> str:
        before = self.place / str(self.count)
        self.count += 1
        link = (f"--link-dest={before}",) if before.exists() else ()
        self.run(*self._COPY, *link, f"{self.repo.top}/", f"{self.place / str(self.count)}/")
        return str(self.count)

    def back(self, taken: str) -> None:
        self.run(*self._COPY, f"{self.place / taken}/", f"{self.repo.top}/")


class Tar(Peer):
    """tar(1), compressed by zstd(1) at its fastest level with a thread for each processor."""

    name = "tar + zstd"
    needs = ("tar", "zstd")
    _ZSTD = "--use-compress-program=zstd -1 -T0"

    def forget(self) -> None:
        super().forget()
        self.place.mkdir(parents=True)
        self.count = 0

    def take(self) -> str:
        self.count += 1
        made = self.place / f"{self.count}.tar.zst"
        self.run("tar", self._ZSTD, "--create", f"--file={made}", "--exclude=./.git", ".")
        return str(made)

    def back(self, taken: str) -> None:
        self.run("tar", self._ZSTD, "--extract", f"--file={taken}")


def missing(peer: type[Peer]) -> list[str]:
    """Programs that it needs and that are not here; by these names they are also Debian packages."""
    return [program for program in peer.needs if shutil.which(program) is None]
