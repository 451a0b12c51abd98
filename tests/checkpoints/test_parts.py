"""Restoring some paths, the memory, and looking at what lies between."""

import json

import pytest

from opencode_tasks.checkpoints import snapshot
from tests.checkpoints.workspace import Work
from tests.conftest import Repo


def test_only_the_paths_that_are_named(work: Work) -> None:
    work.repo.git("init", "-q", "nested")
    for name in ("a", "folder/b", "folder/c", "d/e", "nested/f", "nested/g", ":(top)odd"):
        work.write(name, b"1\n")
    (work.top / "folder" / "empty").mkdir()
    work.write("folder/c").chmod(0o600)
    one, first = work.take("one"), work.contents()
    for name in ("a", "folder/b", "d/e", "nested/f", "nested/g", ":(top)odd"):
        work.write(name, b"2\n")
    (work.top / "folder" / "c").unlink()
    (work.top / "folder" / "empty").rmdir()
    work.write("folder/new", b"2\n")
    second = work.contents()
    ran = work.repo.tasks("restore-checkpoint", one.id, "--path", "folder", "--path", "nested/f", "--json").json
    assert (ran["added"], ran["changed"], ran["deleted"]) == (1, 2, 1)
    now = work.contents()
    chosen = {path for path in {*first, *second} if path.startswith(b"folder/") or path == b"nested/f"}
    assert {path: now.get(path) for path in chosen} == {path: first.get(path) for path in chosen}
    assert {path: now.get(path) for path in {*now, *second} - chosen} == {
        path: second.get(path) for path in {*now, *second} - chosen
    }
    assert (work.top / "folder" / "empty").is_dir()
    assert (work.top / "folder" / "c").stat().st_mode & 0o777 == 0o600
    work.repo.tasks("restore-checkpoint", ran["undo"], "--path", ":(top)odd", "--path", "d")
    assert (work.top / "d" / "e").read_bytes() == b"2\n"
    work.repo.tasks("restore-checkpoint", "--undo")
    work.repo.tasks("restore-checkpoint", ran["undo"])
    assert work.contents() == second
    # A file where a folder was.
    (work.top / "a").unlink()
    work.write("a/b/c", b"3\n")
    work.repo.tasks("restore-checkpoint", "one", "--path", "a")
    assert (work.top / "a").read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("path", "code"), [("no/such", "no_file"), ("../outside", "usage"), (".git/config", "usage"), (".", "usage")]
)
def test_paths_that_nothing_can_be_done_with(work: Work, path: str, code: str) -> None:
    work.take("one")
    before = work.contents()
    ran = work.repo.tasks("restore-checkpoint", "one", "--path", path, "--json", check=False)
    assert ran.json["error"]["code"] == code
    assert work.contents() == before


def test_the_memory_comes_back_and_the_files_stay(work: Work) -> None:
    folder = work.store.layout.task(work.task.id)
    work.repo.tasks("task-decisions", "--add", "Parse by hand", "--because", "no dependency")
    plan = folder / "plan.md"
    plan.write_text(plan.read_text() + "- [ ] write the parser\n")
    before = plan.read_text()
    one = work.take("one")
    assert work.take().id == one.id
    work.repo.tasks("task-decisions", "--add", "Use a library after all")
    plan.write_text("# all gone\n")
    work.write("file", b"later\n")
    later = [d["text"] for d in work.repo.tasks("task-decisions", "--json").json["decisions"]]
    ran = work.repo.tasks("restore-checkpoint", "one", "--memory-only", "--json").json
    assert ran["memory"] == ["plan.md", "decisions.md"]
    assert plan.read_text() == before
    assert [d["text"] for d in work.repo.tasks("task-decisions", "--json").json["decisions"]] == ["Parse by hand"]
    assert (work.top / "file").read_bytes() == b"later\n"
    work.repo.tasks("restore-checkpoint", "--undo")
    assert plan.read_text() == "# all gone\n"
    texts = [d["text"] for d in work.repo.tasks("task-decisions", "--json").json["decisions"]]
    assert [text.splitlines()[0].strip("# ") for text in texts] == [text.splitlines()[0].strip("# ") for text in later]


def test_documents_that_were_thrown_away_meanwhile_are_kept_again(work: Work) -> None:
    work.take("one")
    known = next(work.store.layout.checkpoints_git.glob("ix/*/known.json"))
    said = json.loads(known.read_text())
    said["memory"]["commit"] = "0123456789" * 4
    known.write_text(json.dumps(said))
    work.write("file", b"x\n")
    work.take("two")
    plan = work.store.layout.task(work.task.id) / "plan.md"
    before = plan.read_text()
    plan.write_text("later\n")
    work.repo.tasks("restore-checkpoint", "two", "--memory-only")
    assert plan.read_text() == before


