"""`.worktreeinclude`: ignored files that come along into a task's worktree, and what `cleanup-task` makes of them."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from opencode_tasks.git import discovery, included
from opencode_tasks.git.included import bring
from tests.conftest import Ran, Repo, is_ours

LIST = ".worktreeinclude"


@pytest.fixture
def full(repo: Repo) -> Repo:
    """A main checkout with ignored files of several kinds."""
    repo.commit("ignore", **{".gitignore": "*.env\nsecret/\nnode_modules/\n*.log\nlink\n", "src/kept.txt": "x\n"})
    repo.write(".env", "A=1\n").chmod(0o600)
    repo.write("deep/down/b.env", "B=2\n")
    repo.write("secret/key one\n2", "binary\0\n").chmod(0o755)
    repo.write("secret/skip.log", "log\n")
    repo.write("node_modules/x/y.js", "y\n")
    repo.write("untracked", "not ignored\n")
    (repo.top / "secret" / "link").symlink_to("/etc/hostname")
    return repo


def create(repo: Repo, *words: str, check: bool = True) -> Ran:
    return repo.tasks("create-task", "aside", "--worktree", "--json", *words, check=check)


def made(ran: Ran) -> tuple[Path, dict[str, Any]]:
    return Path(ran.json["workspace"]["path"]), ran.json


def files(top: Path) -> set[str]:
    found = {str(p.relative_to(top)) for p in top.rglob("*") if p.is_symlink() or not p.is_dir()}
    return {p for p in found if p.partition("/")[0] not in (".git", ".tasks", ".opencode") and not is_ours(top / p)}


TRACKED = {".gitignore", "README.md", "src/kept.txt"}


def test_what_is_named_and_ignored_comes_along_as_it_is(full: Repo) -> None:
    """Listed by a file that is neither committed nor ignored."""
    full.write(LIST, "# a comment\n*.env\nsecret/*\n!*.log\nuntracked\nREADME.md\n.tasks\n.git\n../\n/etc/passwd\n")
    top, document = made(create(full))
    assert files(top) == TRACKED | {".env", "deep/down/b.env", "secret/key one\n2", "secret/link"}
    assert (top / ".env").read_text() == "A=1\n"
    assert (top / ".env").stat().st_mode & 0o777 == 0o600
    assert (top / "secret" / "key one\n2").stat().st_mode & 0o777 == 0o755
    assert (top / ".env").stat().st_mtime_ns == (full.top / ".env").stat().st_mtime_ns
    assert (top / "secret" / "link").readlink() == Path("/etc/hostname")
    assert document["included"] == {"count": 4, "size_bytes": 16, "left": []}
    (event,) = [e for e in full.events(document["id"]) if e["type"] == "workspace.included"]
    assert event["data"]["count"] == 4
    assert sorted(event["data"]["paths"]) == [".env", "deep/down/b.env", "secret/key one\n2", "secret/link"]
    assert (top / ".tasks").is_symlink()


def test_it_is_said(full: Repo) -> None:
    full.commit("list", **{LIST: "*.env\n"})
    said = full.tasks("create-task", "aside", "--worktree").out
    assert "2 ignored files brought along (8 bytes): .env, deep/down/b.env" in said
    assert "included" not in full.tasks("create-task", "in place", "--json").json


def test_without_a_list_nothing_comes(full: Repo) -> None:
    top, document = made(create(full))
    assert files(top) == TRACKED
    assert "included" not in document


def test_what_the_branch_does_not_ignore_stays_behind(full: Repo) -> None:
    """It would look like new work there, and be committed."""
    full.write(LIST, "*.env\nsecret/\n")
    first = full.git("rev-list", "--max-parents=0", "HEAD").out.strip()
    full.git("branch", "other", first)
    full.git("branch", "some", "main")
    top, document = made(create(full, "--from", "other"))
    assert files(top) == {"README.md"}
    assert document["included"]["count"] == 0
    assert ".env: git does not ignore it in the worktree" in document["included"]["left"]


def test_a_tracked_file_of_the_branch_is_not_overwritten(full: Repo) -> None:
    full.git("checkout", "-q", "-b", "other")
    full.write("deep/down/b.env", "tracked\n")
    full.git("add", "--force", "deep/down/b.env")
    full.git("commit", "-q", "-m", "tracked")
    full.git("checkout", "-q", "main")
    full.write("deep/down/b.env", "ignored\n")
    full.write(LIST, "*.env\n")
    top, document = made(create(full, "--from", "other"))
    assert (top / "deep/down/b.env").read_text() == "tracked\n"
    assert (top / ".env").read_text() == "A=1\n"
    assert document["included"]["count"] == 1


def test_a_link_in_the_branch_is_not_written_through(full: Repo, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    full.git("checkout", "-q", "-b", "other")
    (full.top / "deep").rename(full.top / "before")
    (full.top / "deep").symlink_to(outside)
    full.git("add", "deep")
    full.git("commit", "-q", "-m", "link")
    full.git("checkout", "-q", "-f", "main")
    (full.top / "before").rename(full.top / "deep")
    full.write(LIST, "*.env\n")
    top, document = made(create(full, "--from", "other"))
    assert list(outside.iterdir()) == []
    assert (top / ".env").exists()
    assert any(left.startswith("deep/down/b.env") for left in document["included"]["left"])


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "too long"])
def test_a_list_that_is_no_file_counts_for_nothing(full: Repo, tmp_path: Path, kind: str) -> None:
    path = full.top / LIST
    if kind == "link":
        (tmp_path / "list").write_text("*.env\n")
        path.symlink_to(tmp_path / "list")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("*.env\n" + "#" * 65536)
    top, document = made(create(full))
    assert files(top) == TRACKED
    assert "no ordinary file" in document["included"]["left"][0]


def test_nested_repositories_and_special_files_stay(full: Repo) -> None:
    subprocess.run(["git", "init", "-q", str(full.top / "secret" / "nested")], check=True)
    full.write("secret/nested/inner.env", "x")
    os.mkfifo(full.top / "secret" / "fifo.env")
    full.write(LIST, "*\n")
    top, document = made(create(full))
    assert "secret/nested/inner.env" not in files(top)
    assert "secret/fifo.env" not in files(top)
    assert "node_modules/x/y.js" in files(top)
    assert len(document["included"]["left"]) <= 1


def test_above_the_bound_nothing_comes_and_it_says_why(full: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    full.write(LIST, "*.env\n")
    full.git("worktree", "add", "-q", str(full.top.parent / "new"), "-b", "new", env={"OPENCODE_TASKS_HOOKS": "off"})
    main, new = (discovery.find(top, {}) for top in (full.top, full.top.parent / "new"))
    for name, most in (("MOST_FILES", 1), ("MOST_BYTES", 7)):
        with monkeypatch.context() as patch:
            patch.setattr(included, name, most)
            brought = bring(main, new)
        assert brought.paths == ()
        assert "narrow its patterns" in brought.left[0]
        assert files(new.top) == TRACKED
    assert len(bring(main, new).paths) == 2
    again = bring(main, new)
    assert (again.paths, sorted(again.left)) == ((), [".env: File exists", "deep/down/b.env: File exists"])


def test_a_large_file_and_a_file_with_holes(full: Repo) -> None:
    content_b = os.urandom(5_000_001)
    (full.top / "big.log").write_bytes(content_b)
    with (full.top / "holes.log").open("wb") as f:
        f.truncate(3_000_000)
    full.write(LIST, "*.log\n!secret/\n")
    top, _ = made(create(full))
    assert (top / "big.log").read_bytes() == content_b
    assert (top / "holes.log").read_bytes() == bytes(3_000_000)


def test_interrupted_while_they_are_copied_nothing_is_left(full: Repo) -> None:
    """Many files, and a signal once the first is there."""
    for n in range(3000):
        full.write(f"many/{n}.env", "x" * 2000)
    full.write(LIST, "*.env\n")
    beside = full.top.parent / f"{full.top.name}.worktrees"
    env = {**os.environ, **full.env}
    for number in (signal.SIGINT, signal.SIGTERM):
        for _ in range(10):
            process = subprocess.Popen(
                ["opencode-tasks", "create-task", "aside", "--worktree"],
                cwd=full.top,
                env=env,
                # Whoever runs the tests in the background may have it ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
            )
            deadline = time.monotonic() + 30
            while not list(beside.glob("*/many")):
                assert time.monotonic() < deadline
            process.send_signal(number)
            code = process.wait(timeout=60)
            if code == 130:
                break
            # On a busy machine all were there before we looked.
            full.tasks("cleanup-task", "task/aside", "--discard", "ignored")
        assert code == 130
        assert full.git("branch", "--list", "task/*").out == ""
        assert not beside.exists()
        assert full.git("worktree", "list").out.count("\n") == 1
        assert full.git("for-each-ref", "refs/heads/task").out == ""
    top, _ = made(create(full))
    assert len(list((top / "many").iterdir())) == 3000


def test_a_full_disk_undoes_it_all(full: Repo, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        (full.top / "big.log").write_bytes(os.urandom(2_000_000))
        full.write(LIST, "*.log\n")
        env = {**full.env, "OPENCODE_TASKS_WORKSPACE_WORKTREES": f"{small}/{{id}}"}
        ran = create(Repo(full.top, env), check=False)
        assert (ran.code, ran.json["error"]["code"]) == (1, "disk_full")
        assert full.ids() == []
        assert list(small.iterdir()) == []
        assert full.git("for-each-ref", "refs/heads/task").out == ""
    finally:
        subprocess.run(["umount", small], check=True)


# cleanup-task


@pytest.fixture
def aside(full: Repo) -> tuple[Repo, Repo, str]:
    full.write(LIST, "*.env\nsecret/\n")
    top, document = made(create(full))
    return full, Repo(top, full.env), document["id"]


def test_unchanged_copies_are_nothing_to_lose(aside: tuple[Repo, Repo, str]) -> None:
    repo, work, task_id = aside
    os.utime(work.top / ".env")
    repo.tasks("cleanup-task", task_id)
    assert not work.top.exists()
    assert (repo.top / ".env").read_text() == "A=1\n"
    repo.tasks("cleanup-task", "--undo")
    assert (work.top / "deep/down/b.env").read_text() == (repo.top / "deep/down/b.env").read_text()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("printf 'A=2\\n' > .env", ".env"),
        ("printf 'A=2\\n' > .env; touch -r ../../repo/.env .env", ".env"),
        ("echo more >> deep/down/b.env", "deep/down/b.env"),
        ("ln -sfn /etc/passwd secret/link", "secret/link"),
        ("rm .env; ln -s ../../repo/.env .env", ".env"),
        ("echo new > new.env", "new.env"),
        ("mkdir node_modules; echo built > node_modules/built", "node_modules/built"),
        ("rm -r deep; ln -s ../../repo/deep deep", "deep"),
    ],
)
def test_a_changed_copy_and_a_new_file_are(aside: tuple[Repo, Repo, str], change: str, named: str) -> None:
    repo, work, task_id = aside
    subprocess.run(["sh", "-ec", change], cwd=work.top, check=True)
    found = repo.tasks("cleanup-task", task_id, "--json", check=False).json["error"]
    assert found["code"] == "unsaved_work"
    assert named in found["message"]
    assert work.top.exists()
    others = {".env", "deep/down/b.env", "secret/link", "secret/key one"} - {named}
    assert not any(f" {other}" in found["message"] for other in others)


def test_a_source_that_changed_makes_the_copy_the_only_one(aside: tuple[Repo, Repo, str]) -> None:
    repo, work, task_id = aside
    repo.write(".env", "A=2\n")
    (repo.top / "deep/down/b.env").unlink()
    message = repo.tasks("cleanup-task", task_id, "--json", check=False).json["error"]["message"]
    assert "2 ignored paths: .env, deep/down/b.env" in message
    repo.tasks("cleanup-task", task_id, "--discard-ignored")
    assert not work.top.exists()
