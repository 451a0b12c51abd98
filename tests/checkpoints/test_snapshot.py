"""Checkpoints hold exactly what is on disk, name what they leave out, and touch nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkpoints.workspace import Contents, Work, contents, digest_of_git, ignored
from tests.conftest import Repo, run

ODD_NAMES = [
    b"two words",
    b"line\nbreak",
    b"tab\there",
    b"quo\"te'",
    b"back\\slash",
    "ünï-日本".encode(),
    b"-dash",
    b"--",
    b"a:b",
    b"*glob?[x]",
    b":(top)magic",
    b":!not",
    b"trailing ",
    b".hidden",
    b"$HOME",
    b"not-utf8-\xff\xfe",
    b"con",
    b"git~1",
    b"dir.git/x",
    b"deep/two words/line\nbreak/-x",
    b"#comment",
    b"!negated",
]


def wipe(top: Path) -> None:
    for path in top.iterdir():
        if path.name in (".git", ".tasks"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def comes_back(work: Work) -> Contents:
    """Take a checkpoint, wipe the workspace, restore: the contents before, which are those after."""
    before = work.contents()
    made = work.take()
    wipe(work.top)
    assert work.contents() != before
    work.back(made)
    assert work.contents() == before
    return before


def test_odd_names(work: Work) -> None:
    for name in ODD_NAMES:
        work.write(name, b"in " + name)
    assert set(ODD_NAMES) <= set(comes_back(work))


def test_bytes_are_not_converted(work: Work) -> None:
    work.repo.git("config", "filter.f.clean", f"touch {work.top.parent}/ran; tr a-z A-Z")
    work.repo.git("config", "filter.f.smudge", f"touch {work.top.parent}/ran; cat")
    work.repo.git("config", "filter.f.required", "true")
    work.repo.git("config", "core.autocrlf", "true")
    attributes = b"""* text=auto eol=crlf
