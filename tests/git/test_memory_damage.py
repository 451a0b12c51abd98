"""Damage to a log is mended from history, damage to the history costs no log, and neither stops a command."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.events import CorruptError
from opencode_tasks.git import memory
from opencode_tasks.store import Store
from tests.conftest import Repo, run
from tests.git.conftest import commits, git, kept
from tests.git.test_memory import COMMAND
from tests.store.conftest import ID, create, fill, mounted


def test_a_damaged_log_does_not_replace_the_good_one(store: Store, task: Path) -> None:
    good = kept(store)
    task.write_bytes(task.read_bytes().replace(b'"n":1', b'"n":7'))
    store.layout.plan(ID).write_text("# New\n")
    memory.commit(store, everything=True)
    assert kept(store) == good
    assert git(store, "show", f"main:{ID[-2:]}/{ID}/plan.md") == "# New\n"
    task.write_bytes(b"")
    memory.commit(store, everything=True)
    task.unlink()
    memory.commit(store, everything=True)
    # Sound lines and nothing else are in history, and of those there were, all.
    found = dict(memory.versions(store.layout)(ID))
    assert good.encode() in [content_b for _, content_b in memory.versions(store.layout)(ID)]
    assert set(found) == {task.name}


def test_of_a_newer_version_a_log_is_left_and_the_others_go_on(store: Store, task: Path) -> None:
    good = kept(store)
    task.write_bytes(task.read_bytes() + b'{"v":2,"w":"odd"}\n')
    other = create(store, "other-000000").id
    memory.commit(store, everything=True)
    assert kept(store) == good
    assert other in kept(store, other)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda path: path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7')),
    "the last record": lambda path: path.write_bytes(path.read_bytes()[:-50] + b"x" * 49 + b"\n"),
    "the end": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])),
    "all of it": lambda path: path.write_bytes(b""),
    "the file": lambda path: path.unlink(),
    "the folder": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_the_next_command_mends_a_log(repo: Repo, damage: str) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    task_id = repo.only_id()
    store = Store(repo.common)
    store.record(task_id, ("note.added", {"n": 1}), ("note.added", {"n": 2}), actor="test")
    memory.commit(store)
    (path,) = (repo.store / task_id / "log").iterdir()
    sound_b = path.read_bytes()
    DAMAGES[damage](path)
    damaged_b = path.read_bytes() if path.exists() else None
    shown = repo.tasks("task-history").out.splitlines()
    assert [line.split("\t")[2] for line in shown][-3:] == ["note.added", "note.added", "log.repaired"]
    assert path.read_bytes().startswith(sound_b)
    aside = [p.read_bytes() for p in path.parent.iterdir() if ".corrupt-" in p.name]
    assert aside == ([] if damaged_b is None else [damaged_b])
    document = repo.tasks("task-status", "--json").json
    assert (document["status"], document["degraded"]) == ("running", [])
    assert len(repo.tasks("task-history").out.splitlines()) == len(shown)


def test_a_damaged_sealed_segment_is_mended(store: Store, task: Path) -> None:
    for n in range(4):
        store.record(ID, ("note.added", {"text": f"{n}" * 600_000}), actor="test")
    memory.commit(store)
    packed = min(task.parent.glob("*.gz"))
    sound = [e.h for e in store.history(ID)]
    content_b = packed.read_bytes()
    for damaged_b in (content_b[:100], content_b[:-20] + b"x" * 20, b""):
        packed.with_suffix("").unlink(missing_ok=True)
        packed.write_bytes(damaged_b)
        for path in (store.layout.state(ID), *task.parent.glob("*.snapshot.json")):
            path.unlink()
        fresh = Store(store.layout.common_dir, hot=True, versions=memory.versions(store.layout))
        assert fresh.get(ID).degraded == ()
        assert [e.h for e in fresh.history(ID)][: len(sound)] == sound
        assert damaged_b in [p.read_bytes() for p in task.parent.glob("*.gz.corrupt-*")]


def test_the_newest_version_is_given_however_many_were_longer(store: Store, task: Path) -> None:
    start_b = task.read_bytes()
    for _ in range(5):
        store.record(ID, ("note.added", {"text": "x" * 1000}), actor="test")
        memory.commit(store)
    # A backup was put back, and its log went on.
    task.write_bytes(start_b)
    store.layout.state(ID).unlink()
    Store(store.layout.common_dir, hot=True).record(ID, ("note.added", {"text": "other"}), actor="test")
    memory.commit(store)
    assert task.read_bytes() in [content_b for _, content_b in memory.versions(store.layout)(ID)]


def test_history_that_was_deleted_is_made_anew_with_every_task(store: Store, task: Path) -> None:
    shutil.rmtree(store.layout.memory_git)
    shutil.rmtree(store.layout.feed)
    other = create(store, "other-000000").id
    memory.commit_if_due(store)
    assert kept(store).encode() == task.read_bytes()
    assert other in kept(store, other)
    assert (store.layout.store / ".git").read_text() == "gitdir: ../memory.git\n"


def test_a_feed_that_was_deleted_loses_nothing(store: Store, task: Path) -> None:
    for n in range(20):
        store.record(ID, ("note.added", {"n": n}), actor="test")
    memory.commit(store)
    store.record(ID, ("note.added", {"n": "told by nobody"}), actor="test")
    shutil.rmtree(store.layout.feed)
    create(store, "other-000000")
    memory.commit(store)
    assert "told by nobody" in kept(store)
    store.record(ID, ("note.added", {"n": "after"}), actor="test")
    memory.commit(store)
    assert "after" in kept(store)


def test_garbage_in_the_feed_stops_nothing(store: Store, task: Path) -> None:
    (feed,) = store.layout.feed.iterdir()
    with feed.open("ab") as f:
        f.write(
            b"\0" * 100 + b" 1 x\n../../../evil-000000 1 x\n" + b"x" * 300 + b" 7 \xff\n\n \n" + ID.encode() + b" y z\n"
        )
    store.decide(ID, "One", actor="test")
    memory.commit_if_due(store)
    assert kept(store).encode() == task.read_bytes()
    assert git(store, "ls-tree", "--name-only", "main").split() == [ID[-2:]]


def _no_objects(memory_git: Path) -> None:
    for path in memory_git.glob("objects/??/*"):
        path.unlink()


def _empty_ref(memory_git: Path) -> None:
    (memory_git / "refs" / "heads" / "main").write_bytes(b"")


def _garbage_ref(memory_git: Path) -> None:
    (memory_git / "refs" / "heads" / "main").write_bytes(b"\0" * 41)


def _garbage_config(memory_git: Path) -> None:
    (memory_git / "config").write_bytes(b"\0odd\n[")


@pytest.mark.parametrize("damage", [_no_objects, _empty_ref, _garbage_ref, _garbage_config])
def test_damaged_history_is_set_aside_and_begins_anew(store: Store, task: Path, damage: Callable[[Path], None]) -> None:
    damage(store.layout.memory_git)
    # A log that is damaged, too, is told as what it is.
    task.write_bytes(content_b := task.read_bytes().replace(b'"n":1', b'"n":7'))
    store.layout.state(ID).unlink()
    fresh = Store(store.layout.common_dir, hot=True, versions=memory.versions(store.layout))
    with pytest.raises(CorruptError, match="does not match its hash"):
        fresh.get(ID)
    with pytest.raises(CorruptError, match="does not match its hash"):
        fresh.record(ID, COMMAND, actor="test")
    task.write_bytes(content_b.replace(b'"n":7', b'"n":1'))
    store.decide(ID, "One", actor="test")
    memory.commit_if_due(store)
    assert kept(store).encode() == task.read_bytes()
    (aside,) = store.layout.root.glob("memory.git.corrupt-*")
    assert (aside / "HEAD").exists()


def test_a_git_that_fails_costs_neither_the_command_nor_the_history(repo: Repo, tmp_path: Path) -> None:
    repo.git("checkout", "--quiet", "-b", "task/one")
    real = shutil.which("git")
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "git"
    broken.write_text(f'#!/bin/sh\ncase "$*" in *memory.git*) echo broken >&2; exit 128;; esac\nexec {real} "$@"\n')
    broken.chmod(0o755)
    path = f"{broken.parent}{os.pathsep}{os.environ['PATH']}"
    ran = Repo(repo.top, {**repo.env, "PATH": path}).tasks("task-decisions", "--add", "One")
    assert ran.err == ""
    assert list(repo.store.parent.glob("memory.git*")) == [repo.store.parent / "memory.git"]
    repo.tasks("attach")
    assert "decision.added, lease.taken" in run(["git", "log", "-1", "--format=%s"], cwd=repo.top / ".tasks").out


_WITHOUT_GIT = """
import os, sys
from pathlib import Path
from opencode_tasks.git import memory
from opencode_tasks.store import Store
store = Store(Path(sys.argv[1]), hot=True)
store.decide(sys.argv[2], "One", actor="test")
os.environ["PATH"] = ""
memory.commit_if_due(store)
"""


def test_without_git_it_goes_on(store: Store, task: Path) -> None:
    ran = run([sys.executable, "-c", _WITHOUT_GIT, store.layout.common_dir, ID], cwd=store.layout.root)
    assert ran.err == ""
    assert commits(store) == 1
    assert memory.commit(store)
    assert kept(store).encode() == task.read_bytes()


def test_on_a_full_disk_it_goes_on_and_catches_up(store: Store, task: Path) -> None:
    shutil.rmtree(store.layout.memory_git)
    with mounted(store.layout.memory_git, "512k"):
        memory.commit(store)
        filler = fill(store.layout.memory_git)
        store.decide(ID, "One", actor="test")
        memory.commit_if_due(store)
        store.decide(ID, "Two", actor="test")
        memory.commit_if_due(store)
        assert "Two" in task.read_text()
        filler.unlink()
        store.decide(ID, "Three", actor="test")
        memory.commit_if_due(store)
        assert kept(store).encode() == task.read_bytes()
        assert git(store, "fsck", "--strict") == ""
    assert not list(store.layout.root.glob("memory.git.*"))
