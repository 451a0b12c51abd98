"""What a snapshot must bring back and must not touch: scenes, played for every tool, and who judges them.

The judge reads the disk and asks git; it knows no tool.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoint_peers import Peer
from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError
from opencode_tasks.errors import TaskError

# What lies at a path: what it is, its bytes or a link's target, its permissions.
Entry = tuple[str, bytes, int]
Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Scene:
    """`edits` follow a first snapshot; there is one more after each but the last. Then one goes back to the first.

    `kept`: what git ignores when one goes back, so that no snapshot need have it: it stays as it is.
    """

    name: str
    committed: Edit
    before: Edit
    edits: tuple[Edit, ...]
    kept: tuple[str, ...] = ()
    is_of_user: bool = False


def judged(bench: Bench, kind: type[Peer], scene: Scene, number: str) -> dict[str, list[str]]:
    """What is not as it must be: the names of what was lost, left behind, or otherwise wrong."""
    folder = bench.root / f"scene-{number}"
    repo = Repo(folder / "repo", bench.env)
    repo.top.mkdir(parents=True)
    repo.git("init", "--quiet")
    (repo.top / "always.txt").write_text("always\n")
    scene.committed(repo.top)
    repo.commit("first")
    scene.before(repo.top)
    peer = kind(repo, folder / "snapshots")
    peer.forget()
    own = _own(repo)
    wanted = _contents(repo.top)
    try:
        taken = peer.take()
        for number_of_edit, edit in enumerate(scene.edits, start=1):
            edit(repo.top)
            peer.edited()
            if number_of_edit < len(scene.edits):
                peer.take()
        there = _contents(repo.top)
        for name in scene.kept:
            wanted[name] = there[name]
        outside = _contents(folder / "outside")
        peer.back(taken)
    except (BenchmarkError, TaskError) as e:
        return {"failed": str(e).splitlines()}
    found = _differences(wanted, _contents(repo.top))
    touched = _differences(outside, _contents(folder / "outside"))
    if touched:
        found["touched outside"] = [name for names in touched.values() for name in names]
    if scene.is_of_user:
        found |= {f"user's {what} changed": [value] for what, value in _own(repo).items() if value != own[what]}
    shutil.rmtree(folder)
    return found


def _differences(wanted: dict[str, Entry], there: dict[str, Entry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted({*wanted, *there}):
        before, after = wanted.get(name), there.get(name)
        if before == after:
            continue
        if after is None:
            how = "lost"
        elif before is None:
            how = "left behind"
        else:
            how = "other content" if before[:2] != after[:2] else "other permissions"
        found.setdefault(how, []).append(name)
    return found


def _contents(top: Path) -> dict[str, Entry]:
    """Files, links, and folders that are empty; not what lies in a git directory."""
    found: dict[str, Entry] = {}
    for folder, names, file_names in os.walk(top):
        if ".git" in names:
            names.remove(".git")
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        for name in (*file_names, *links):
            path = Path(folder) / name
            seen = path.lstat()
            is_link = stat.S_ISLNK(seen.st_mode)
            content = os.fsencode(path.readlink()) if is_link else path.read_bytes()
            entry = ("link" if is_link else "file", content, 0 if is_link else stat.S_IMODE(seen.st_mode))
            found[os.path.relpath(path, top)] = entry
        if not names and not file_names:
            found[os.path.relpath(folder, top)] = ("folder", b"", 0)
    return found


def _own(repo: Repo) -> dict[str, str]:
    """What is the user's alone: a snapshot has no business there."""
    return {
        "index": repo.git("ls-files", "--stage"),
        "stash list": repo.git("stash", "list", "--format=%H"),
        "branch": repo.git("rev-parse", "--symbolic-full-name", "HEAD", "HEAD@{0}"),
        "refs": "\n".join(ref for ref in repo.git("for-each-ref", "--format=%(refname)").split() if "stash" not in ref),
    }


def _files(files: dict[str, str | bytes | None]) -> Edit:
    """None deletes."""

    def edit(top: Path) -> None:
        for name, content in files.items():
            path = top / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def _nothing(_top: Path) -> None:
    return


def _git(top: Path, *args: str) -> None:
    subprocess.run(("git", *args), cwd=top, check=True, capture_output=True)


def _modes(**modes: int) -> Edit:
    def edit(top: Path) -> None:
        for name, mode in modes.items():
            (top / name).touch()
            (top / name).chmod(mode)

    return edit