*.id ident
*.f filter=f
*.u16 text working-tree-encoding=UTF-16LE-BOM
"""
    work.write(".gitattributes", attributes)
    work.write("deep/.gitattributes", b"*.f filter=f -text\n* text eol=lf\n")
    (work.repo.common / "info" / "attributes").write_bytes(b"*.own filter=f text eol=crlf\n")
    for folder in ("", "deep/"):
        work.write(f"{folder}mixed.txt", b"one\r\ntwo\nthree\r")
        work.write(f"{folder}keyword.id", b"$Id$ $Id: 1234 $\n")
        work.write(f"{folder}lower.f", b"lower\n")
        work.write(f"{folder}wide.u16", b"not \xff utf-16 at all\n")
        work.write(f"{folder}mine.own", b"a\nb\r\n")
        work.write(f"{folder}binary", bytes(range(256)))
        work.write(f"{folder}empty", b"")
    comes_back(work)
    assert not (work.top.parent / "ran").exists()


def test_executable_bits_and_links(work: Work) -> None:
    work.write("run.sh").chmod(0o755)
    work.write("plain").chmod(0o644)
    for name, target in {
        "to-file": "plain",
        "dangling": "no/such file",
        "outside": "/etc/hostname",
        "up": "../..",
        "to-dir": "folder",
        "loop": "loop",
    }.items():
        (work.top / name).symlink_to(target)
    work.write("folder/inside")
    found = comes_back(work)
    assert found[b"run.sh"][2] is True
    assert found[b"plain"][2] is False
    assert found[b"outside"] == ("link", b"/etc/hostname", False)


def test_ignored_files_are_left_out(work: Work, isolated: Path) -> None:
    work.write(".gitignore", b"*.log\n/build/\n!keep.log\n")
    with (work.repo.common / "info" / "exclude").open("a") as f:
        f.write("*.own\n")
    (isolated / "excludes").write_text("*.global\n")
    work.repo.git("config", "--global", "core.excludesFile", str(isolated / "excludes"))
    for name in ("a.log", "keep.log", "build/x", "x.own", "x.global", "plain"):
        work.write(name)
    before = work.contents()
    left_out = ignored(work.repo, set(before))
    assert left_out == {b"a.log", b"build/x", b"x.own", b"x.global"}
    made = work.take()
    for path in set(before) - left_out - {b".gitignore"}:
        (work.top / os.fsdecode(path)).unlink()
    for path in left_out:
        (work.top / os.fsdecode(path)).write_text("later\n")
    work.back(made)
    after = work.contents()
    assert {p: after[p] for p in set(before) - left_out} == {p: before[p] for p in set(before) - left_out}
    assert all(after[p][1] == b"later\n" for p in left_out)


def test_a_tracked_file_is_kept_though_ignored(work: Work) -> None:
    work.write(".gitignore", b"*.log\n")
    forced = work.write("forced.log", b"one\n")
    work.repo.git("add", "--force", "forced.log")
    made = work.take()
    forced.write_bytes(b"two\n")
    undo, _ = work.back(made)
    assert forced.read_bytes() == b"one\n"
    work.back(undo)
    assert forced.read_bytes() == b"two\n"


def test_taking_and_restoring_touch_nothing_of_the_users_git(work: Work) -> None:
    work.write("staged", b"staged\n")
    work.repo.git("add", "staged")
    work.write("staged", b"changed after staging\n")
    work.write("untracked")
    work.repo.git("stash", "push", "--quiet", "--include-untracked")
    work.repo.git("stash", "apply", "--quiet", "--index")
    before = digest_of_git(work.repo)
    made = work.take()
    work.write("README.md", b"changed\n")
    undo, _ = work.back(made)
    work.preview(undo)
    work.back(undo)
    assert digest_of_git(work.repo) == before


def test_a_checkpoint_is_not_seen_by_git(work: Work) -> None:
    status = work.repo.git("status", "--short", "--ignored").out
    work.take("one")
    assert work.repo.git("status", "--short", "--ignored").out == status
    assert work.repo.git("log", "--all", "--format=%s").out == "settings\nfirst\n"


# What cannot be held is named


def test_repositories_inside_are_kept_as_their_own_roots(work: Work, make_repo: Callable[..., Repo]) -> None:
    library = make_repo("library")
    work.repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.top), "lib")
    for inside in ("nested", "nested/deeper", "odd \n name"):
        work.repo.git("init", "--quiet", inside)
        work.write(f"{inside}/file", b"x\n")
    work.write("nested/.gitignore", b"*.log\n")
    work.write("nested/a.log", b"built\n")
    own = (work.top / "nested" / ".git", work.top / "lib" / ".git", work.top / "nested" / "deeper" / ".git")
    theirs = [sorted(str(p) for p in git.rglob("*")) for git in own]
    before = work.contents()
    made = work.take()
    assert made.skipped == ()
    assert work.take().id == made.id
    (work.top / "nested" / "file").write_bytes(b"later\n")
    (work.top / "nested" / "new").write_bytes(b"new\n")
    (work.top / "nested" / "a.log").write_bytes(b"later\n")
    (work.top / "lib" / "README.md").unlink()
    shutil.rmtree(work.top / "odd \n name")
    work.repo.git("init", "--quiet", "made later")
    work.write("made later/file")
    changed = work.contents()
    undo, plan = work.back(made)
    assert (sorted(plan.added), plan.changed) == (["lib/README.md", "odd \n name/file"], ("nested/file",))
    assert plan.deleted == ("nested/new",)
    later = {path: entry for path, entry in changed.items() if path.startswith(b"made later/")}
    built = {b"nested/a.log": ("file", b"later\n", False)}
    assert without_git(work.contents()) == without_git(before | later | built)
    assert [sorted(str(p) for p in git.rglob("*")) for git in own] == theirs
    work.back(undo)
    assert without_git(work.contents()) == without_git(changed)


def without_git(found: Contents) -> Contents:
    """What the repositories inside keep for themselves is not a checkpoint's."""
    return {path: entry for path, entry in found.items() if b".git" not in path.split(b"/")}


