"""Submodules of a task's work tree: from this disk or not at all, and nothing of them is lost at the end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.containers import place
from opencode_tasks.git import discovery, submodule_conflicts, submodule_trees
from tests.conftest import Repo
from tests.submodules import LIB, NESTED, forget, inside


def aside(repo: Repo, *words: str) -> tuple[Repo, dict[str, Any]]:
    made = repo.tasks("create-task", "aside", "--worktree", "--json", *words).json
    return Repo(Path(made["workspace"]["path"]), repo.env), made


def states(repo: Repo) -> list[tuple[str, str]]:
    """The mark that git puts before each, and its path."""
    lines = repo.git("submodule", "status", "--recursive").out.splitlines()
    return [(line[0], line.split(" ")[1 if line[0] != " " else 2]) for line in lines]


def kinds(repo: Repo) -> list[tuple[str, str]]:
    return [(f.path, f.kind) for f in submodule_conflicts.found(discovery.find(repo.top, {}))]


def test_a_worktree_has_them_and_shares_nothing_but_objects(full: Repo) -> None:
    tree, made = aside(full)
    assert made["submodules"] == {"ready": [LIB, NESTED], "found": []}
    assert (tree.top / NESTED / "nested.txt").read_text() == "x\n"
    assert states(tree) == states(full) == [(" ", LIB), (" ", NESTED)]
    lib, mains = inside(tree), inside(full)
    for asked in (("remote", "-v"), ("symbolic-ref", "refs/remotes/origin/HEAD"), ("for-each-ref", "refs/remotes")):
        assert lib.git(*asked).out == mains.git(*asked).out
    packs = [p for p in (full.common / "modules" / "the" / "lib" / "objects").rglob("*") if p.is_file()]
    own = full.common / "worktrees" / tree.top.name / "modules" / "the" / "lib" / "objects"
    assert {p.stat().st_ino for p in packs} <= {p.stat().st_ino for p in own.rglob("*")}
    protected = place.wanted(discovery.find(tree.top, {}), ())
    assert {tree.top / LIB / ".git", tree.top / NESTED / ".git"} <= set(protected)
    # Git's own commands go on from there, and main's submodule is another one.
    tree.git("submodule", "update", "--init", "--recursive")
    lib.commit("only here", new="x\n")
    tree.git("add", LIB)
    tree.git("commit", "-q", "-m", "with a newer lib")
    assert states(full) == [(" ", LIB), (" ", NESTED)]
    assert full.git("status", "--porcelain").out == tree.git("status", "--porcelain").out == ""
    assert not list(full.common.rglob("opencode-submodule"))


def test_the_end_waits_for_what_only_the_worktrees_submodules_have(full: Repo) -> None:
    full.commit("brought along", **{".gitignore": "*.env\n", ".worktreeinclude": "*.env\n"})
    full.write(".env", "A=1\n")
    tree, made = aside(full)
    lib, nested = inside(tree), inside(tree, NESTED)

    def refused() -> str:
        done = full.tasks("cleanup-task", made["id"], "--json", check=False)
        assert done.json["error"]["code"] == "unsaved_work", done
        return str(done.json["error"]["message"])

    nested.write("new", "x\n")
    assert f"{NESTED}/new" in refused()
    nested.write("new.log", "x\n")
    (nested.top / "new").unlink()
    assert f"{NESTED}/new.log" in refused()
    (nested.top / "new.log").unlink()
    commit = lib.commit("only here")
    assert f"commit {commit[:7]} only here" in refused()
    lib.git("checkout", "-q", "--detach", "HEAD~1")
    lib.git("branch", "kept", commit)
    assert f"commit {commit[:7]} only here" in refused()
    lib.git("push", "-q", str(full.common / "modules" / "the" / "lib"), "kept")
    full.tasks("cleanup-task", made["id"])
    assert not tree.top.exists()
    assert not (full.common / "worktrees").exists()
    assert inside(full).git("rev-parse", "kept").out.strip() == commit
    assert states(full) == [(" ", LIB), (" ", NESTED)]
    full.tasks("cleanup-task", "--undo", made["id"])
    assert states(tree) == [(" ", LIB), (" ", NESTED)]
    nested.write("new", "x\n")
    nested.write("new.log", "x\n")
    tree.write("plain", "x\n")
    done = full.tasks("cleanup-task", made["id"], "--discard", "uncommitted,ignored", check=False)
    assert f"path that no checkpoint keeps: {NESTED}/new" in done.err
    said = full.tasks("cleanup-task", made["id"], "--discard", "uncommitted,ignored,unkeepable").out
    assert f"too much to be kept: {NESTED}/new.log" in said
    assert not tree.top.exists()


def test_what_the_users_configuration_leaves_out_stays_out(full: Repo) -> None:
    inside(full).git("config", "submodule.deep/nested.active", "false")
    tree, made = aside(full)
    assert made["submodules"]["ready"] == [LIB]
    assert states(tree) == [(" ", LIB), ("-", NESTED)]
    full.git("config", "submodule.the/lib.update", "none")
    assert "submodules" not in aside(full)[1]
    full.git("config", "--unset", "submodule.the/lib.update")
    off = Repo(full.top, {**full.env, "OPENCODE_TASKS_WORKSPACE_SUBMODULES": "off"})
    assert "submodules" not in aside(off)[1]


def test_what_is_not_on_this_disk_is_named_with_what_would_fetch_it(full: Repo) -> None:
    inside(full).commit("not kept")
    full.commit("newer")
    newer = inside(full).git("rev-parse", "HEAD").out.strip()
    inside(full).git("checkout", "-q", "HEAD~1")
    objects = full.common / "modules" / "the" / "lib" / "objects"
    (objects / newer[:2] / newer[2:]).unlink()
    tree, made = aside(full)
    (found,) = [f for f in made["submodules"]["found"] if f["kind"] == "absent"]
    assert (found["path"], found["message"]) == (LIB, f"commit {newer[:9]} is not on this disk")
    assert found["hint"] == f"to fetch it: git -C {tree.top} submodule update --init -- {LIB}"
    forget(full)
    tree, made = aside(full)
    assert [(f["path"], f["kind"]) for f in made["submodules"]["found"]] == [(LIB, "missing")]
    full.git("config", "submodule.the/lib.active", "true")
    said = full.tasks("create-task", "another", "--worktree").out
    assert f"submodule {LIB}: its repository is not on this disk; to fetch it: git -C " in said
    assert list((tree.top / LIB).iterdir()) == []


def test_a_checkout_that_brings_a_submodule_checks_it_out(full: Repo) -> None:
    full.git("branch", "task/with")
    full.git("rm", "-q", "--force", LIB)
    full.commit("without")
    assert not (full.top / LIB).exists()
    said = full.git("checkout", "-q", "task/with").err
    assert f"opencode-tasks: 2 submodules checked out from this disk: {LIB}, {NESTED}" in said
    assert states(full) == [(" ", LIB), (" ", NESTED)]
    assert "submodule" not in full.git("checkout", "-q", "-b", "task/again").err
    hand = Repo(full.top.parent / "by hand", full.env)
    assert "2 submodules" in full.git("worktree", "add", "-q", "-b", "task/hand", str(hand.top)).err
    assert states(hand) == [(" ", LIB), (" ", NESTED)]


CONFLICTS: dict[str, Callable[[Repo], object]] = {
    "dirty": lambda full: inside(full).write("new", "x\n"),
    "adrift": lambda full: (inside(full).git("checkout", "-q", "--detach"), inside(full).commit("on no branch")),
    "elsewhere": lambda full: (inside(full).git("checkout", "-q", "-B", "main"), inside(full).commit("on a branch")),
    "moved": lambda full: full.commit(
        "moved",
        **{".gitmodules": (full.top / ".gitmodules").read_text().replace("origins/lib", "origins/elsewhere")},
    ),
    "missing": lambda full: full.git("submodule", "--quiet", "deinit", "--force", LIB),
    "inside": lambda full: full.git(
        "clone", "-q", "--bare", str(full.common / "modules" / "the" / "lib"), f"{LIB}/.git"
    ),
}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_conflicts_have_a_sentence_and_a_next_step(full: Repo, kind: str) -> None:
    assert kinds(full) == []
    if kind == "inside":
        (full.top / LIB / ".git").unlink()
    CONFLICTS[kind](full)
    (found,) = submodule_conflicts.found(discovery.find(full.top, {}))
    assert (found.path, found.kind) == (LIB, kind)
    assert found.message
    assert "git -C " in found.hint


def test_conflicts_are_told_before_the_task_and_by_doctor(full: Repo) -> None:
    def check() -> dict[str, Any]:
        checks = full.tasks("doctor", "--json", check=False).json["checks"]
        return next(c for c in checks if c["name"] == "submodules")

    CONFLICTS["dirty"](full)
    assert (check()["ok"], check()["detail"].startswith(f"{LIB}: 1 changed")) == (True, True)
    CONFLICTS["adrift"](full)
    assert (check()["ok"], check()["fix"].endswith("switch --create NAME")) == (False, True)
    said = full.tasks("create-task", "starts all the same").out
    assert f"submodule {LIB}: 1 commit on no branch, and not what " in said


def test_a_start_that_would_lose_commits_is_refused(full: Repo) -> None:
    older = full.git("rev-parse", "HEAD").out.strip()
    CONFLICTS["adrift"](full)
    full.commit("records it")
    commit = inside(full).commit("this one is recorded nowhere")
    full.git("config", "submodule.recurse", "true")
    done = full.tasks("create-task", "back", "--from", older, "--json", check=False)
    assert done.json["error"]["code"] == "submodules"
    assert "switch --create NAME" in done.json["error"]["hint"]
    assert full.ids() == []
    inside(full).git("switch", "-q", "--create", "kept")
    full.tasks("create-task", "back", "--from", older)
    assert inside(full).git("rev-parse", "kept").out.strip() == commit


@pytest.mark.parametrize(
    ("base", "url", "whole"),
    [
        ("https://example.com/group/super.git", "../lib.git", "https://example.com/group/lib.git"),
        ("git@example.com:group/super", "../../other/lib", "git@example.com:other/lib"),
        ("git@example.com:super", "../lib", "git@example.com:lib"),
        ("/srv/super/", "./lib", "/srv/super/lib"),
    ],
)
def test_relative_addresses(full: Repo, base: str, url: str, whole: str) -> None:
    full.git("config", "remote.origin.url", base)
    full.git("config", "submodule.the/lib.url", whole)
    full.git("config", "--file", ".gitmodules", "submodule.the/lib.url", url)
    full.git("add", ".gitmodules")
    assert kinds(full) == []
    full.git("config", "submodule.the/lib.url", f"{whole}2")
    assert kinds(full) == [(LIB, "moved")]


def test_a_token_is_no_other_address(full: Repo) -> None:
    full.git("config", "submodule.the/lib.url", "https://me:token@example.com/lib")
    full.git("config", "--file", ".gitmodules", "submodule.the/lib.url", "https://example.com/lib.git")
    full.git("add", ".gitmodules")
    assert kinds(full) == []


def test_killed_anywhere_the_next_one_finishes_it(full: Repo) -> None:
    full.git("worktree", "add", "-q", "--detach", str(full.top.parent / "tree"))
    tree = Repo(full.top.parent / "tree", full.env)
    real, steps, killed = submodule_trees._git, 0, True
    while killed:
        child = os.fork()
        if child == 0:
            left = steps

            def dies(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)

            submodule_trees._git = dies
            submodule_trees.prepare(discovery.find(tree.top, {}))
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        submodule_trees.prepare(discovery.find(tree.top, {}))
        assert states(tree) == [(" ", LIB), (" ", NESTED)]
        assert tree.git("status", "--porcelain", "--ignore-submodules=none").out == ""
        submodule_trees.take_away(discovery.find(tree.top, {}))
        assert states(tree) == [("-", LIB)]
        steps += 2
    assert steps > 8


def test_interrupted_while_a_submodule_is_checked_out_nothing_stays(full: Repo, isolated: Path) -> None:
    begun = full.top.parent / "begun"
    with (isolated / ".gitconfig").open("a") as config:
        config.write(
            f'[filter "slow"]\n\tsmudge = "touch {begun}; sleep 30; cat"\n[core]\n\tattributesFile = ~/attributes\n'
        )
    (isolated / "attributes").write_text("nested.txt filter=slow\n")
    env = {**os.environ, **full.env}
    process = subprocess.Popen(
        ["opencode-tasks", "create-task", "slow", "--worktree"], cwd=full.top, env=env, stderr=subprocess.PIPE
    )
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert process.stderr is not None
    process.stderr.close()
    assert full.git("worktree", "list", "--porcelain").out.count("worktree ") == 1
    assert full.ids() == []
    assert full.git("branch", "--list", "task/*").out == ""
    assert not (full.top.parent / "full.worktrees").exists()
