"""What is kept, what goes, and that what is done in the background disturbs nobody."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opencode_tasks.checkpoints import journal, retention, seeding, snapshot, upkeep, verifying
from opencode_tasks.checkpoints.snapshot import Checkpoint, Kind
from opencode_tasks.git import discovery
from opencode_tasks.store.locks import LockTimeout, locked
from tests.checkpoints.workspace import Work
from tests.conftest import run

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def made(number: int, ago: timedelta, kind: Kind = "auto", risk: tuple[str, ...] = ()) -> Checkpoint:
    at = (NOW - ago).isoformat().replace("+00:00", "Z")
    return Checkpoint(f"c{number}", kind, "", at, 1, "", "", None, None, 1, risk=risk)


def test_what_goes_by_age_and_kind() -> None:
    minutes = [timedelta(minutes=n) for n in range(30 * 24 * 60, 0, -10)]  # one in ten minutes, for a month
    found = [made(n, ago) for n, ago in enumerate(minutes, 1)]
    found[5] = made(6, minutes[5], "manual")
    found[7] = made(8, minutes[7], risk=("rm-recursive",))
    found[9] = made(10, minutes[9], "pre-restore")
    found[-300] = made(len(found) - 299, minutes[-300], "pre-restore")
    gone = set(retention.superfluous(found, NOW))
    kept = [one for one in found if one.id not in gone]
    assert {"c6", "c8", found[-300].id, found[-1].id} <= {one.id for one in kept}
    assert "c10" in gone
    assert {one.id for one in found[-50:]} <= {one.id for one in kept}
    ages = [NOW - datetime.fromisoformat(one.created_at) for one in kept if one.kind == "auto" and not one.risk]
    assert max(ages) < timedelta(days=14)
    of_a_day = [age for age in ages if timedelta(hours=9) < age < timedelta(days=1)]
    assert len(of_a_day) == 15  # one for each hour, beyond those of the last 50
    of_weeks = [age for age in ages if age > timedelta(days=1, hours=1)]
    assert len(of_weeks) == 13
    assert retention.superfluous(kept, NOW) == []
    assert retention.superfluous([made(1, timedelta(days=99))], NOW) == []


def test_the_older_half_goes_when_it_is_too_much() -> None:
    found = [made(n, timedelta(hours=9 - n), "manual" if n == 2 else "auto") for n in range(1, 8)]
    assert retention.cheapest_loss(found) == ["c1", "c3", "c4"]
    assert retention.cheapest_loss(found[-1:]) == []


def test_what_was_borrowed_becomes_ours_and_what_is_dropped_is_gone(work: Work) -> None:
    checkout = discovery.find(work.top, {})
    work.repo.commit("files", **{f"f{n}": f"{n}\n" for n in range(20)})
    for n in range(60):
        work.write("changing", f"{n}\n".encode())
        snapshot.take(work.store, work.task, kind="auto", label="", actor="test")
    kept = work.take("kept")
    assert seeding.borrowed(work.store.layout.checkpoints_git).exists()
    assert upkeep.is_due(work.store.layout)
    done = upkeep.run(work.store, checkout, budget_b=1 << 40)
    assert done.problems == ()
    assert not seeding.borrowed(work.store.layout.checkpoints_git).exists()
    assert done.dropped == {work.task.id: [f"c{n}" for n in range(1, 11)]}  # of this hour the newest is kept
    assert not upkeep.is_due(work.store.layout)
    before = snapshot.listed(work.store, work.task.id)
    work.write("changing", b"now\n")
    tight = upkeep.run(work.store, checkout, budget_b=1)
    assert [c.id for c in snapshot.listed(work.store, work.task.id)] == [kept.id]
    assert len(tight.dropped[work.task.id]) == len(before) - 1
    assert "wanted" in tight.problems[0]
    refs = run(["git", f"--git-dir={work.store.layout.checkpoints_git}", "for-each-ref"], cwd=work.top).out
    assert len(refs.splitlines()) == 1
    assert verifying.objects(work.store, checkout, work.task.id, [kept]) == []
    assert work.repo.tasks("checkpoint", "--list", "--json").json["checkpoints"][0]["id"] == kept.id
    assert work.repo.tasks("task-history", "--json").json["events"][-1]["type"] == "checkpoint.dropped"
    # Numbers are not given twice.
    assert work.take("next").number == kept.number + 1
    work.back(kept)
    assert (work.top / "changing").read_bytes() == b"59\n"


def test_it_goes_on_beside_checkpoints_and_only_once(work: Work) -> None:
    checkout = discovery.find(work.top, {})
    work.repo.commit("files", **{f"f{n}": f"{n}\n" for n in range(50)})
    taken: list[Checkpoint] = []

    def take_many() -> None:
        for n in range(25):
            work.write(f"new/{n}", f"{n}\n".encode())
            taken.append(work.take(str(n)))

    taking = threading.Thread(target=take_many)
    taking.start()
    while taking.is_alive():
        upkeep.run(work.store, checkout, budget_b=1 << 40)
    taking.join()
    assert len(taken) == 25
    assert verifying.objects(work.store, checkout, work.task.id, taken) == []
    with locked(work.store.layout.lock("checkpoints-upkeep")), pytest.raises(LockTimeout):
        upkeep.run(work.store, checkout, budget_b=1 << 40)
    for one in (taken[0], taken[-1], taken[12]):
        work.back(one)
        assert len(list((work.top / "new").iterdir())) == int(one.label) + 1


def test_killed_anywhere_it_is_made_good(work: Work) -> None:
    """Between the renaming of what is borrowed and its deletion, above all."""
    work.repo.commit("files", one="1\n")
    one = work.take()
    borrowed = seeding.borrowed(work.store.layout.checkpoints_git)
    borrowed.rename(seeding.dropping(work.store.layout.checkpoints_git))
    work.write("one", b"2\n")
    two = work.take()
    assert borrowed.exists()
    work.back(one)
    assert (work.top / "one").read_bytes() == b"1\n"
    for delay_s in (0.1, 0.2, 0.3, 0.4, 0.5):
        argv = [sys.executable, "-m", "opencode_tasks", "checkpoint", "--gc"]
        with subprocess.Popen(argv, cwd=work.top, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(delay_s)
            except subprocess.TimeoutExpired:
                process.kill()
        work.write("one", f"{delay_s}\n".encode())
        work.take()
    assert "take" in work.repo.tasks("checkpoint", "--gc").out
    assert work.repo.tasks("checkpoint", "--verify", "--json").json["problems"] == []
    work.back(two)
    assert (work.top / "one").read_bytes() == b"2\n"


def test_what_nothing_has_is_thrown_away_once_a_week(work: Work) -> None:
    """However often it was looked meanwhile."""
    work.take()
    shadow = work.store.layout.checkpoints_git
    words = ["git", f"--git-dir={shadow}", "hash-object", "-w", str(work.write("nobody's"))]
    name = run(words, cwd=work.top).out.strip()
    unneeded = shadow / "objects" / name[:2] / name[2:]
    long_ago = time.time() - 8 * 86_400
    os.utime(unneeded, (long_ago, long_ago))
    for age_days, is_there in ((None, True), (6, True), (8, False)):
        if age_days is not None:
            then = time.time() - age_days * 86_400
            os.utime(shadow / "packed", (then, then))
        upkeep.run(work.store, discovery.find(work.top, {}), budget_b=1 << 40)
        assert unneeded.exists() == is_there
        if is_there and age_days is not None:
            assert (shadow / "packed").stat().st_mtime == then
    assert (shadow / "packed").stat().st_mtime > then


def test_what_was_only_looked_at_may_be_thrown_away(work: Work) -> None:
    """As upkeep does it, before the next checkpoint or while that is taken."""
    shadow = work.store.layout.checkpoints_git
    git = ["git", f"--git-dir={shadow}"]
    work.repo.git("init", "-q", "nested")

    def grow_old() -> None:
        long_ago = time.time() - 3 * 3600
        for path in (shadow / "objects").glob("??/*"):
            os.utime(path, (long_ago, long_ago))

    def look() -> None:
        assert snapshot.changed_since(work.store, work.task)

    for turn in range(4):
        work.take()
        for name in ("one", "folder/two", "nested/three"):
            work.write(name, f"{turn}\n".encode())
        before = work.contents()
        look()
        if turn == 3:
            work.back(snapshot.named(work.store, work.task, "c1"))
            work.repo.tasks("restore-checkpoint", "latest", "--path", "folder", "--path", "nested")
            before = work.contents()
        grow_old()
        if turn:
            look()
        run([*git, "prune", "--expire=2.hours.ago"], cwd=work.top)
        made = work.take()
        run([*git, "fsck", "--connectivity-only"], cwd=work.top)
        for name in ("one", "folder/two", "nested/three"):
            work.write(name, b"later\n")
        work.back(made)
        assert work.contents() == before


def test_what_a_killed_drop_or_restore_needs(work: Work) -> None:
    for n in range(5):
        work.write("file", f"{n}\n".encode())
        snapshot.take(work.store, work.task, kind="auto", label="", actor="test")
    task_id, checkout = work.task.id, discovery.find(work.top, {})
    refs = work.store.layout.checkpoints_git / "refs/ckpt" / task_id
    # Killed after what is dropped was in the log; and one after its ref was gone, too.
    work.store.record(task_id, ("checkpoint.dropped", {"ids": ["c1", "c2"]}), actor="test")
    (refs / "2").unlink()
    # Killed while it restored: the one that it went to stays, and the one that undoes it.
    work.back(snapshot.named(work.store, work.task, "c4"))
    begun = journal.path(work.store, task_id)
    begun.write_text(json.dumps({"to": "c3", "undo": "c6", "only": []}))
    assert upkeep.run(work.store, checkout, budget_b=1).dropped == {}
    assert {path.name for path in refs.iterdir()} == {"1", "3", "4", "5", "6"}
    begun.unlink()
    work.write("file", b"later\n")
    # And the one that the files come from.
    assert upkeep.run(work.store, checkout, budget_b=1).dropped == {task_id: ["c3", "c5"]}
    assert {path.name for path in refs.iterdir()} == {"4", "6"}
    manifests = work.store.layout.checkpoint(task_id, "c4").parent
    assert {path.name for path in manifests.iterdir()} == {"c4.json", "c6.json"}
    assert work.repo.tasks("checkpoint", "--list", "--json").json["changed_since"] == 1


def test_before_many_changes_one_is_kept(work: Work) -> None:
    def automatic(label: str) -> Checkpoint:
        return snapshot.take(work.store, work.task, kind="auto", label=label, actor="test")[0]

    automatic("first")
    for n in range(snapshot.MANY_FILES + 1):
        work.write(f"many/{n}", b"x\n")
    automatic("many files")
    work.write("one", b"line\n" * (snapshot.MANY_LINES + 1))
    automatic("many lines")
    work.write("one", b"line\n" * snapshot.MANY_LINES)
    automatic("one line")
    found = snapshot.listed(work.store, work.task.id)
    assert [c.risk for c in found] == [("many-changes",), ("many-changes",), (), ()]
    assert "many-changes" in work.repo.tasks("task-history").out
    assert retention.superfluous(found, datetime.now(UTC) + timedelta(days=99)) == []
    tight = upkeep.run(work.store, discovery.find(work.top, {}), budget_b=1)
    assert tight.dropped == {work.task.id: ["c3"]}


def test_six_tasks_at_once(work: Work) -> None:
    """Each in its own worktree, none waits for another's lock, and each gets its own files back."""
    work.repo.commit("files", **{f"f{n}": f"{n}\n" for n in range(30)})
    tops = []
    for n in range(6):
        made = work.repo.tasks("create-task", f"number {n}", "--worktree", "--json").json
        tops.append(Path(made["workspace"]["path"]))

    def at_once(*words: str, beside: tuple[str, ...] = ()) -> None:
        calls = [(words, top) for top in tops] + ([(beside, work.top)] if beside else [])
        argv = [sys.executable, "-m", "opencode_tasks"]
        racing = [subprocess.Popen([*argv, *call], cwd=top, stdout=subprocess.DEVNULL) for call, top in calls]
        assert [process.wait(timeout=60) for process in racing] == [0] * len(racing)

    for turn in range(2):
        for n, top in enumerate(tops):
            (top / "own").write_text(f"{n} {turn}\n")
        at_once("checkpoint", "-m", f"t{turn}")
    at_once("restore-checkpoint", "t0", beside=("checkpoint", "--gc"))
    assert [(top / "own").read_text() for top in tops] == [f"{n} 0\n" for n in range(6)]