def test_modes_and_empty_folders_come_back(work: Work) -> None:
    work.write("tracked", b"x\n").chmod(0o600)
    work.repo.git("add", "tracked")
    work.write("secret", b"x\n").chmod(0o400)
    work.write("shared.sh", b"x\n").chmod(0o775)
    for folder in ("empty", "deep/er/empty", "with/only/ignored"):
        (work.top / folder).mkdir(parents=True)
    work.write(".gitignore", b"*.log\n")
    work.write("with/only/ignored/a.log")
    paths = ("tracked", "secret", "shared.sh", "empty", "deep/er/empty", "with/only/ignored/a.log")
    made, before = work.take(), looks(work, paths)
    (work.top / "tracked").chmod(0o644)
    (work.top / "secret").unlink()
    (work.top / "shared.sh").chmod(0o700)
    (work.top / "empty").rmdir()
    shutil.rmtree(work.top / "deep")
    (work.top / "new" / "empty").mkdir(parents=True)
    after = looks(work, paths)
    undo, plan = work.back(made)
    assert (plan.added, sorted(plan.changed)) == (("secret",), ["shared.sh", "tracked"])
    assert looks(work, paths) == before
    assert not (work.top / "new").exists()
    work.back(undo)
    assert looks(work, paths) == after
    assert (work.top / "new" / "empty").is_dir()
    assert work.preview(undo).changed == ()


def looks(work: Work, paths: tuple[str, ...]) -> list[int | None]:
    return [(work.top / path).lstat().st_mode if (work.top / path).exists() else None for path in paths]


def test_pipes_and_sockets_are_named(work: Work) -> None:
    os.mkfifo(work.top / "pipe")
    cwd = Path.cwd()
    with socket.socket(socket.AF_UNIX) as s:
        os.chdir(work.top)  # a socket's path has 107 bytes at most
        s.bind("socket")
        os.chdir(cwd)
        os.mkfifo(work.write("new/file").with_name("pipe"))
        made = work.take()
        assert {s.path for s in made.skipped} == {"pipe", "socket", "new/pipe"}
        ran = work.repo.tasks("checkpoint", "--json", "-m", "again")
        assert ran.json["id"] == "c2"
    assert (work.top / "pipe").is_fifo()
    assert (work.top / "socket").is_socket()


def test_a_pipe_in_place_of_a_held_file_is_named(work: Work) -> None:
    work.take()
    (work.top / "README.md").unlink()
    os.mkfifo(work.top / "README.md")
    assert [(s.path, s.reason) for s in work.take("with pipe").skipped] == [
        ("README.md", "not a file: a pipe, socket or device")
    ]


def test_names_that_git_refuses_are_named(work: Work) -> None:
    work.write("sub/.GIT")
    assert [s.path for s in work.take().skipped] == ["sub/.GIT"]


# Only root can become somebody else, and nothing is unreadable to root; our interpreter may lie
# in root's home, therefore everything is imported before.
_AS_SOMEBODY_ELSE = """
import os, sys, getpass
import opencode_tasks.cli, opencode_tasks.commands.checkpoint, opencode_tasks.store.locks
import opencode_tasks.checkpoints.restore
import filelock, difflib, json, tomllib, subprocess, encodings.idna, traceback, rich.console, rich.table
from opencode_tasks import cli
if os.getuid() == 0:
    cli.main(["checkpoint", "--list"])
    os.setgroups([]); os.setgid(1000); os.setuid(1000)
os.environ["HOME"] = os.environ["THEIR_HOME"]
sys.exit(cli.main(["checkpoint", "--json"]))
"""


def test_an_unreadable_file_is_named_and_the_rest_is_held() -> None:
    with tempfile.TemporaryDirectory(prefix="theirs.", dir="/tmp") as folder:
        repo = Repo(Path(folder), {"DOCKER_HOST": f"unix://{folder}/no-engine.sock"})
        repo.git("init", "--quiet")
        repo.commit("first", plain="x\n")
        repo.tasks("init")
        repo.git("checkout", "--quiet", "-b", "task/unreadable")
        repo.write("secret", "x\n").chmod(0o000)
        give(Path(folder), 1000 if os.getuid() == 0 else os.getuid())
        run([sys.executable, "-c", _AS_SOMEBODY_ELSE], cwd=repo.top, env={"THEIR_HOME": folder})
        give(Path(folder), os.getuid())
        (event,) = [e for e in repo.events(repo.only_id()) if e["type"] == "checkpoint.created"]
        assert event["data"]["skipped"] == [{"path": "secret", "reason": "no permission to read it"}]
        shadow = f"--git-dir={repo.common}/opencode-tasks/checkpoints.git"
        assert "plain" in repo.git(shadow, "ls-tree", "-r", "--name-only", event["data"]["tree"]).out.split()


