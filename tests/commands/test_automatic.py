"""Checkpoints that are taken by themselves: before commands, and after commits."""

import json
import time
from typing import Any

import pytest

from opencode_tasks.store import Store
from tests.conftest import Repo


@pytest.fixture
def guarded(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "-q", "-b", "task/one")
    return Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CHECKPOINT_AUTOMATIC": "commands"})


def kept(repo: Repo) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    return found


def test_before_what_may_change_something_and_what_was_feared(guarded: Repo) -> None:
    guarded.write("precious", "precious\n")
    guarded.tasks("exec", "--", "cat", "precious")
    assert kept(guarded) == []
    guarded.tasks("exec", "--", "sh", "-c", "echo new > made; rm -rf precious")
    (first,) = kept(guarded)
    assert (first["kind"], first["risk"]) == ("auto", ["rm-recursive"])
    assert not (guarded.top / "precious").exists()
    guarded.tasks("restore-checkpoint", first["id"])
    assert (guarded.top / "precious").read_text() == "precious\n"
    assert not (guarded.top / "made").exists()
    # As if that had been killed: no command sees a half of it.
    guarded.write("precious", "half\n")
    last = kept(guarded)[-1]["id"]
    journal = guarded.common / "opencode-tasks/checkpoints.git/ix" / guarded.only_id() / "restoring.json"
    journal.write_text(json.dumps({"to": first["id"], "undo": last, "only": []}))
    ran = guarded.tasks("exec", "--", "cat", "precious")
    assert (ran.out, ran.err.count("interrupted")) == ("precious\n", 1)
    # Without a risk: not twice within two seconds, and none when nothing has changed.
    before = len(kept(guarded))
    guarded.write("more", "1\n")
    time.sleep(2.1)
    guarded.tasks("exec", "--", "touch", "by-the-first")
    guarded.tasks("exec", "--", "touch", "by-the-second")
    assert len(kept(guarded)) == before + 1
    time.sleep(2.1)
    guarded.tasks("exec", "--", "touch", "by-the-first")
    now = len(kept(guarded))
    assert now == before + 2
    time.sleep(2.1)
    guarded.tasks("exec", "--", "touch", "by-the-first")
    guarded.tasks("exec", "--", "rm", "-r", "-f", "by-the-second")
    assert kept(guarded)[-1]["risk"] == ["rm-recursive"]
    again = len(kept(guarded))
    guarded.tasks("exec", "--", "rm", "-r", "-f", "by-the-second")
    assert len(kept(guarded)) == again + 1
    assert "rm-recursive" in guarded.tasks("checkpoint", "--list").out


def test_as_the_settings_say(guarded: Repo) -> None:
    risky = Repo(guarded.top, {**guarded.env, "OPENCODE_TASKS_CHECKPOINT_AUTOMATIC": "risky"})
    guarded.write("file", "1\n")
    risky.tasks("exec", "--", "touch", "x")
    assert kept(risky) == []
    risky.tasks("exec", "--", "git", "reset", "-q", "--hard")
    assert [c["risk"] for c in kept(risky)] == [["git-reset-hard"]]
    off = Repo(guarded.top, {**guarded.env, "OPENCODE_TASKS_CHECKPOINT_AUTOMATIC": "off"})
    off.write("file", "2\n")
    off.tasks("exec", "--", "rm", "-rf", "file")
    assert len(kept(off)) == 1
    said = risky.tasks("exec", "--", "rm", "-rf", "/usr/local/x").err
    assert "no checkpoint undoes" in said


def test_what_is_known_to_destroy_does_not_run_without_one(guarded: Repo) -> None:
    guarded.write("precious", "precious\n")
    shadow = Store(guarded.common).layout.checkpoints_git
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("no repository\n")
    refused = guarded.tasks("exec", "--json", "--", "rm", "-rf", "precious", check=False)
    assert refused.code == 1
    assert "not started" in refused.json["error"]["message"]
    assert (guarded.top / "precious").exists()
    ran = guarded.tasks("exec", "--", "touch", "made")
    assert "no checkpoint could be taken" in ran.err
    assert (guarded.top / "made").exists()


def test_after_a_commit_in_the_background(repo: Repo) -> None:
    on = {"OPENCODE_TASKS_CHECKPOINT_AUTOMATIC": "commands", "OPENCODE_TASKS_CHECKPOINT_BACKGROUND": "on"}
    repo.git("checkout", "-q", "-b", "task/one")
    repo.write("untracked", "x\n")
    busy = Repo(repo.top, {**repo.env, **on})
    busy.commit("work", file="1\n")
    until = time.monotonic() + 30
    while not kept(busy):
        assert time.monotonic() < until
        time.sleep(0.1)
    (made,) = kept(busy)
    assert made["kind"] == "auto"
    # What was borrowed for it is ours soon.
    borrowed = Store(repo.common).layout.checkpoints_git / "objects" / "info" / "alternates"
    while borrowed.exists():
        assert time.monotonic() < until
        time.sleep(0.1)
