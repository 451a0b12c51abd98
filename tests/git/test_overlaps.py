"""Which tasks changed the same files and lines: real git, tasks of which no hook knows."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.git import branch_changes, discovery, hunks, overlaps, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.overlaps import Found, SharedFile
from opencode_tasks.proc import Completed
from opencode_tasks.store import Store
from opencode_tasks.store.registry import NewTask
from opencode_tasks.task import Base, Workspace, new_id
from tests.conftest import Repo

TEN = "".join(f"line {n}\n" for n in range(1, 11))
Edit = Callable[[Path], object]


class World:
    """A repository without our hooks, and its store."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.store = Store(repo.common)
        self.store.make()
        repo.commit("base", **{"a.py": TEN, "b.py": TEN, "folder/c.py": TEN})

    def task(self, name: str, *edits: Edit, base: str = "main", start: str | None = None) -> str:
        """A task on a branch of its own from `start`, with one commit of the edits."""
        at = self.repo.git("rev-parse", start or base).out.strip()
        new = NewTask(new_id(name), name, f"task/{name}", Base(base, at), Workspace("in-place", str(self.repo.top)))
        self.store.create(new, actor="test")
        self.repo.git("checkout", "-q", "-b", new.branch, at)
        self.repo.git("config", f"branch.{new.branch}.opencodetask", new.id)
        self.edit(name, *edits)
        return new.id

    def edit(self, name: str, *edits: Edit) -> None:
        self.repo.git("checkout", "-q", f"task/{name}")
        for edit in edits:
            edit(self.repo.top)
        self.repo.commit(f"work on {name}")

    def found(self, task_id: str) -> Found:
        return overlaps.find(Store(self.repo.common), self.checkout, task_id)

    def files(self, task_id: str) -> dict[str, str]:
        """Path to kind, of the only task that overlaps."""
        found = self.found(task_id).overlaps
        return {f.path: f.kind for o in found for f in o.files}

    @property
    def checkout(self) -> Checkout:
        return discovery.find(self.repo.top, {})


@pytest.fixture
def world(make_repo: Callable[..., Repo]) -> World:
    return World(make_repo())


def line(number: int, text: str, path: str = "a.py") -> Edit:
    """Line `number` becomes `text`: none, one or several lines."""

    def edit(top: Path) -> None:
        lines = (top / path).read_text().splitlines(keepends=True)
        lines[number - 1] = text
        (top / path).write_text("".join(lines))

    return edit


def written(path: str, content: str | bytes) -> Edit:
    def edit(top: Path) -> None:
        place = top / path
        if place.is_symlink() or place.is_file():
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def removed(path: str) -> Edit:
    return lambda top: (top / path).unlink()


def renamed(path: str, to: str) -> Edit:
    return lambda top: (top / path).rename(top / to)


def executable(path: str) -> Edit:
    return lambda top: (top / path).chmod(0o755)


def linked(path: str, to: str) -> Edit:
    def edit(top: Path) -> None:
        (top / path).unlink(missing_ok=True)
        (top / path).symlink_to(to)

    return edit


def a_folder_instead(path: str) -> Edit:
    def edit(top: Path) -> None:
        (top / path).unlink()
        written(f"{path}/inner", "x\n")(top)

    return edit


BINARY = b"\0one\0" * 40