def give(folder: Path, uid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, uid, -1)


# Ids, labels, the command


def test_an_unchanged_workspace_gives_the_last_checkpoint(work: Work) -> None:
    first = work.repo.tasks("checkpoint", "--json").json
    again = work.repo.tasks("checkpoint", "--json").json
    assert (first["id"], again["id"], again["changed"]) == ("c1", "c1", 0)
    work.write("new")
    third = work.repo.tasks("checkpoint", "--json").json
    assert (third["id"], third["changed"]) == ("c2", 1)
    labelled = work.repo.tasks("checkpoint", "-m", "before the change", "--json").json
    assert (labelled["id"], labelled["changed"], labelled["label"]) == ("c3", 0, "before the change")
    assert labelled["kind"] == "manual"
    listed = work.repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    assert [c["id"] for c in listed] == ["c1", "c2", "c3"]
    assert set(listed[0]) == {
        "id",
        "label",
        "kind",
        "created_at",
        "changed",
        "parent",
        "size_bytes",
        "risk",
        "container",
    }
    assert work.task.checkpoints.count == 3


def test_found_by_id_number_label_and_latest(work: Work) -> None:
    for n in (1, 2, 3):
        work.write("file", f"{n}\n".encode())
        work.take("same" if n < 3 else "")
    for text, expected in (("c1", "1\n"), ("2", "2\n"), ("same", "2\n"), ("c3", "3\n")):
        work.repo.tasks("restore-checkpoint", text)
        assert (work.top / "file").read_text() == expected
    newest = work.repo.tasks("checkpoint", "--list", "--json").json["checkpoints"][-1]
    assert work.repo.tasks("restore-checkpoint", "latest", "--json").json["restored"] == newest["id"]


