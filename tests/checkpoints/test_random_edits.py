"""Random edits, checkpoints and restores, judged by an oracle that knows nothing of the engine but its trees."""

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from opencode_tasks.checkpoints import restore, snapshot, walk
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.store import Store
from tests.conftest import Repo, run

NAMES = (
    *("a", "b", "d", "d/e", "d/f", "d/g/h", "sp ace", "new\nline", "-dash", "ü", '"q"', "back\\slash"),
    *("nested/a", "nested/b/c", "nested/x.log"),
    *("x.log", "build", "build/o", "build/p", "link", ".gitignore", ".gitattributes", "d/.gitignore"),
)
IGNORES = ("", "*.log\n", "build/\n", "d/\n", "b\n*.log\n", "a\n", "!x.log\n*.log\n")
CONTENTS = (b"", b"x\r\ny\n", b"$Id$\n", b"\0\xff\n")

# What lies at a path: a link's target, or a file's bytes and mode.
Entry = str | tuple[bytes, int]
BIG_B = 150


@dataclass
class World:
    repo: Repo
    store: Store
    rng: random.Random

    @property
    def top(self) -> Path:
        return self.repo.top

    def disk(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for folder, dirs, files in os.walk(self.top):
            if ".git" in dirs:
                dirs.remove(".git")
            for name in (*files, *(d for d in dirs if (Path(folder) / d).is_symlink())):
                path = Path(folder) / name
                inside = str(path.relative_to(self.top))
                if inside != ".tasks":
                    mode = path.lstat().st_mode & 0o777
                    found[inside] = str(path.readlink()) if path.is_symlink() else (path.read_bytes(), mode)
        return found

    def held(self, checkpoint: Checkpoint) -> set[str]:
        """As git and the commit's message say it (docs/memory-format.md)."""
        git = ["git", f"--git-dir={self.store.layout.checkpoints_git}"]
        listed = run([*git, "ls-tree", "-r", "-z", "--name-only", checkpoint.commit], cwd=self.top).out.split("\0")
        message = run([*git, "log", "-1", "--format=%b", checkpoint.commit], cwd=self.top).out
        said = json.loads(message)
        if "roots" not in said:
            return {name for name in listed if name} | set(said.get("big", ()))
        (root,) = said["roots"]
        names = {name.removeprefix("files/") for name in listed if name.startswith("files/")}
        names |= {root + name.removeprefix("0/") for name in listed if name.startswith("0/")}
        return names | set(said.get("big", ()))

    def not_ignored(self) -> set[str]:
        """By the user's own git, which tracks nothing here but what the first commit had."""
        words = ("ls-files", "-z", "--others", "--cached", "--exclude-standard")
        listed = self.repo.git(*words).out.split("\0")
        inside = self.repo.git("-C", "nested", *words).out.split("\0")
        names = [name for name in listed if not name.endswith("/")] + [f"nested/{name}" for name in inside if name]
        return {name for name in names if name and os.path.lexists(self.top / name)}

    def edit(self) -> None:
        path = self.top / self.rng.choice(NAMES)
        for parent in path.relative_to(self.top).parents:
            if (self.top / parent).is_symlink() or (self.top / parent).is_file():
                (self.top / parent).unlink()
        remove(path)
        kind = self.rng.random()
        if kind < 0.25:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == ".gitignore":
            path.write_text(self.rng.choice(IGNORES))
        elif path.name == ".gitattributes":
            path.write_text("* text eol=crlf ident working-tree-encoding=UTF-16\n*.log filter=lfs\n")
        elif kind < 0.4:
            path.symlink_to(self.rng.choice(("a", "d", "nowhere", "/etc/passwd")))
        elif kind < 0.5:
            path.mkdir()
            (path / "inside").write_bytes(self.rng.randbytes(8))
        else:
            path.write_bytes(self.rng.choice((*CONTENTS, self.rng.randbytes(20), self.rng.randbytes(BIG_B + 50))))
            path.chmod(self.rng.choice((0o644, 0o755, 0o600, 0o640)))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(metafunc.config.getoption("--walks")))


def test_every_restore_is_exact_and_loses_nothing_that_no_checkpoint_holds(
    repo: Repo, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "BIG_B", BIG_B)
    repo.git("checkout", "--quiet", "-b", "task/random")
    repo.git("init", "--quiet", "nested")
    store = Store(repo.common)
    world = World(repo, store, random.Random(seed))
    task_id = repo.only_id()
    kept: list[tuple[Checkpoint, dict[str, Entry]]] = []
    restored = 0
    for _ in range(24):
        for _ in range(world.rng.randint(1, 5)):
            world.edit()
        task, before = store.get(task_id), world.disk()
        if not kept or world.rng.random() < 0.5:
            expected = world.not_ignored()
            made, _ = snapshot.take(store, task, kind="manual", label="", actor="test")
            holds = world.held(made)
            assert expected <= holds
            kept.append((made, {name: before[name] for name in holds}))
            continue
        target, wanted = world.rng.choice(kept)
        previewed = restore.preview(store, task, target)
        assert world.disk() == before
        undo, plan = restore.restore(store, task, target, actor="test")
        assert plan == previewed
        after = world.disk()
        assert {name: after.get(name) for name in wanted} == wanted
        safe = world.held(undo)
        assert {name for name, entry in before.items() if after.get(name) != entry} <= safe
        assert all(name in wanted or before.get(name) == entry for name, entry in after.items())
        restored += 1
    assert restored > 3
