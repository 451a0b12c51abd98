"""Workspaces to take checkpoints of: many small files in nested folders, all committed, and some that are ignored."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError
from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Task, Workspace, new_id

_A_FOLDER = 20
_SIZES_B = (2 << 10, 16 << 10)
_IGNORED = 200
_IGNORE = b"node_modules/\n*.log\n"
_TEXT_B = 16 << 20
_SEED = 6


@dataclass(frozen=True)
class Tree:
    """`names`: of all files that are committed and not ignored, but .gitignore."""

    repo: Repo
    names: tuple[str, ...]

    @property
    def top(self) -> Path:
        return self.repo.top

    def change(self, names: Iterable[str], mark: str) -> None:
        """Another first line; all else stays."""
        for name in names:
            path = self.top / name
            before = path.read_bytes()
            path.write_bytes(f"{mark}\n".encode() + before.partition(b"\n")[2])

    def write(self, names: Iterable[str], content: str) -> None:
        for name in names:
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.top / name).unlink(missing_ok=True)

    def replace(self, names: Iterable[str]) -> None:
        """Each by a file of the same bytes, as a careful program does it."""
        for name in names:
            path = self.top / name
            beside = path.with_name(f".{path.name}.new")
            beside.write_bytes(path.read_bytes())
            beside.replace(path)

    def read(self, names: Iterable[str]) -> dict[str, bytes | None]:
        paths = {name: self.top / name for name in names}
        return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}

    def sample(self, count: int, seed: int) -> list[str]:
        """Some of the files, no other for the same seed."""
        return random.Random(seed).sample(self.names, min(count, len(self.names)))


def settled(trees: Iterable[Tree]) -> None:
    """Git looks twice at what was written in the second in which it wrote its index: that second passes."""
    time.sleep(1.1)
    for tree in trees:
        tree.repo.git("update-index", "-q", "--refresh")


def grown(bench: Bench, name: str, files: int) -> Tree:
    repo = Repo(bench.root / name, bench.env)
    repo.top.mkdir()
    repo.git("init", "--quiet")
    names = tuple(_name(number) for number in range(files))
    argv = ("git", "fast-import", "--quiet", "--depth=0")
    with subprocess.Popen(argv, cwd=repo.top, env=repo.env, stdin=subprocess.PIPE) as importing:
        if importing.stdin is None:
            raise BenchmarkError("git fast-import takes no input")
        for piece in _stream(names):
            importing.stdin.write(piece)
    if importing.returncode != 0:
        raise BenchmarkError(f"git fast-import ended with {importing.returncode}")
    repo.git("-c", "checkout.workers=0", "reset", "--quiet", "--hard")
    tree = Tree(repo, names)
    tree.write((f"node_modules/m{n % 20}/file{n}.js" for n in range(min(_IGNORED, files))), "ignored\n" * 100)
    settled([tree])
    return tree


def copied(bench: Bench, tree: Tree, name: str) -> Tree:
    repo = Repo(bench.root / name, bench.env)
    subprocess.run(("cp", "--archive", str(tree.top), str(repo.top)), check=True)
    return Tree(repo, tree.names)


def felled(tree: Tree) -> None:
    shutil.rmtree(tree.top)


def fresh_store(repo: Repo) -> tuple[Store, Task]:
    """No checkpoint was ever taken here, and there is one task that works in `repo`."""
    store = Store(repo.top / ".git")
    shutil.rmtree(store.layout.root, ignore_errors=True)
    store = Store(repo.top / ".git")
    store.make()
    head = repo.git("rev-parse", "HEAD").strip()
    task_id = new_id("benchmark")
    new = NewTask(task_id, "Benchmark", f"task/{task_id}", Base("main", head), Workspace("in-place", str(repo.top)))
    return store, store.create(new, actor="bench")


def walk(top: Path) -> int:
    """The floor: every file looked at once, all but the git directory. How many there are."""
    found, folders = 0, [os.fspath(top)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != ".git":
                        folders.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    found += 1
    return found


def disk_bytes(top: Path) -> int:
    """What it takes on the disk, by blocks; a file of several names counts once."""
    seen = {(found.st_dev, found.st_ino): found.st_blocks * 512 for found in map(os.lstat, (top, *top.rglob("*")))}
    return sum(seen.values())


def _name(number: int) -> str:
    folder = number // _A_FOLDER
    return f"src/area{folder % 10}/part{folder // 10 % 10}/group{folder // 100}/file{number}.txt"


def _stream(names: Sequence[str]) -> Iterator[bytes]:
    """One commit that has them all, in the language of `git fast-import`."""
    rng, text = random.Random(_SEED), _text()
    yield b"commit refs/heads/main\ncommitter Benchmark <benchmark@example.invalid> 1700000000 +0000\ndata 5\nfirst\n"
    yield b"M 100644 inline .gitignore\ndata %d\n%s\n" % (len(_IGNORE), _IGNORE)
    for name in names:
        size, at = rng.randint(*_SIZES_B), rng.randrange(len(text) - _SIZES_B[1])
        content = name.encode() + b"\n" + text[at : at + size]
        yield b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(content), content)


@lru_cache(maxsize=1)
def _text() -> bytes:
    """Words, which compress as source code does."""
    rng = random.Random(_SEED)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz_(){};", k=rng.randint(2, 10))) for _ in range(3000)]
    pieces, size = [], 0
    while size < _TEXT_B:
        line = b" ".join(rng.choices(words, k=9)) + b"\n"
        pieces.append(line)
        size += len(line)
    return b"".join(pieces)
