"""Restoring is exact, and loses nothing that no checkpoint holds."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store.locks import locked
from tests.checkpoints.workspace import Contents, Work, digest_of_git, ignored


def as_file(path: Path) -> None:
    path.write_bytes(b"a file\n")


def as_executable(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o755)


def as_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "one").write_bytes(b"1\n")
    (path / "deep" / "two").write_bytes(b"2\n")


def as_link_to_folder(path: Path) -> None:
    path.symlink_to("somewhere")


def as_dangling_link(path: Path) -> None:
    path.symlink_to("no/such")


def as_nothing(path: Path) -> None:
    assert not path.exists()


KINDS = (as_file, as_executable, as_folder, as_link_to_folder, as_dangling_link, as_nothing)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_everything_can_become_everything_else_and_back(work: Work) -> None:
    """Every pair of kinds, each at its own path, in one restore and its undo."""
    work.write("somewhere/inside", b"must stay\n")
    pairs = [(a, b, f"{a.__name__}-{b.__name__}") for a in KINDS for b in KINDS]
    for first, _, name in pairs:
        first(work.top / name)
    before = work.contents()
    one = work.take()
    for _, second, name in pairs:
        remove(work.top / name)
        second(work.top / name)
    changed = work.contents()
    undo, _ = work.back(one)
    assert work.contents() == before
    work.back(undo)
    assert work.contents() == changed


def test_empty_directories_left_by_a_restore_are_removed(work: Work) -> None:
    one = work.take()
    work.write("a/b/c/file")
    work.back(one)
    assert not (work.top / "a").exists()


def test_the_dry_run_changes_nothing_and_says_what_restoring_does(work: Work) -> None:
    work.write("changed", b"1\n")
    work.write("deleted", b"1\n")
    work.take()
    work.write("changed", b"2\n")
    (work.top / "deleted").unlink()
    work.write("added")
    work.write(".gitignore", b"hidden\n")
    before, git = work.contents(), digest_of_git(work.repo)
    ours = sorted((p, p.stat().st_mtime_ns) for p in work.store.layout.store.rglob("*") if p.is_file())
    refs = work.repo.git("--git-dir", str(work.store.layout.checkpoints_git), "for-each-ref").out
    shown = work.repo.tasks("restore-checkpoint", "c1", "--dry-run", "--json").json
    assert (work.contents(), digest_of_git(work.repo)) == (before, git)
    assert sorted((p, p.stat().st_mtime_ns) for p in work.store.layout.store.rglob("*") if p.is_file()) == ours
    assert work.repo.git("--git-dir", str(work.store.layout.checkpoints_git), "for-each-ref").out == refs
    counted = {"added": 1, "changed": 1, "deleted": 2, "collisions": [], "container": None}
    assert shown == {"restored": None, "undo": None, **counted}
    text = work.repo.tasks("restore-checkpoint", "c1", "--dry-run").out
    assert {"  + deleted", "  ~ changed", "  - added", "  - .gitignore"} <= set(text.splitlines())
    done = work.repo.tasks("restore-checkpoint", "c1", "--json").json
    assert done == shown | {"restored": "c1", "undo": "c2"}


def test_undo_and_undo_of_undo(work: Work) -> None:
    work.write("file", b"1\n")
    one = work.contents()
    work.take()
    work.write("file", b"2\n")
    work.write("new")
    two = work.contents()
    work.repo.tasks("restore-checkpoint", "c1")
    assert work.contents() == one
    work.repo.tasks("restore-checkpoint", "--undo")
    assert work.contents() == two
    work.repo.tasks("restore-checkpoint", "--undo")
    assert work.contents() == one


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        ([], 2, "usage"),
        (["c1", "--undo"], 2, "usage"),
        (["--undo"], 1, "no_checkpoint"),
        (["latest"], 1, "no_checkpoint"),
    ],
)
def test_bad_calls(work: Work, argv: list[str], code: int, error: str) -> None:
    before = work.contents()
    ran = work.repo.tasks("restore-checkpoint", *argv, "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (code, error)
    assert work.contents() == before


def test_what_was_committed_meanwhile_stays_committed(work: Work) -> None:
    work.write("file", b"1\n")
    work.take()
    tip = work.repo.commit("later", file="2\n")
    ran = work.repo.tasks("restore-checkpoint", "c1")
    assert "HEAD is at another commit" in ran.out
    assert work.repo.git("rev-parse", "HEAD").out.strip() == tip
    assert work.repo.git("status", "--short").out == " M file\n"


# Ignored files


def test_an_ignored_file_is_untouched_whichever_gitignore_is_restored(work: Work) -> None:
    work.write(".gitignore", b"*.log\n")
    work.write("kept.log", b"1\n")
    one = work.take()
    work.write(".gitignore", b"")
    two = work.take()
    assert work.contents()[b"kept.log"][1] == b"1\n"
    work.back(one)
    work.back(two)
    assert (work.top / "kept.log").read_bytes() == b"1\n"


def test_what_the_checkpoint_ignored_is_not_deleted_though_its_rules_were_gone(work: Work) -> None:
    """Or deleting .gitignore and restoring it would delete what was built, and undo what it never made."""
    work.write(".gitignore", b"/build/\n:colon\n")
    work.write("build/out", b"built\n")
    work.write(":colon", b"built\n")
    one, before = work.take(), work.contents()
    (work.top / ".gitignore").unlink()
    work.write("new")
    between = work.contents()
    undo, plan = work.back(one)
    assert (sorted(plan.left), plan.deleted) == ([":colon", "build/out"], ("new",))
    assert work.contents() == before
    work.back(undo)
    assert work.contents() == between


def test_an_ignored_file_in_the_way_is_named_and_kept_by_the_undo(work: Work) -> None:
    work.write("out", b"a file\n")
    work.write("folder/x", b"in a folder\n")
    one = work.take()
    (work.top / "out").unlink()
    shutil.rmtree(work.top / "folder")
    work.write(".gitignore", b"/out\n/folder\n")
    work.write("out/precious", b"precious\n")
    work.write("out/deep/two", b"precious too\n")
    work.write("folder", b"precious file\n")
    before = work.contents()
    assert sorted(work.preview(one).collisions) == ["folder", "out/deep/two", "out/precious"]
    assert work.contents() == before
    undo, plan = work.back(one)
    assert sorted(plan.collisions) == ["folder", "out/deep/two", "out/precious"]
    assert (work.top / "out").read_bytes() == b"a file\n"
    assert (work.top / "folder" / "x").read_bytes() == b"in a folder\n"
    work.back(undo)
    assert work.contents() == before


@pytest.mark.parametrize("obstacle", ["pipe", "repository"])
def test_what_no_checkpoint_can_hold_is_not_overwritten(work: Work, obstacle: str) -> None:
    work.write("here", b"a file\n")
    one = work.take()
    (work.top / "here").unlink()
    work.take()
    if obstacle == "pipe":
        os.mkfifo(work.top / "here")
    else:
        work.repo.git("init", "--quiet", "here")
        work.write("here/precious", b"precious\n")
    before = work.contents()
    with pytest.raises(TaskError) as caught:
        work.back(one)
    assert caught.value.code == "collision"
    assert "move it" in caught.value.hint
    assert work.contents() == before


def test_a_link_swapped_in_for_a_folder_is_not_written_through(work: Work) -> None:
    work.write("folder/file", b"one\n")
    work.write("folder/other", b"one\n")
    one = work.take()
    outside = work.top.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"the host's\n")
    shutil.rmtree(work.top / "folder")
    (work.top / "folder").symlink_to(outside)
    undo, _ = work.back(one)
    assert [p.name for p in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"the host's\n"
    assert not (work.top / "folder").is_symlink()
    assert (work.top / "folder" / "file").read_bytes() == b"one\n"
    work.back(undo)
    assert (work.top / "folder").readlink() == outside
    assert (outside / "file").read_bytes() == b"the host's\n"


# Somebody else writes while we restore


def edit(path: Path) -> None:
    path.write_bytes(b"edited meanwhile, and longer\n")


@pytest.mark.parametrize("name", ["changed", "deleted-by-it", "added-by-it"])
def test_an_edit_during_the_restore_is_never_overwritten(work: Work, name: str) -> None:
    """The restore is held where it has looked and not yet written: at the lock of its own record."""
    work.write("changed", b"1\n")
    work.write("added-by-it", b"1\n")
    one = work.take()
    work.write("changed", b"2\n")
    work.write("deleted-by-it", b"2\n")
    (work.top / "added-by-it").unlink()
    before = work.contents()
    failures: list[BaseException] = []

    def back() -> None:
        try:
            work.back(one)
        except ConflictError as e:
            failures.append(e)

    ref = work.store.layout.checkpoints_git / "refs" / "ckpt" / work.repo.only_id() / "2"
    restoring = threading.Thread(target=back)
    with locked(work.store.layout.locks / f"{work.repo.only_id()}.lock"):
        restoring.start()
        deadline = time.monotonic() + 20
        while not ref.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        edit(work.top / name)
    restoring.join(timeout=30)
    assert (work.top / name).read_bytes() == b"edited meanwhile, and longer\n"
    ((error),) = failures
    assert isinstance(error, ConflictError)
    assert "c2" in error.hint
    assert work.contents() == before | {name.encode(): ("file", b"edited meanwhile, and longer\n", False)}
    undo, _ = work.back(one)
    assert work.take().tree == one.tree
    work.back(undo)
    assert (work.top / name).read_bytes() == b"edited meanwhile, and longer\n"


def is_restored(path: Path) -> bool:
    with suppress(FileNotFoundError):  # git removes it before it writes it
        return path.read_bytes().startswith(b"one")
    return False


def test_a_killed_restore_is_finished_by_the_next(work: Work) -> None:
    for n in range(1000):
        work.write(f"many/{n:04}", f"one {n}\n".encode())
    one, first = work.take(), work.contents()
    for n in range(1000):
        work.write(f"many/{n:04}", f"two {n}\n".encode())
    work.write("only-now", b"precious\n")
    second = work.contents()
    killed = subprocess.Popen(
        ["opencode-tasks", "restore-checkpoint", one.id],
        cwd=work.top,
        env={**os.environ, **work.repo.env},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while killed.poll() is None and not is_restored(work.top / "many" / "0000"):
        time.sleep(0.0005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(timeout=10)
    assert work.contents() not in (first, second), "it was not killed in the middle"
    work.back(one)
    assert work.contents() == first
    work.repo.tasks("restore-checkpoint", "c2")
    assert work.contents() == second


def test_a_restore_waits_for_another(work: Work) -> None:
    work.write("file", b"1\n")
    work.take()
    work.write("file", b"2\n")
    work.take()
    racing = [
        subprocess.Popen(
            ["opencode-tasks", "restore-checkpoint", target],
            cwd=work.top,
            env={**os.environ, **work.repo.env},
            stdout=subprocess.DEVNULL,
        )
        for target in ("c1", "c2", "c1", "c2")
    ]
    assert [p.wait(timeout=30) for p in racing] == [0] * 4
    assert (work.top / "file").read_bytes() in (b"1\n", b"2\n")
    assert len([e for e in work.repo.events(work.repo.only_id()) if e["type"] == "checkpoint.restored"]) == 4


# A random walk beside a model that knows nothing of how it is done


NAMES = ["a", "b", "a/x", "a/y", "a/x/z", "b c", "é\n", "c.log", "d.tmp", "logs/one", "logs/two.log"]
RULES = [b"", b"*.log\n", b"*.tmp\n/logs/\n", b"a\n", b"*\n!.gitignore\n!b*\n", b"/b c\n*.log\n!c.log\n"]


def step(work: Work, dice: random.Random) -> None:
    """One edit by somebody who knows nothing of checkpoints."""
    if dice.random() < 0.2:
        remove(work.top / ".gitignore")
        work.write(".gitignore", dice.choice(RULES))
        return
    path = work.top / dice.choice(NAMES)
    for parent in reversed(path.relative_to(work.top).parents):
        if (work.top / parent).is_symlink() or (work.top / parent).is_file():
            remove(work.top / parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    make: Callable[[Path], None] = dice.choice([as_nothing, as_executable, as_dangling_link, as_file, as_file])
    make(path)
    if make is as_file:
        path.write_bytes(dice.randbytes(dice.randrange(12)))


def held(work: Work, before: set[bytes]) -> Contents:
    """What a checkpoint has to hold now: what is not ignored, and what was held and still is there."""
    now = work.contents()
    left_out = ignored(work.repo, set(now)) - before
    return {path: entry for path, entry in now.items() if path not in left_out}


@pytest.mark.parametrize("seed", range(12))
def test_random_walk(work: Work, seed: int) -> None:
    dice = random.Random(seed)
    model: dict[Checkpoint, Contents] = {}
    in_index: set[bytes] = set()
    for _ in range(5):
        for _ in range(dice.randrange(1, 7)):
            step(work, dice)
        if not model or dice.random() < 0.5:
            expected = held(work, in_index)
            made = work.take()
            model[made] = expected
            in_index = set(expected)
            continue
        target, wanted = dice.choice(list(model.items()))
        before = work.contents()
        pre = held(work, in_index)
        undo, plan = work.back(target)
        after = work.contents()
        assert {p: after.get(p) for p in wanted} == wanted
        for path in set(after) - set(wanted):
            assert after[path] == before[path], "neither restored nor untouched"
            assert path not in pre or path in ignored(work.repo, {path}), "should have been deleted"
        for path in set(before) - set(after):
            assert path in pre or os.fsdecode(path) in plan.collisions, "lost"
        again, _ = work.back(undo)
        assert work.contents() == before
        work.back(again)
        assert work.contents() == after
        model |= {undo: pre | {os.fsencode(c): before[os.fsencode(c)] for c in plan.collisions}}
        in_index = set(wanted)
