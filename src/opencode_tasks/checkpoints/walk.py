"""What lies at paths of a workspace, never following a link on the way."""

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.values import value

BIG_B = 32 << 20
"""A file of more bytes than this is kept in pieces, and only what changed of it is kept again."""
_MOST_ARGUMENTS_B = 100_000
_MOST_FOLDERS = 200
_YOUNG_S = 2.0


@value
class Skipped:
    path: str
    reason: str


@dataclass
class Walk:
    """What differs between the index and the disk. `big`: what they look like; `modes`: those that are unusual, of
    what is present or big. `size_b`: of what is present.
    """

    gone: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    big: dict[str, list[int]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    size_b: int = 0


def look(workspace: Path, paths: Sequence[str]) -> Walk:
    """Sort `paths` by what lies there."""
    walk = Walk()
    usual = usual_modes()
    real_dirs: dict[str, bool] = {"": True}
    for path in paths:
        if path.endswith("/"):
            walk.skipped.append(Skipped(path, "a repository of its own"))
            continue
        if ".git" in path.lower().split("/"):
            walk.skipped.append(Skipped(path, "git keeps no file of this name"))
            continue
        if not is_below_real_dirs(workspace, path, real_dirs):
            walk.gone.append(path)
            continue
        try:
            seen = (workspace / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            walk.gone.append(path)
            continue
        if stat.S_ISDIR(seen.st_mode):
            walk.gone.append(path)
        elif not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode)):
            walk.skipped.append(Skipped(path, SPECIAL))
        elif stat.S_ISREG(seen.st_mode) and not os.access(workspace / path, os.R_OK):
            walk.skipped.append(Skipped(path, "no permission to read it"))
        else:
            _sort(walk, path, seen, usual)
    return walk


SPECIAL = "not a file: a pipe, socket or device"


def _sort(walk: Walk, path: str, seen: os.stat_result, usual: tuple[int, int]) -> None:
    if stat.S_ISREG(seen.st_mode):
        if seen.st_mode & 0o777 not in usual:
            walk.modes[path] = seen.st_mode & 0o777
        if seen.st_size > BIG_B:
            walk.big[path] = stamp(seen)
            return
    walk.present.append(path)
    walk.size_b += seen.st_size


def stamp(seen: os.stat_result) -> list[int]:
    """Another one when the file is another or was written to."""
    return [seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size]


def usual_modes() -> tuple[int, int]:
    """What git gives to a file, and to one that can be executed."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask, 0o777 & ~mask


def modes_of(workspace: Path, paths: Iterable[str]) -> dict[str, int]:
    """Of the files among them, the unusual ones."""
    usual = usual_modes()
    top, found = f"{workspace}/", {}
    for path in paths:
        try:
            mode = os.lstat(top + path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o777 not in usual:
            found[path] = mode & 0o777
    return found


def young(workspace: Path, paths: Iterable[str]) -> list[str]:
    """Those that were changed within the last seconds."""
    top, since, found = f"{workspace}/", time.time() - _YOUNG_S, []
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            if os.lstat(top + path).st_ctime >= since:
                found.append(path)
    return found


def is_below_real_dirs(workspace: Path, path: str, known: dict[str, bool]) -> bool:
    """`known`: what was found before, and `{"": True}` at first."""
    parent = path.rpartition("/")[0]
    if parent not in known:
        try:
            is_dir = stat.S_ISDIR((workspace / parent).lstat().st_mode)
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            is_dir = False
        known[parent] = is_dir and is_below_real_dirs(workspace, parent, known)
    return known[parent]


def is_real_folder(workspace: Path, path: str) -> bool:
    """No link, and none on the way."""
    return is_below_real_dirs(workspace, f"{path.rstrip('/')}/x", {"": True})


@dataclass
class Untracked:
    """`nested`: repositories of their own; those and folders end with a slash."""

    files: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)


def untracked(shadow: Shadow, listed: Sequence[str]) -> Untracked:
    """`listed`: by `ls-files --others --directory`, which shows a folder that has nothing of ours as one."""
    found, folders = Untracked(), []
    for path in listed:
        if not path.endswith("/"):
            found.files.append(path)
        elif os.path.lexists(shadow.workspace / path / ".git"):
            found.nested.append(path)
        elif not _has_only_folders(shadow.workspace, path, found.empty):
            folders.append(path)
    if folders:
        _enter(shadow, folders, found)
    return found


def _has_only_folders(workspace: Path, path: str, empty: list[str]) -> bool:
    """Then `empty` gets those of them in which there is nothing."""
    leaves, todo, seen = [], [path], 0
    while todo:
        folder, inner = todo.pop(), []
        with os.scandir(workspace / folder) as entries:
            for entry in entries:
                seen += 1
                if not entry.is_dir(follow_symlinks=False) or entry.name == ".git" or seen > _MOST_FOLDERS:
                    return False
                inner.append(f"{folder}{entry.name}/")
        if not inner:
            leaves.append(folder)
        todo += inner
    empty += leaves
    return True


def _enter(shadow: Shadow, folders: list[str], found: Untracked) -> None:
    is_short = sum(len(os.fsencode(folder)) + 1 for folder in folders) < _MOST_ARGUMENTS_B
    where = ["--", *folders] if is_short else []
    words = ("--literal-pathspecs", "ls-files", "--others", "--exclude-standard", "-z")
    inside, ignored = shadow.together((*words, *where), (*words, "--ignored", "--directory", *where))
    files = [path for path in inside if not path.endswith("/")]
    found.files = found.files + files if is_short else files
    found.nested = list(dict.fromkeys([*found.nested, *(path for path in inside if path.endswith("/"))]))
    left_out = set(ignored)
    for folder in folders:
        for path, is_folder in _below(shadow.workspace, folder, left_out):
            (found.empty if is_folder else found.special).append(path)


def specials(shadow: Shadow) -> list[str]:
    """Pipes, sockets and devices that are not ignored: git does not show them."""
    ignored = shadow.paths("ls-files", "--others", "--exclude-standard", "-z", "--ignored", "--directory")
    return [path for path, is_folder in _below(shadow.workspace, "", set(ignored)) if not is_folder]


def _below(workspace: Path, folder: str, left_out: set[str]) -> Iterator[tuple[str, bool]]:
    """Folders with nothing in them (True), and what is neither file, link nor folder. Not of repositories inside."""
    todo = [folder]
    while todo:
        at, is_empty = todo.pop(), True
        with os.scandir(workspace / at) as entries:
            for entry in entries:
                is_empty = False
                path = f"{at}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if (
                        f"{path}/" not in left_out
                        and entry.name != ".git"
                        and not os.path.lexists(f"{entry.path}/.git")
                    ):
                        todo.append(f"{path}/")
                elif path not in left_out and not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
                    yield path, False
        if is_empty and at:
            yield at, True