def _link_and_folder(top: Path) -> None:
    _files({"folder/a.txt": "a\n", "folder/b.txt": "b\n"})(top)
    (top / "link").symlink_to("folder")
    _files({"a.txt": "outside\n"})(top.parent / "outside")


def _swapped(top: Path) -> None:
    shutil.rmtree(top / "folder")
    (top / "folder").symlink_to("../outside")
    (top / "link").unlink()
    _files({"link/c.txt": "c\n"})(top)


def _attributes(top: Path) -> None:
    rules = "*.txt text eol=crlf\n*.id ident\n*.up filter=up\n*.wide working-tree-encoding=UTF-16\n"
    _files({".gitattributes": rules})(top)
    _git(top, "config", "filter.up.clean", "tr a-z A-Z")
    _git(top, "config", "filter.up.smudge", "cat")
    _RAW(top)


_RAW = _files(
    {
        "a.txt": b"one\ntwo\r\nthree\r",
        "a.id": "$Id$ and $Id: mine$\n",
        "a.up": "lower\n",
        "a.wide": "wide\n".encode("utf-16"),
    }
)


def _repository_inside(top: Path) -> None:
    inside = top / "vendor" / "lib"
    _files({"a.txt": "committed\n"})(inside)
    _git(inside, "init", "--quiet")
    _git(inside, "add", "--all")
    _git(inside, "commit", "--quiet", "--message", "inside")
    _files({"a.txt": "not committed\n", "b.txt": "untracked\n"})(inside)


def _staged_and_stashed(top: Path) -> None:
    _files({"a.txt": "stashed\n"})(top)
    _git(top, "stash", "push", "--quiet")
    _files({"a.txt": "staged\n", "new.txt": "staged\n"})(top)
    _git(top, "add", "--all")
    _files({"a.txt": "on disk\n"})(top)


def _without_folder(top: Path) -> None:
    (top / "empty").rmdir()
    (top / "empty too").mkdir()


_ODD = ("sp ace", "new\nline", '"quoted"', ":colon", "-dash", "back\\slash", "\u00fc", "*")

ALL = (
    Scene(
        "untracked files",
        _nothing,
        _files({"changed.txt": "one\n", "deleted.txt": "one\n", "folder/deep.txt": "one\n"}),
        (_files({"changed.txt": "two\n", "deleted.txt": None, "folder/deep.txt": None, "made/later.txt": "two\n"}),),
    ),
    Scene(
        "ignored, until .gitignore is restored",
        _files({".gitignore": "*.log\n"}),
        _files({"note.txt": "untracked\n"}),
        (_files({".gitignore": "*.log\n/data/\n", "data/base.db": "years of work\n", "a.log": "x\n"}),),
        kept=("data/base.db", "a.log"),
    ),
    Scene(
        "executable bit",
        _modes(tool=0o755, text=0o644),
        _modes(fresh=0o755),
        (_modes(tool=0o644, text=0o755, fresh=0o644),),
    ),
    Scene("permissions 0600", _nothing, _modes(secret=0o600), (_files({"secret": "two\n"}), _files({"secret": None}))),
    Scene("link and folder swapped", _link_and_folder, _nothing, (_swapped,)),
    Scene(
        "raw bytes",
        _attributes,
        _RAW,
        (_files({"a.txt": "x\n", "a.id": "x\n", "a.up": "X\n", "a.wide": "x\n".encode("utf-16")}),),
    ),
    Scene(
        "repository inside",
        _nothing,
        _repository_inside,
        (_files({"vendor/lib/a.txt": "two\n", "vendor/lib/b.txt": None}),),
    ),
    Scene(
        "deleted, then a later snapshot",
        _files({"a.txt": "one\n", "b/c.txt": "one\n"}),
        _nothing,
        (_files({"a.txt": None, "b/c.txt": None}), _files({"always.txt": "two\n"})),
    ),
    Scene(
        "the user's own index, stashes, refs",
        _files({"a.txt": "one\n"}),
        _staged_and_stashed,
        (_files({"a.txt": "two\n", "new.txt": "two\n"}),),
        is_of_user=True,
    ),
    Scene("3 MiB, untracked", _nothing, _files({"big.bin": b"big\n" * (3 << 18)}), (_files({"big.bin": None}),)),
    Scene(
        "odd names",
        _files(dict.fromkeys(_ODD[::2], "one\n")),
        _files(dict.fromkeys(_ODD[1::2], "one\n")),
        (_files(dict.fromkeys(_ODD, "two\n")), _files(dict.fromkeys(_ODD))),
    ),
    Scene("empty folders", _nothing, lambda top: (top / "empty").mkdir(), (_without_folder,)),
)
