"""A repository with a submodule in a submodule, whose origins are gone: what is not on the disk cannot be had."""

import shutil
from pathlib import Path

from tests.conftest import Repo, another

LIB, NESTED = "vendor/lib", "vendor/lib/deep/nested"
FILES = {"protocol.file.allow": "always"}


def build(initialised: Path, home: Path) -> Path:
    """`home/repo`: `init` has run, and the submodule is called otherwise than its path."""
    another(initialised, home / "repo")
    (home / "origins").mkdir()
    for name in ("nested", "lib"):
        made = Repo(home / "origins" / name)
        made.top.mkdir()
        made.git("init", "--quiet")
        made.commit(f"{name}'s first", **{f"{name}.txt": "x\n", ".gitignore": "*.log\n"})
    allowed = ("-c", "protocol.file.allow=always", "submodule", "--quiet")
    lib, repo = Repo(home / "origins" / "lib"), Repo(home / "repo")
    lib.git(*allowed, "add", str(home / "origins" / "nested"), "deep/nested")
    lib.commit("with nested")
    repo.git(*allowed, "add", "--name", "the/lib", str(lib.top), LIB)
    repo.git(*allowed, "update", "--init", "--recursive")
    repo.commit("with submodules")
    (home / "origins").rename(home / "origins are gone")
    return repo.top


def inside(repo: Repo, path: str = LIB) -> Repo:
    return Repo(repo.top / path, repo.env)


def forget(repo: Repo) -> None:
    """As in a clone without `--recurse-submodules`."""
    repo.git("submodule", "--quiet", "deinit", "--force", "--all")
    shutil.rmtree(repo.common / "modules")
