"""`init` and `uninstall`: idempotent and inverse, to the byte, beside whatever else lives in a repository."""

import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.conftest import Repo, run

MakeRepo = Callable[..., Repo]
Tree = dict[str, tuple[int, bytes]]


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


def tree(top: Path, *, without: Iterable[str] = ()) -> Tree:
    """Every path below `top` to its mode and bytes; a link's bytes are where it points."""
    found: Tree = {}
    for folder, names, files in os.walk(top):
        here = Path(folder)
        names[:] = [n for n in names if str((here / n).relative_to(top)) not in without]
        for name in (*names, *files):
            path = here / name
            content = os.fsencode(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(top))] = (path.lstat().st_mode, content)
    return found


def installed_parts(repo: Repo) -> Tree:
    """What `uninstall` must leave as it was: configuration, hooks, excludes and the work tree."""
    everything = tree(repo.top)
    moving = (".git/objects", ".git/logs", ".git/refs", ".git/opencode-tasks", ".git/index", ".git/worktrees")
    names = ("HEAD", "COMMIT_EDITMSG", "ORIG_HEAD")
    return {
        name: value
        for name, value in everything.items()
        if not name.startswith(moving) and name not in [f".git/{n}" for n in names]
    }


def works(repo: Repo, branch: str = "task/probe") -> str:
    """A task from a checkout, with its trailer; the id."""
    before = set(repo.ids())
    repo.git("checkout", "-q", "-b", branch)
    (made,) = set(repo.ids()) - before
    repo.git("commit", "-q", "--allow-empty", "-m", "probe")
    assert repo.git("log", "-1", "--format=%(trailers:key=Task-Id,valueonly)").out.strip() == made
    repo.git("checkout", "-q", "main")
    return made


def test_again_changes_not_one_byte(make_repo: MakeRepo) -> None:
    repo = make_repo()
    first = repo.tasks("init", "--json").json
    assert first["changed"]
    works(repo)
    before = tree(repo.top)
    assert repo.tasks("init", "--json").json["changed"] == []
    assert "Nothing to do" in repo.tasks("init").out
    after = tree(repo.top)
    # Notes about a file are only kept once it is a second old; and who held a lock last is told.
    ours = {n for n in before.keys() | after.keys() if n.endswith((".holder", "/settings.json", "/ties.json"))}
    assert {n: v for n, v in after.items() if n not in ours} == {n: v for n, v in before.items() if n not in ours}


def test_nothing_of_ours_is_staged_or_cleaned_away(make_repo: MakeRepo) -> None:
    repo = make_repo()
    repo.tasks("init")
    assert repo.git("status", "--porcelain", "-uall").out == "?? .opencode/tasks.toml\n"
    repo.git("clean", "-ffdxq")
    works(repo)


@pytest.mark.parametrize(
    ("exclude", "hooks"),
    [
        ("kept", "samples"),
        ("no newline", "foreign"),
        ("no file", "no folder"),
        ("no folder", "foreign"),
        ("ours already", "samples"),
    ],
)
def test_uninstall_is_the_inverse_after_real_work(make_repo: MakeRepo, exclude: str, hooks: str) -> None:
    repo = make_repo()
    git = repo.common
    if exclude == "no newline":
        (git / "info" / "exclude").write_bytes(b"*.o")
    elif exclude == "ours already":
        (git / "info" / "exclude").write_bytes(b"/.tasks\n")
    elif exclude.startswith("no f"):
        (git / "info" / "exclude").unlink()
    if exclude == "no folder":
        (git / "info").rmdir()
    if hooks == "foreign":
        (git / "hooks" / "post-commit").write_text("#!/bin/sh\nexit 0\n")
        (git / "hooks" / "post-commit").chmod(0o755)
        (git / "hooks" / "commit-msg").symlink_to("post-commit")
    elif hooks == "no folder":
        run(["rm", "-r", str(git / "hooks")], cwd=repo.top)
    repo.git("config", "branch.main.description", "the user's own")
    before = installed_parts(repo)
    repo.tasks("init")
    works(repo, "task/one")
    works(repo, "task/two")
    repo.git("branch", "-m", "task/two", "renamed")
    repo.tasks("create-task", "odd", "--branch", "feature/odd")
    repo.tasks("complete-task")
    repo.git("checkout", "-q", "main")
    repo.tasks("uninstall")
    assert installed_parts(repo) == before
    assert len(repo.ids()) == 3
    assert repo.tasks("uninstall").code == 0
    assert installed_parts(repo) == before


def test_memory_is_kept_and_tied_again(repo: Repo) -> None:
    one = works(repo, "task/one")
    two = works(repo, "task/two")
    repo.git("branch", "-m", "task/two", "task/renamed")
    repo.git("checkout", "-q", "task/renamed")
    history = repo.events(one)
    repo.tasks("uninstall")
    assert repo.events(one) == history
    repo.git("checkout", "-q", "main")
    repo.tasks("init")
    assert repo.tasks("task-status", "task/one", "--json").json["id"] == one
    repo.git("checkout", "-q", "task/renamed")
    assert repo.tasks("task-status", "--json").json["id"] == two
    assert len(repo.ids()) == 2


