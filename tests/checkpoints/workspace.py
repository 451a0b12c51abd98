"""What lies in a workspace, read without any of the product's code: the oracle of the checkpoint tests."""

import hashlib
import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from opencode_tasks.checkpoints import restore, snapshot
from opencode_tasks.checkpoints.planning import Plan
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.store import Store
from opencode_tasks.task import Task
from tests.conftest import Repo

# Path to ("file", content, executable), ("link", target) or ("special", mode). Empty directories are not files.
Contents = dict[bytes, tuple[str, bytes, bool]]


def contents(top: Path) -> Contents:
    found: Contents = {}
    start = os.fsencode(top)
    for folder, names, file_names in os.walk(start):
        if folder == start:
            names.remove(b".git")
        for name in [*file_names, *(n for n in names if os.path.islink(os.path.join(folder, n)))]:  # noqa: PTH114, PTH118
            path = os.path.join(folder, name)  # noqa: PTH118
            relative = os.path.relpath(path, start)
            if relative != b".tasks":
                found[relative] = _entry(path)
                if (
                    relative.startswith((b".opencode/", b"opencode.json"))
                    and b" opencode-tasks v1 sha256:" in found[relative][1][:200]
                ):
                    del found[relative]  # what `init` made for OpenCode, which git ignores
    return found


def _entry(path: bytes) -> tuple[str, bytes, bool]:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "link", os.readlink(path), False  # noqa: PTH115
    if not stat.S_ISREG(mode):
        return "special", str(stat.S_IFMT(mode)).encode(), False
    with open(path, "rb") as f:  # noqa: PTH123
        return "file", f.read(), bool(mode & stat.S_IXUSR)


def ignored(repo: Repo, paths: set[bytes]) -> set[bytes]:
    """Those of `paths` that the rules of the workspace ignore now, whatever is tracked."""
    if not paths:
        return set()
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repo.top,
        input=b"\0".join(sorted(paths)),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode in (0, 1), done.stderr
    return set(filter(None, done.stdout.split(b"\0")))


def digest_of_git(repo: Repo) -> str:
    """Every byte and mode below the git directory, but for our own folder. Git renews some times when it reads."""
    digest = hashlib.sha256()
    for path in sorted(repo.common.rglob("*")):
        relative = path.relative_to(repo.common)
        if relative.parts[0] != "opencode-tasks":
            seen = path.lstat()
            digest.update(f"{relative}\0{seen.st_mode}\0".encode())
            if path.is_symlink():
                digest.update(os.fsencode(path.readlink()))
            elif path.is_file():
                is_gits = relative.parts[0] == "objects" or relative.name.startswith("sharedindex.")
                time_ns = 0 if is_gits else seen.st_mtime_ns
                digest.update(f"{time_ns}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Work:
    """A task whose branch is checked out, and its checkpoints without a process for each."""

    repo: Repo

    @property
    def top(self) -> Path:
        return self.repo.top

    @property
    def store(self) -> Store:
        return Store(self.repo.common)

    @property
    def task(self) -> Task:
        return self.store.get(self.repo.only_id())

    def take(self, label: str = "") -> Checkpoint:
        return snapshot.take(self.store, self.task, kind="manual", label=label, actor="test")[0]

    def back(self, to: Checkpoint) -> tuple[Checkpoint, Plan]:
        return restore.restore(self.store, self.task, to, actor="test")

    def preview(self, to: Checkpoint) -> Plan:
        return restore.preview(self.store, self.task, to)

    def write(self, name: str | bytes, content_b: bytes = b"content\n") -> Path:
        path = self.top / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_b)
        return path

    def contents(self) -> Contents:
        return contents(self.top)
