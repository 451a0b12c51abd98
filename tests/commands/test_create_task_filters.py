"""Files that go through a program (as those of git-lfs do), and repositories inside the work tree."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repo

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 5\n"
OID = "a" * 64
# What git-lfs does, as far as a checkout is concerned: contents by their id, from the folder that all worktrees share.
LFS = """#!{python}
import subprocess, sys
from pathlib import Path
said = sys.stdin.read()
common = subprocess.run(["git", "rev-parse", "--git-common-dir"], capture_output=True, text=True).stdout.strip()
objects = {{p.name: p.read_text() for p in Path(common, "lfs", "objects").rglob("*") if p.is_file()}}
if sys.argv[1] == "clean":
    sys.stdout.write({pointer!r}.format(oid=said[6] * 64) if said.startswith("large") else said)
    sys.exit()
oid = next(line.split(":")[1] for line in said.splitlines() if line.startswith("oid "))
sys.stdout.write(objects[oid]) if oid in objects else sys.exit(f"Error downloading object: {{oid}}")
"""


@pytest.fixture
def large(repo: Repo, tmp_path: Path) -> Repo:
    """Files that git-lfs keeps, committed where nobody had it: git has only the pointers."""
    repo.commit("large", **{".gitattributes": "*.bin filter=lfs\n", "data.bin": POINTER.format(oid=OID), "z": "x\n"})
    return repo


@pytest.fixture
def program(large: Repo, tmp_path: Path) -> Path:
    """In the place of git-lfs, and required as `git lfs install` has it."""
    path = tmp_path / "git-lfs-like"
    path.write_text(LFS.format(python=sys.executable, pointer=POINTER))
    path.chmod(0o755)
    for key, said in {"smudge": f"{path} smudge -- %f", "clean": f"{path} clean -- %f", "required": "true"}.items():
        large.git("config", f"filter.lfs.{key}", said)
    return path


def refused(repo: Repo, *words: str) -> dict[str, Any]:
    """Nothing was made."""
    before = repo.git("status", "--porcelain").out, repo.git("for-each-ref").out, repo.branch
    ran = repo.tasks("create-task", "large", *words, "--json", check=False)
    assert ran.code == 1, ran
    assert (repo.git("status", "--porcelain").out, repo.git("for-each-ref").out, repo.branch) == before
    assert repo.ids() == []
    assert repo.git("worktree", "list", "--porcelain").out.count("worktree ") == 1
    error: dict[str, Any] = ran.json["error"]
    return error


def keep(repo: Repo, oid: str) -> Path:
    return repo.write(f".git/lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}", f"large {oid[0]}\n")


def test_pointers_alone_are_told(large: Repo) -> None:
    assert "git lfs install --local && git lfs pull" in large.tasks("create-task", "large", "--worktree").out
    large.git("config", "filter.lfs.smudge", "cat")
    assert "git lfs" not in large.tasks("create-task", "large").out


def test_what_is_on_this_disk_is_there_in_a_worktree(large: Repo, program: Path) -> None:
    keep(large, OID)
    made = large.tasks("create-task", "large", "--worktree", "--json").json
    assert (Path(made["workspace"]["path"]) / "data.bin").read_text() == "large a\n"


@pytest.mark.parametrize("words", [["--worktree"], ["--from", "HEAD~1"]])
def test_a_filter_that_fails_is_named_and_nothing_stays(large: Repo, program: Path, words: list[str]) -> None:
    lacking = keep(large, OID)
    other = keep(large, "b" * 64)
    large.commit("other contents", **{"data.bin": other.read_text()})
    (lacking if words[0] == "--from" else other).unlink()
    error = refused(large, *words)
    assert error["message"].startswith("Files go through filter lfs (filter.lfs.required), and ")
    assert f"{program} failed" in error["message"]
    assert "GIT_LFS_SKIP_SMUDGE=1" in error["hint"]
    assert (large.top / "data.bin").read_text() == "large b\n"
    away = program.rename(f"{program}.away")
    error = large.tasks("create-task", "large", *words, "--json", check=False).json["error"]
    away.rename(program)
    assert large.git("status", "--porcelain").out == ""
    assert f"there is no {program}" in error["message"]
    assert error["hint"].startswith(f"install {program}, then ")
    assert (large.top / "data.bin").read_text() == "large b\n"


def test_a_failure_that_is_no_filters_is_not_blamed_on_one(large: Repo, program: Path) -> None:
    keep(large, OID)
    large.git("config", "--unset", "filter.lfs.required")
    (large.top.parent / "repo.worktrees").write_text("in the way\n")
    assert "filter" not in refused(large, "--worktree")["message"]


def test_repositories_inside_stay_where_they_are_and_are_not_removed_with_a_worktree(repo: Repo) -> None:
    def nested(top: Path) -> Repo:
        top.mkdir()
        made = Repo(top, repo.env)
        made.git("init", "-q")
        made.commit("own work", file="x\n")
        return made

    repo.commit("ignored", **{".gitignore": "vendored/\n", ".worktreeinclude": "vendored/\n"})
    mine = nested(repo.top / "vendored")
    made = repo.tasks("create-task", "aside", "--worktree", "--json").json
    tree = Path(made["workspace"]["path"])
    assert not (tree / "vendored").exists()
    nested(tree / "found")
    nested(tree / "vendored")
    kept = repo.tasks("checkpoint", made["id"], "--json").json["id"]
    (tree / "found" / "file").unlink()
    repo.tasks("restore-checkpoint", kept, "--task", made["id"])
    assert (tree / "found" / "file").read_text() == "x\n"
    for name, field in (("found", "uncommitted"), ("vendored", "ignored")):
        message = repo.tasks("cleanup-task", made["id"], "--json", check=False).json["error"]["message"]
        assert f"1 {field}" in message
        assert f"{name}/" in message
        os.rename(tree / name, repo.top.parent / name)  # noqa: PTH104
    repo.tasks("cleanup-task", made["id"])
    assert mine.git("log", "--format=%s").out == "own work\n"