def test_purge_leaves_no_trace(make_repo: MakeRepo) -> None:
    repo = make_repo()
    before = tree(repo.top, without=[".git/objects", ".git/logs"])
    repo.tasks("init")
    repo.tasks("create-task", "x", "--branch", "task/x")
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "task/x")
    assert repo.tasks("uninstall", "--purge", "--json").json["purged"] is True
    after = tree(repo.top, without=[".git/objects", ".git/logs"])
    assert set(after) - set(before) <= {".git/refs/heads/task", ".git/packed-refs"}  # git's own
    assert {n: v for n, v in after.items() if n in before and n != ".git/index"} == {
        n: v for n, v in before.items() if n != ".git/index"
    }


def test_edited_settings_are_kept(repo: Repo) -> None:
    path = repo.top / ".opencode" / "tasks.toml"
    path.write_text(path.read_text() + "# mine\n")
    assert "was edited and is kept" in repo.tasks("uninstall").out
    assert path.read_text().endswith("# mine\n")


def test_settings_that_were_there_stay(make_repo: MakeRepo) -> None:
    repo = make_repo()
    mine = repo.write(".opencode/tasks.toml", '[branch]\nprefix = "work/"\n')
    repo.tasks("init")
    works(repo, "work/one")
    repo.tasks("uninstall")
    assert mine.read_text() == '[branch]\nprefix = "work/"\n'


def test_the_link_of_somebody_else_is_left_alone(make_repo: MakeRepo) -> None:
    repo = make_repo()
    repo.write(".tasks/mine", "x")
    assert "was left alone" in repo.tasks("init").out
    works(repo)
    repo.tasks("uninstall", "--purge")
    assert (repo.top / ".tasks" / "mine").read_text() == "x"


@pytest.mark.parametrize("value", ["hooks-here", "{tmp}/absolute", "{tmp}/with space/hooks"])
def test_a_local_hooks_path(make_repo: MakeRepo, tmp_path: Path, value: str) -> None:
    repo = make_repo()
    value = value.format(tmp=tmp_path)
    repo.git("config", "core.hooksPath", value)
    seen = tmp_path / "seen"
    theirs = repo.top / value / "post-checkout"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"#!/bin/sh\necho ran >>{shlex.quote(str(seen))}\n")
    theirs.chmod(0o755)
    before, outside = installed_parts(repo), tree(theirs.parent)
    repo.tasks("init")
    works(repo)
    assert seen.read_text().count("ran\n") == 2
    repo.tasks("uninstall")
    assert (installed_parts(repo), tree(theirs.parent)) == (before, outside)


def test_a_global_hooks_path_stays_untouched_and_its_hooks_are_called(make_repo: MakeRepo, tmp_path: Path) -> None:
    repo, other = make_repo(), make_repo("other")
    shared, seen = tmp_path / "shared hooks", tmp_path / "seen"
    shared.mkdir()
    for name in ("post-checkout", "pre-commit"):
        (shared / name).write_text(f'#!/bin/sh\n. "${{0%/*}}/library"\nlog {name}\n')
        (shared / name).chmod(0o755)
    (shared / "library").write_text(f"log() {{ echo $1 >>{shlex.quote(str(seen))}; }}\n")
    repo.git("config", "--global", "core.hooksPath", str(shared))
    before, outside = installed_parts(repo), tree(shared)
    repo.tasks("init")
    assert repo.tasks("init", "--json").json["changed"] == []
    assert tree(shared) == outside
    works(repo)
    assert seen.read_text().split() == ["post-checkout", "pre-commit", "post-checkout"]
    other.git("checkout", "-q", "-b", "task/elsewhere")
    assert not (other.common / "opencode-tasks").exists()
    repo.tasks("uninstall")
    assert (installed_parts(repo), tree(shared)) == (before, outside)


def test_hooks_switched_off_are_refused_with_the_way_out(make_repo: MakeRepo) -> None:
    repo = make_repo()
    repo.git("config", "core.hooksPath", "/dev/null")
    before = installed_parts(repo)
    done = repo.tasks("init", "--json", check=False)
    assert (done.code, done.json["error"]["code"]) == (1, "hooks")
    assert "core.hooksPath" in done.json["error"]["hint"]
    assert installed_parts(repo) == before


@pytest.mark.parametrize("from_worktree", [True, False])
def test_a_linked_worktree(make_repo: MakeRepo, tmp_path: Path, from_worktree: bool) -> None:
    repo = make_repo()
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    side = Repo(tmp_path / "side", repo.env)
    before = (installed_parts(repo), tree(side.top))
    (side if from_worktree else repo).tasks("init")
    assert (side.top / ".tasks").resolve() == (repo.top / ".tasks").resolve() == repo.store
    side.git("checkout", "-q", "-b", "task/one")
    assert side.tasks("task-status", "--json").json["workspace"]["path"] == str(side.top)
    assert side.tasks("init", "--json").json["changed"] == [] or from_worktree is False
    side.git("checkout", "-q", "side")
    (repo if from_worktree else side).tasks("uninstall")
    assert (side.top / ".git").is_file()
    assert installed_parts(repo) == before[0]
    assert tree(side.top, without=[".opencode"]) == before[1] or not from_worktree


