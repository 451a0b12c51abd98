"""The first index of a task: a copy of the user's, whose objects are borrowed until `upkeep` has copied them.

It knows what every unchanged file looks like: nothing has to be read again. What in it is not a file as it lies on the
disk is taken out, and read like any new file.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from opencode_tasks.checkpoints.shadow import Shadow, pathspec_input, words_of
from opencode_tasks.checkpoints.users_git import personal
from opencode_tasks.git import plumbing
from opencode_tasks.store import files

_BORROWED = b"../../../objects\n"
_NOT_SAID = ("unspecified", "unset", "false")


def seed(shadow: Shadow) -> tuple[list[str], bool]:
    """The paths that the new index has, none when the user's is of no use; and whether it has all of the user's."""
    if shadow.object_format != _format(shadow):
        return [], False
    borrow(shadow)
    if not _copied(shadow):
        return [], False
    listed = shadow.git("ls-files", "-v", "--stage", "-z", check=False)
    if listed.code != 0:
        shadow.index.unlink()
        return [], False
    entries = [entry for entry in listed.out_b.split(b"\0") if entry]
    # `H 100644 <object> 0\t<path>`: cached, a file or link, not one side of a conflict, nothing assumed of it.
    is_plain = re.compile(rb"H 1[02]0\d{3} [0-9a-f]+ 0\t").match
    odd = [entry for entry in entries if not is_plain(entry)]
    if odd:
        paths = list(dict.fromkeys(os.fsdecode(entry.partition(b"\t")[2]) for entry in odd))
        shadow.update(paths, [])
    return [os.fsdecode(entry.partition(b"\t")[2]) for entry in entries if is_plain(entry)], not odd


def _copied(shadow: Shadow) -> bool:
    """With its time, by which git tells which files may have changed since, and whole where the user's is split."""
    source = shadow.source.git_dir / "index"
    shared = [shutil.copy2(path, shadow.dir) for path in shadow.source.git_dir.glob("sharedindex.*")]
    try:
        shutil.copy2(source, shadow.index)
        is_whole = not shared or shadow.git("update-index", "--no-split-index", check=False).code == 0
    except FileNotFoundError:
        is_whole = False
    finally:
        for path in shared:
            Path(path).unlink(missing_ok=True)
    if not is_whole:
        shadow.index.unlink(missing_ok=True)
    return is_whole


def converted(shadow: Shadow, paths: list[str], untracked: Sequence[str]) -> list[str]:
    """Those of `paths` whose objects may not be what lies on the disk: git converts them on the way."""
    if not _has_rules(shadow, (*paths, *untracked)):
        return []
    asked_b = pathspec_input(paths)
    words = ("check-attr", "-z", "--stdin", "filter", "working-tree-encoding")
    said = words_of(plumbing.git(shadow.source, *words, stdin_b=asked_b))
    by_program = {path for path, value in zip(said[::3], said[2::3], strict=True) if value not in _NOT_SAID}
    rest = [path for path in paths if path not in by_program]
    return [*by_program, *_other_sizes(shadow, rest)]


def _has_rules(shadow: Shadow, paths: Sequence[str]) -> bool:
    if shadow.settings.get("core.autocrlf", "false") not in ("false", "no", "off", "0"):
        return True
    if any(path.endswith(".gitattributes") for path in paths) or shadow.settings.get("core.attributesfile"):
        return True
    places = (shadow.source.common_dir / "info/attributes", Path(personal("attributes")), Path("/etc/gitattributes"))
    return any(place.exists() for place in places)


def _other_sizes(shadow: Shadow, paths: list[str]) -> list[str]:
    """A line ending or a keyword that was converted shows in the size."""
    listed = shadow.git("ls-files", "--stage", "-z").out_b.split(b"\0")
    objects = {os.fsdecode(e.partition(b"\t")[2]): e.split(b" ", 2)[1] for e in listed if e}
    paths = [path for path in paths if path in objects]
    asked_b = b"".join(objects[path] + b"\n" for path in paths)
    told = shadow.git("cat-file", "--batch-check=%(objectsize)", stdin_b=asked_b).out_b.split(b"\n")
    return [path for path, size in zip(paths, told, strict=False) if not _is_size(shadow.workspace / path, size)]


def _is_size(path: Path, size: bytes) -> bool:
    try:
        return path.lstat().st_size == int(size)
    except (OSError, ValueError):
        return False


def _format(shadow: Shadow) -> str:
    """As git wrote it when we made the repository."""
    return "sha256" if "objectformat = sha256" in (shadow.dir / "config").read_text() else "sha1"


def borrow(shadow: Shadow) -> None:
    """Let the shadow repository read the objects of the user's."""
    alternates = borrowed(shadow.dir)
    if not alternates.exists():
        alternates.parent.mkdir(parents=True, exist_ok=True)
        files.replace(alternates, _BORROWED)


def borrowed(shadow_dir: Path) -> Path:
    """Is there as long as objects of the user's repository are needed."""
    return shadow_dir / "objects/info/alternates"


def dropping(shadow_dir: Path) -> Path:
    """Is there instead while somebody looks whether they still are; when that was killed they are needed."""
    return shadow_dir / "objects/info/alternates.dropping"