def test_ignored_files_that_are_wanted_are_in_every_kind(work: Work) -> None:
    repo = Repo(work.top, {**work.repo.env, "OPENCODE_TASKS_CHECKPOINT_IGNORED": "data/*.db"})
    work.write(".gitignore", b"/data/\n")
    calls = [
        ["checkpoint"],
        ["restore-checkpoint", "c1", "--memory-only"],
        ["restore-checkpoint", "c1"],
        ["complete-task"],
    ]
    for n, words in enumerate(calls, 1):
        work.write(f"data/{n}.db", b"x\n")
        if n > 1:
            assert repo.tasks("checkpoint", "--list", "--json").json["changed_since"]
        repo.tasks(*words)
        last = snapshot.listed(work.store, repo.only_id())[-1]
        shadow = f"--git-dir={work.store.layout.checkpoints_git}"
        assert f"data/{n}.db" in repo.git(shadow, "ls-tree", "-r", "--name-only", last.tree).out.split(), words


def test_the_difference_of_any_two_and_of_now(work: Work) -> None:
    work.repo.git("init", "-q", "nested")
    work.write("changed", b"one\n")
    work.write("gone", b"x\n")
    work.write("nested/in", b"one\n")
    work.take("one")
    assert work.repo.tasks("diff").out == "Nothing differs.\n"
    work.write("changed", b"\ttwo\n")
    (work.top / "gone").unlink()
    work.write("nested/in", b"two\n")
    (work.top / "empty").mkdir()
    work.write("steers", b"\x1b[31mred\n")
    found = work.repo.tasks("diff", "one", "--json").json
    assert {(f["path"], f["how"]) for f in found["files"]} == {
        *(("changed", "changed"), ("gone", "deleted"), ("nested/in", "changed")),
        *(("empty/", "added"), ("steers", "added")),
    }
    text = work.repo.tasks("diff", "one").out
    assert "+\ttwo\n" in text
    assert "b/nested/in" in text
    assert "\x1b" not in text
    work.take("two")
    assert work.repo.tasks("diff", "one", "two", "--json").json["files"] == found["files"]
    back = work.repo.tasks("diff", "two", "one", "--json").json["files"]
    assert {(f["path"], f["how"]) for f in back} >= {("gone", "added"), ("steers", "deleted")}
    assert "changed" in work.repo.tasks("diff", "one", "two", "--stat").out
    # Of two, the files need not be there.
    work.repo.git("checkout", "-q", "main")
    assert work.repo.tasks("diff", "one", "two", "--task", "task/work", "--json").json["files"] == found["files"]
    refused = work.repo.tasks("diff", "one", "--task", "task/work", "--json", check=False)
    assert refused.json["error"]["code"] == "conflict"


def test_the_list_is_a_tree_that_says_where_the_files_are(work: Work) -> None:
    for name in ("one", "two", "three"):
        work.write("file", name.encode())
        work.take(name)
    work.repo.tasks("restore-checkpoint", "one")
    work.write("file", b"another way\n")
    work.take("four")
    work.write("file", b"and on\n")
    shown = work.repo.tasks("checkpoint", "--list").out.splitlines()
    assert [line.split()[0] for line in shown] == ["c1", "c2", "c3", "c4", "c5"]
    assert [len(line) - len(line.lstrip()) for line in shown] == [0, 2, 2, 2, 0]
    assert shown[-1].endswith("← the files now, 1 changed since")
    listed = work.repo.tasks("checkpoint", "--list", "--json").json
    assert [c["parent"] for c in listed["checkpoints"]] == [None, "c1", "c2", "c3", "c1"]
    assert listed["changed_since"] == 1


def test_a_restore_that_was_killed_is_told_and_finished(work: Work) -> None:
    work.write("file", b"1\n")
    one = work.take("one")
    work.write("file", b"2\n")
    undo, _ = work.back(one)
    journal = work.store.layout.checkpoints_git / "ix" / work.task.id / "restoring.json"
    journal.write_text(json.dumps({"to": "c1", "undo": undo.id, "only": []}))
    work.write("file", b"half\n")
    killed = journal.read_text()
    work.repo.tasks("reconcile", check=False)  # there is no engine for the rest of it
    assert (work.top / "file").read_bytes() == b"1\n"
    assert not journal.exists()
    journal.write_text(killed)
    work.write("file", b"half\n")
    ran = work.repo.tasks("checkpoint")
    assert (work.top / "file").read_bytes() == b"1\n"
    assert "c1" in ran.err
    labels = [c["label"] for c in work.repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]]
    assert "found half restored to c1" in labels
    assert not journal.exists()
    work.repo.tasks("restore-checkpoint", "found half restored to c1")
    assert (work.top / "file").read_bytes() == b"half\n"