def test_a_submodule_is_set_up_alone(make_repo: MakeRepo) -> None:
    outer, inner = make_repo("outer"), make_repo("inner")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.top), "sub")
    outer.commit("submodule")
    sub = Repo(outer.top / "sub", outer.env)
    before = tree(outer.top / ".git", without=["objects", "logs", "modules/sub/objects", "modules/sub/logs"])
    sub.tasks("init")
    works(sub)
    assert not (outer.common / "opencode-tasks").exists()
    assert sub.common == outer.top / ".git" / "modules" / "sub"
    assert outer.git("status", "--porcelain", "--ignore-submodules=untracked").out == ""
    sub.git("branch", "-q", "-D", "task/probe")
    sub.tasks("uninstall", "--purge")
    after = tree(outer.top / ".git", without=["objects", "logs", "modules/sub/objects", "modules/sub/logs"])
    names = ("config", "modules/sub/config", "modules/sub/info/exclude", "modules/sub/HEAD")
    assert {n: after[n] for n in names} == {n: before[n] for n in names}
    assert {n for n in after if "/hooks" in n} == {n for n in before if "/hooks" in n}


def test_on_a_task_branch_that_was_there_before(make_repo: MakeRepo) -> None:
    repo = make_repo()
    repo.git("checkout", "-q", "-b", "task/early")
    assert "created for branch task/early" in repo.tasks("init").out
    assert repo.tasks("task-status", "--json").json["status"] == "running"


def test_a_repository_without_commits(make_repo: MakeRepo) -> None:
    repo = make_repo(commits=False)
    before = installed_parts(repo)
    repo.tasks("init")
    repo.tasks("uninstall", "--purge")
    assert installed_parts(repo) == before


def test_wrong_places_change_nothing(tmp_path: Path) -> None:
    run(["git", "init", "-q", "--bare", "bare.git"], cwd=tmp_path)
    (tmp_path / "none").mkdir()
    before = tree(tmp_path)
    for cwd, code in ((tmp_path / "bare.git", "bare_repository"), (tmp_path / "none", "not_a_repository")):
        for command in ("init", "uninstall", "doctor"):
            done = run(["opencode-tasks", command, "--json"], cwd=cwd, check=False)
            assert (done.code, done.json["error"]["code"]) == (1, code)
            assert done.json["error"]["hint"]
    assert tree(tmp_path) == before


def test_what_a_killed_create_left_is_swept(repo: Repo) -> None:
    half = repo.store / ".new-half-000000"
    (half / "log").mkdir(parents=True)
    assert "half-made task .new-half-000000 removed" in repo.tasks("init").out
    assert not half.exists()


PRE_COMMIT = """\
repos:
- repo: local
  hooks:
  - id: seen
    name: seen
    language: system
    entry: {entry}
    always_run: true
    pass_filenames: false
    stages: [pre-commit, commit-msg, post-commit, post-checkout]
"""
STAGES = ("pre-commit", "commit-msg", "post-commit", "post-checkout")


@pytest.fixture
def pre_commit(make_repo: MakeRepo, tmp_path: Path) -> tuple[Repo, Path]:
    """A repository with a pre-commit configuration, and the file in which its hook writes its stage down."""
    repo, seen = make_repo(), tmp_path / "seen"
    script = tmp_path / "stage"
    script.write_text(f"#!/bin/sh\necho ran >>{shlex.quote(str(seen))}\n")
    script.chmod(0o755)
    repo.commit("configured", **{".pre-commit-config.yaml": PRE_COMMIT.format(entry=script)})
    return repo, seen


def theirs(repo: Repo, command: str) -> None:
    run(["pre-commit", command, *(w for stage in STAGES for w in ("-t", stage))], cwd=repo.top, env=repo.env)


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("leaves", ["ours", "theirs"])
def test_pre_commit_in_every_order(pre_commit: tuple[Repo, Path], first: str, leaves: str) -> None:
    repo, seen = pre_commit
    before = installed_parts(repo)
    acts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "ours": (lambda: repo.tasks("init"), lambda: repo.tasks("uninstall")),
        "theirs": (lambda: theirs(repo, "install"), lambda: theirs(repo, "uninstall")),
    }
    second = "theirs" if first == "ours" else "ours"
    acts[first][0]()
    acts[second][0]()
    repo.tasks("init")
    assert all(c["ok"] for c in repo.tasks("doctor", "--json", check=False).json["checks"] if c["name"] == "hooks")
    works(repo)
    # Two checkouts, and one commit with its three stages.
    assert seen.read_text() == "ran\n" * 5
    acts[leaves][1]()
    if leaves == "theirs":
        works(repo, "task/after")
    acts["theirs" if leaves == "ours" else "ours"][1]()
    theirs(repo, "uninstall")
    after = installed_parts(repo)
    assert after == before