PAIRS: dict[str, tuple[list[Edit], list[Edit], dict[str, str]]] = {
    "other files": ([line(3, "x\n")], [line(3, "y\n", "b.py")], {}),
    "the same line": ([line(3, "x\n")], [line(3, "y\n")], {"a.py": "region"}),
    "the same change": ([line(3, "x\n")], [line(3, "x\n")], {"a.py": "region"}),
    "adjoining lines": ([line(3, "x\n")], [line(4, "y\n")], {"a.py": "region"}),
    "a line between": ([line(3, "x\n")], [line(5, "y\n")], {"a.py": "file"}),
    "added below a changed one": ([line(3, "x\n")], [line(3, "line 3\nnew\n")], {"a.py": "region"}),
    "added above a changed one": ([line(3, "x\n")], [line(2, "line 2\nnew\n")], {"a.py": "region"}),
    "added at two places": ([line(3, "line 3\nx\n")], [line(4, "line 4\ny\n")], {"a.py": "file"}),
    "added at one place": ([line(3, "line 3\nx\n")], [line(3, "line 3\ny\n")], {"a.py": "region"}),
    "at the very beginning": ([line(1, "x\nline 1\n")], [line(1, "y\n")], {"a.py": "region"}),
    "the last newline": ([line(10, "line 10")], [line(10, "line 10\nmore\n")], {"a.py": "region"}),
    "lines taken out": ([line(3, ""), line(3, "")], [line(4, "y\n")], {"a.py": "region"}),
    "deleted and changed": ([removed("a.py")], [line(4, "y\n")], {"a.py": "region"}),
    "deleted on both": ([removed("a.py")], [removed("a.py")], {"a.py": "region"}),
    "renamed and changed": ([renamed("a.py", "z.py")], [line(4, "y\n")], {"a.py": "region"}),
    "made on both": ([written("n", "1\n")], [written("n", "2\n")], {"n": "region"}),
    "mode and lines": ([executable("a.py")], [line(4, "y\n")], {"a.py": "file"}),
    "mode on both": ([executable("a.py")], [executable("a.py")], {"a.py": "file"}),
    "mode and the same line": ([executable("a.py"), line(4, "x\n")], [line(4, "y\n")], {"a.py": "region"}),
    "a link instead": ([linked("a.py", "b.py")], [line(4, "y\n")], {"a.py": "region"}),
    "binary by now": ([written("a.py", BINARY)], [line(4, "y\n")], {"a.py": "file"}),
    "a file and a folder": ([written("n", "1\n")], [written("n/deep/er", "2\n")], {"n": "file"}),
    "a folder and a file": ([written("n/deep/er", "2\n")], [written("n", "1\n")], {"n": "file"}),
    "a folder and lines": ([a_folder_instead("a.py")], [line(4, "y\n")], {"a.py": "region"}),
    "names that begin alike": ([written("n.py", "1\n")], [written("n", "2\n")], {}),
    "a file taken back": ([line(3, "x\n"), line(3, "line 3\n")], [line(3, "y\n")], {}),
    "very large": (
        [written("a.py", "x\n" * 300_000)],
        [line(3, "y\n")],
        {"a.py": "file"},
    ),
    "very many changes": (
        [written("a.py", TEN.replace("line", "odd"))],
        [line(3, "y\n")],
        {"a.py": "region"},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_tasks(world: World, name: str) -> None:
    ours, theirs, expected = PAIRS[name]
    one, two = world.task("one", *ours), world.task("two", *theirs)
    assert world.files(one) == expected
    assert world.files(two) == expected  # out of the cache, and from the other side


def test_binary_on_both_sides(world: World) -> None:
    world.repo.git("checkout", "-q", "main")
    world.repo.git("config", "user.name", "x")
    written("image", BINARY)(world.repo.top)
    world.repo.commit("image")
    one = world.task("one", written("image", BINARY + b"1"))
    world.task("two", written("image", BINARY + b"2"))
    assert world.files(one) == {"image": "file"}


def test_the_lines_are_those_of_our_branch(world: World) -> None:
    world.task("one", line(5, "x\n"))
    two = world.task("two", line(2, "line 2\nnew\nnew\n"), line(7, "five\nand\nmore\n"), line(1, "unrelated\n"))
    (overlap,) = world.found(two).overlaps
    assert overlap.files == (SharedFile("a.py", "region", ((7, 9),)),)


def test_where_the_content_they_began_with_differs_only_the_file_is_said(world: World) -> None:
    world.task("one", line(3, "x\n"))
    world.repo.git("checkout", "-q", "main")
    line(9, "main\n")(world.repo.top)
    world.repo.commit("main goes on")
    two = world.task("two", line(3, "y\n"), line(3, "y\n", "b.py"))
    assert world.files(two) == {"a.py": "file"}
    world.edit("one", line(3, "x\n", "b.py"))
    assert world.files(two) == {"a.py": "file", "b.py": "region"}  # main left it as it was


def test_what_main_did_is_nobodys_change(world: World) -> None:
    one = world.task("one", line(3, "x\n"))
    two = world.task("two", line(3, "y\n", "b.py"))
    world.repo.git("checkout", "-q", "main")
    written("new", "main\n")(world.repo.top)
    line(9, "main\n", "b.py")(world.repo.top)
    world.repo.commit("main goes on")
    world.repo.git("checkout", "-q", "task/one")
    world.repo.git("rebase", "-q", "main")
    assert world.files(one) == {}
    world.repo.git("checkout", "-q", "task/two")
    world.repo.git("merge", "-q", "--no-edit", "main")
    assert world.files(two) == {}


def test_a_task_begun_at_anothers_tip_has_its_changes(world: World) -> None:
    one = world.task("one", line(3, "x\n"))
    child = world.task("child", line(3, "y\n"), base="task/one")
    assert (world.files(one), world.files(child)) == ({}, {})


def test_a_merged_task_has_nothing_left(world: World) -> None:
    world.task("one", line(3, "x\n"))
    two = world.task("two", line(3, "y\n"))
    assert world.files(two) == {"a.py": "region"}
    world.repo.git("checkout", "-q", "main")
    world.repo.git("merge", "-q", "--ff-only", "task/one")
    assert world.files(two) == {}


@pytest.mark.parametrize("gone", ["branch", "tie", "base", "unrelated", "closed", "deleted", "unreadable"])
def test_what_cannot_be_compared_is_left_out(world: World, gone: str) -> None:
    one = world.task("one", line(3, "x\n"))
    two = world.task("two", line(3, "y\n"))
    three = world.task("three", line(3, "z\n"))
    git = world.repo.git
    match gone:
        case "branch":
            git("update-ref", "-d", "refs/heads/task/one")
        case "tie":
            git("config", "--unset", "branch.task/one.opencodetask")
        case "base":
            base = world.repo.git("rev-parse", "main").out.strip()
            lost = NewTask(new_id("lost"), "lost", "task/lost", Base(None, "1" * 40), world.store.get(one).workspace)
            world.store.create(lost, actor="test")
            git("update-ref", "-d", "refs/heads/task/one")
            git("branch", "task/lost", base)
            git("config", "branch.task/lost.opencodetask", lost.id)
            one = lost.id
        case "unrelated":
            git("checkout", "-q", "--orphan", "aside")
            git("commit", "-q", "-m", "root")
            git("update-ref", "refs/heads/task/one", "aside")
        case "closed":
            world.store.ensure_status(one, "cancelled", reason="test", actor="test")
        case "deleted":
            world.store.delete(one, reason="test", actor="test")
        case "unreadable":
            (log,) = world.store.layout.log(one).iterdir()
            log.write_bytes(b"damaged\n")
            world.store.layout.state(one).write_bytes(b"damaged\n")
    assert [o.task for o in world.found(two).overlaps] == [three]
    assert world.found(one) == Found()


def test_a_renamed_branch_is_followed_and_a_copied_one_is_not(world: World) -> None:
    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n"))
    world.repo.git("branch", "-m", "task/one", "task/renamed")
    world.repo.git("branch", "-c", "task/two", "task/copy")
    assert [o.task for o in world.found(two).overlaps] == [one]
    assert [o.task for o in world.found(one).overlaps] == [two]


ODD = [
    "a b",
    'quo"te',
    "back\\slash",
    "new\nline",
    "tab\t",
    "-dash",
    ":(top)x",
    "*",
    "日本",
    os.fsdecode(b"caf\xe9"),
    "a => b",
]


def test_odd_paths(world: World) -> None:
    world.repo.git("checkout", "-q", "main")
    for path in ODD:
        written(path, TEN)(world.repo.top)
    world.repo.commit("odd")
    one = world.task("one", *(line(3, "x\n", path) for path in ODD))
    two = world.task("two", *(line(3, "y\n", path) for path in ODD[::2]), *(line(8, "y\n", p) for p in ODD[1::2]))
    expected = dict.fromkeys(ODD[::2], "region") | dict.fromkeys(ODD[1::2], "file")
    assert world.files(two) == world.files(one) == expected


@pytest.mark.parametrize("path", [":(top)x", ":!a.py", "a[.]py"])
def test_a_path_is_no_pattern(world: World, path: str) -> None:
    world.repo.git("checkout", "-q", "main")
    written(path, TEN)(world.repo.top)
    world.repo.commit("odd")
    one = world.task("one", line(3, "x\n", path))
    world.task("two", line(3, "y\n", path))
    assert world.files(one) == {path: "region"}


def test_content_that_looks_like_a_patch_is_only_content(world: World) -> None:
    zeros = "0" * 40
    fake = f"""diff --git a/b.py b/b.py
index {zeros}..{zeros} 100644
--- a/b.py
+++ b/b.py
@@ -1,9 +1,9 @@
Binary files a/a.py and b/a.py differ
-- a/b.py
++ b/b.py
{zeros}
\\ No newline at end of file"""
    hostile = world.task("hostile", line(10, fake), line(3, f"{fake}\n"))
    world.task("other", line(6, "y\n"), line(6, "y\n", "b.py"))
    world.task("meets", line(3, "z\n"))
    world.task("late", line(10, "z\n"))
    found = {o.title: o.files for o in world.found(hostile).overlaps}
    assert found == {
        "other": (SharedFile("a.py", "file"),),
        "meets": (SharedFile("a.py", "region", ((3, 12),)),),
        "late": (SharedFile("a.py", "region", ((19, 28),)),),
    }


def test_context_lines_of_an_environment_do_not_mislead_the_parser(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=1")
    one = world.task("one", line(3, "x\n"))
    world.task("two", line(8, "y\n"))
    assert world.files(one) == {"a.py": "file"}


def test_no_program_of_the_repository_runs(world: World, tmp_path: Path) -> None:
    """Filters, textconv, external diffs, hooks, fsmonitor, a pager: each would leave a mark."""
    mark = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho x >>{mark}\ncat 2>/dev/null\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    one = world.task("one", line(3, "x\n"))
    two = world.task("two", line(3, "y\n"), written(".gitattributes", "* diff=evil filter=evil\n"))
    for key in ("diff.evil.command", "diff.evil.textconv", "filter.evil.clean", "filter.evil.smudge", "diff.external"):
        world.repo.git("config", key, str(program))
    for key in ("core.fsmonitor", "core.pager", "filter.evil.process", "core.sshCommand"):
        world.repo.git("config", key, str(program))
    hooks = world.repo.common / "hooks"
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_bytes(program.read_bytes())
        (hooks / name).chmod(0o755)
    assert world.files(two) == {"a.py": "region"}
    assert world.files(one) == {"a.py": "region"}
    assert not mark.exists()
    world.repo.git("--no-pager", "diff", "task/one", "task/two", check=False)
    assert mark.exists()  # they do run where git lets them


def test_a_submodule_is_not_looked_into(world: World) -> None:
    sha = world.repo.git("rev-parse", "main").out.strip()

    def gitlink(to: str) -> Edit:
        return lambda _top: world.repo.git("update-index", "--add", "--cacheinfo", f"160000,{to},module")

    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n", "b.py"))
    for name, to in (("one", sha), ("two", world.repo.git("rev-parse", "task/one").out.strip())):
        world.repo.git("checkout", "-q", f"task/{name}")
        gitlink(to)(world.repo.top)
        world.repo.git("commit", "-q", "-m", "link")
    assert (world.files(one), world.files(two)) == ({}, {})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The git commands that `overlaps` starts."""
    names: list[str] = []
    real = plumbing.git

    def counted(checkout: Checkout, *args: str, check: bool = True, stdin_b: bytes = b"") -> Completed:
        known = ("config", "for-each-ref", "rev-parse", "diff-tree", "cat-file")
        names.append(next(a for a in args if a in known))
        return real(checkout, *args, check=check, stdin_b=stdin_b)

    monkeypatch.setattr(plumbing, "git", counted)
    return names


def test_how_many_processes_it_takes(world: World, started: list[str]) -> None:
    ids = [world.task("n0", written("own0", "x\n"))]
    world.found(ids[0])
    assert started == ["config"]
    ids += [world.task(f"n{n}", written(f"own{n}", "x\n")) for n in range(1, 8)]
    started.clear()
    for one in (ids[0], ids[5]):
        world.found(one)
    first = ["for-each-ref", "rev-parse", "diff-tree"]
    assert started == ["config", *first, "for-each-ref"]  # of all tasks together; then of none
    world.edit("n3", written("own3", "y\n"))
    started.clear()
    assert world.found(ids[3]) == Found()
    assert started == first
    world.edit("n3", line(3, "x\n"))
    world.edit("n4", line(3, "y\n"))
    started.clear()
    assert world.files(ids[3]) == {"a.py": "region"}
    assert started == [*first, "cat-file", "diff-tree"]
    started.clear()
    assert world.files(ids[4]) == {"a.py": "region"}
    assert started == ["for-each-ref"]


def test_main_moving_compares_no_files_again(world: World, started: list[str]) -> None:
    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n"))
    assert world.files(one) == {"a.py": "region"}
    world.repo.git("checkout", "-q", "main")
    world.repo.commit("main goes on")
    started.clear()
    assert world.files(two) == {"a.py": "region"}
    assert started == ["for-each-ref", "rev-parse"]


def test_notes_that_are_sound_json_and_nonsense_are_not_believed(world: World) -> None:
    from opencode_tasks.store import notes

    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n"))
    assert world.files(one) == {"a.py": "region"}
    path = world.store.layout.changed(two)
    sound = notes.read(path)
    assert sound is not None
    nonsense: list[dict[str, object]] = [
        {},
        {**sound, "id": one},
        {**sound, "files": ["a.py"]},
        {**sound, "files": {"a.py": 3}},
        {**sound, "hunks": {"x y": [[1, 2]]}},
        {**sound, "stamp": None},
        {**sound, "tip": ["x"]},
        {**sound, "more": 1},
    ]
    for note in nonsense:
        notes.write(path, note)
        assert world.files(one) == {"a.py": "region"}, note
        assert notes.read(path) == sound, note
    notes.write(path, {**sound, "files": {"a.py": "odd"}})
    assert world.files(one) == {"a.py": "file"}


def test_a_pipe_in_the_place_of_a_note_is_not_waited_for(world: World) -> None:
    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n"))
    path = world.store.layout.changed(two)
    assert world.files(one) == {"a.py": "region"}
    path.unlink()
    os.mkfifo(path)
    assert world.files(one) == {"a.py": "region"}


def test_notes_of_tasks_without_a_branch_go(world: World) -> None:
    one, two = world.task("one", line(3, "x\n")), world.task("two", line(3, "y\n"))
    three = world.task("three", line(3, "y\n", "b.py"))
    overlaps.news(world.store, one, world.found(one))
    kept = {world.store.layout.changed(i).name for i in (one, two, three)} | {
        world.store.layout.overlaps_told(one).name
    }
    place = world.store.layout.changed(one).parent
    assert {p.name for p in place.iterdir()} == kept
    world.repo.git("update-ref", "-d", "refs/heads/task/one")
    world.edit("two", line(4, "z\n"))
    assert world.found(two) == Found()
    assert {p.name for p in place.iterdir()} == {world.store.layout.changed(i).name for i in (two, three)}


def test_bounds_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [world.task(f"n{n}", written("z", f"{n}\n"), written(f"a{n}", "x\n")) for n in range(5)]
    assert len(world.found(ids[0]).overlaps) == 4
    monkeypatch.setattr(branch_changes, "MOST_TASKS", 3)
    found = world.found(ids[0])
    assert [o.task for o in found.overlaps] == ids[:1:-1]
    assert found.cut == ("only the 200 tasks that changed last were compared",)
    monkeypatch.setattr(branch_changes, "MOST_TASKS", 4)
    assert world.found(ids[0]).cut == ()


def test_too_many_files_are_told(world: World) -> None:
    many = world.task("many", *(written(f"many/{n:05}", "x\n") for n in range(branch_changes.MOST_FILES)))
    two = world.task("two", written("many/00003", "y\n"), written("zzz", "y\n"))
    assert world.found(two).cut == ()
    world.edit("many", written("zzz", "x\n"))
    found = world.found(two)
    assert [f.path for o in found.overlaps for f in o.files] == ["many/00003"]
    assert found.cut == (f"only 1000 files of {many} were compared",)


def test_lines_that_are_too_many_for_once_are_compared_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world.task("one", line(3, "x\n"), line(4, "x\n", "b.py"))
    world.task("two", line(3, "y\n"), line(4, "y\n", "b.py"))
    monkeypatch.setattr(overlaps, "_MOST_READ", 1)
    first = world.found(one)
    assert [(f.path, f.kind) for f in first.overlaps[0].files] == [("a.py", "region"), ("b.py", "file")]
    assert first.cut == ("of some files the lines are compared the next time",)
    second = world.found(one)
    assert [(f.path, f.kind) for f in second.overlaps[0].files] == [("a.py", "region"), ("b.py", "region")]
    assert second.cut == ()


def test_a_large_file_that_attributes_call_text_is_not_read(world: World, started: list[str]) -> None:
    world.repo.git("checkout", "-q", "main")
    written("big", "x\n" * 300_000)(world.repo.top)
    written(".gitattributes", "big diff\n")(world.repo.top)
    world.repo.commit("big")
    one = world.task("one", line(3, "1\n", "big"))
    world.task("two", line(3, "2\n", "big"))
    started.clear()
    assert world.files(one) == {"big": "file"}
    assert started[-1] == "cat-file"


def test_many_hunks_become_one() -> None:
    zeros, ones = "0" * 40, "1" * 40
    parts = [f"@@ -{n} +{n} @@\n-a\n+b\n" for n in range(1, 2001, 2)]
    patch = f"diff --git a/x b/x\nindex {zeros}..{ones} 100644\n--- a/x\n+++ b/x\n{''.join(parts)}"
    assert hunks.parsed(patch.encode()) == {f"{zeros} {ones}": [(1, 1999, 1, 1999)]}