def test_an_unknown_checkpoint_changes_nothing(work: Work) -> None:
    work.take()
    before, events = work.contents(), len(work.repo.events(work.repo.only_id()))
    ran = work.repo.tasks("restore-checkpoint", "c99", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_checkpoint")
    assert "c1" in ran.json["error"]["hint"]
    assert (work.contents(), len(work.repo.events(work.repo.only_id()))) == (before, events)


def test_each_task_has_its_own_numbers_and_files(work: Work) -> None:
    work.write("file", b"of work\n")
    work.repo.commit("work")
    work.take()
    work.repo.git("checkout", "--quiet", "-b", "task/other")
    work.write("file", b"of other\n")
    other = work.repo.tasks("checkpoint", "--json").json
    assert other["id"] == "c1"
    work.repo.git("checkout", "--quiet", "--force", "task/work")
    work.write("file", b"changed\n")
    work.repo.tasks("restore-checkpoint", "c1")
    assert (work.top / "file").read_bytes() == b"of work\n"


def test_another_branchs_files_are_refused(work: Work) -> None:
    work.take()
    work.repo.git("checkout", "--quiet", "main")
    before = work.contents()
    for argv in (["checkpoint", "task/work"], ["restore-checkpoint", "c1", "--task", "task/work"]):
        ran = work.repo.tasks(*argv, "--json", check=False)
        assert (ran.code, ran.json["error"]["code"]) == (1, "conflict")
        assert ran.json["error"]["hint"] == "git checkout task/work"
    assert work.contents() == before
    assert len(work.repo.tasks("checkpoint", "task/work", "--list", "--json").json["checkpoints"]) == 1


def test_a_detached_head_is_no_task(work: Work) -> None:
    work.take()
    work.repo.git("checkout", "--quiet", "--detach")
    for argv in (["checkpoint"], ["restore-checkpoint", "c1"]):
        ran = work.repo.tasks(*argv, "--json", check=False)
        assert (ran.code, ran.json["error"]["code"]) == (1, "no_task")
        assert "git checkout" in ran.json["error"]["hint"]


# Two at once, kills, a full disk


def test_several_at_once_get_a_number_each(work: Work) -> None:
    work.write("file")
    argv = ["opencode-tasks", "checkpoint", "--json", "-m"]
    racing = [
        subprocess.Popen([*argv, str(n)], cwd=work.top, env={**os.environ, **work.repo.env}, stdout=subprocess.PIPE)
        for n in range(4)
    ]
    assert [p.communicate(timeout=30)[0] and p.returncode for p in racing] == [0] * 4
    listed = work.repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    assert [c["id"] for c in listed] == ["c1", "c2", "c3", "c4"]
    assert sorted(c["label"] for c in listed) == ["0", "1", "2", "3"]


def test_a_killed_checkpoint_is_made_good_by_the_next(work: Work) -> None:
    work.write("kept", b"kept\n")
    first = work.take()
    for n in range(400):
        work.write(f"many/{n}", os.urandom(2000))
    for delay_s in (0.15, 0.2, 0.25, 0.3, 0.4):
        killed = subprocess.Popen(
            ["opencode-tasks", "checkpoint"],
            cwd=work.top,
            env={**os.environ, **work.repo.env},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(delay_s)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(timeout=10)
    comes_back(work)
    work.back(first)
    assert not (work.top / "many").exists()


def test_a_power_loss_takes_no_ref_of_what_the_log_names(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.take("one")
    refs = work.store.layout.checkpoints_git / "refs/ckpt" / work.task.id
    synced: list[list[str]] = []
    sync = os.fsync

    def noted(fd: int) -> None:
        sync(fd)
        if os.fstat(fd).st_ino == refs.stat().st_ino:
            synced.append(sorted(path.name for path in refs.iterdir() if path.name.isdigit()))

    monkeypatch.setattr(os, "fsync", noted)
    work.take("two")
    assert synced[-1] == ["1", "2"]


@pytest.fixture
def small_disk(tmp_path: Path, isolated: Path) -> Iterator[Work]:
    """A repository on a file system of 24 MB. Needs root, as the private engine does."""
    mount = tmp_path / "disk"
    mount.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount], cwd=tmp_path)
    try:
        top = mount / "repo"
        top.mkdir()
        repo = Repo(top, {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock"})
        repo.git("init", "--quiet")
        repo.commit("first", **{"README.md": "hello\n"})
        repo.tasks("init")
        repo.git("checkout", "--quiet", "-b", "task/small")
        yield Work(repo)
    finally:
        run(["umount", "--lazy", mount], cwd=tmp_path)


def fill(folder: Path) -> Path:
    path = folder / "ballast"
    with path.open("wb", buffering=0) as f:
        size = 1 << 20
        while size >= 4096:
            try:
                f.write(bytes(size))
            except OSError:
                size //= 2
    return path


def test_a_full_disk_is_said_and_older_checkpoints_stay(small_disk: Work) -> None:
    work = small_disk
    work.write("file", b"one\n")
    first = work.take()
    for n in range(20):
        work.write(f"noise/{n}", os.urandom(100_000))
    ballast = fill(work.top.parent)
    ran = work.repo.tasks("checkpoint", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "disk_full")
    assert "free space" in ran.json["error"]["hint"]
    ran = work.repo.tasks("restore-checkpoint", "c1", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "disk_full")
    assert (work.top / "noise" / "19").stat().st_size == 100_000
    ballast.unlink()
    before = work.contents()
    undo, _ = work.back(first)
    assert (work.top / "file").read_bytes() == b"one\n"
    assert not (work.top / "noise").exists()
    work.back(undo)
    assert contents(work.top) == before


def test_a_mode_changed_in_the_second_of_the_file_is_seen(work: Work) -> None:
    """Git compares whole seconds: for it nothing has changed."""
    for mode in (0o644, 0o640, 0o600, 0o644, 0o660):
        path = work.write("file", b"same\n")
        path.chmod(0o644)
        one = work.take(f"before {mode:o}")
        path.chmod(mode)
        two = work.take(f"after {mode:o}")
        path.chmod(0o666)
        for made, expected in ((two, mode), (one, 0o644), (two, mode)):
            work.back(made)
            assert path.stat().st_mode & 0o777 == expected
