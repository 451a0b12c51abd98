"""The key `shell` in a configuration directory: which file it goes into, and how it comes out again.

Of the two files that OpenCode reads there, `opencode.jsonc` wins. One that git has is never changed: what we write
holds paths of this machine. A new file of ours is `opencode.jsonc`, which leaves `opencode.json` to people.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from opencode_tasks.errors import TaskError
from opencode_tasks.marked import marked, read, state_of, without_line
from opencode_tasks.opencode import edit
from opencode_tasks.opencode.edit import MISSING, Edit
from opencode_tasks.store import files
from opencode_tasks.values import value

NAMES = ("opencode.jsonc", "opencode.json")
KEY = "shell"
SCHEMA = "https://opencode.ai/config.json"


@value
class Choice:
    """What is to be written: `content_b` into `name` (None: nothing), and how that is undone. `backup_b`: what stood
    there and is another's. `note`: why nothing can be done.
    """

    name: str = ""
    content_b: bytes | None = None
    edit: dict[str, Any] | None = None
    backup_b: bytes | None = None
    is_new: bool = False
    note: str = ""


def new_file(shell: str) -> bytes:
    document = {"$schema": SCHEMA, KEY: shell}  # without it OpenCode writes it in by itself
    return marked(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n", ".jsonc")


def choose(
    folder: Path,
    record: Mapping[str, Any],
    shell: str,
    is_fixed: Callable[[Path], bool],
    allowed: Collection[str] | None = None,
) -> Choice:
    """`is_fixed`: whether a file is not ours to change. Raises `TaskError` for one that cannot be read as JSON."""
    try:
        shell.encode()
    except UnicodeEncodeError:
        return Choice(note=f"{shell!r} is not UTF-8, and nothing else can stand in OpenCode's configuration")
    there = [name for name in NAMES if os.path.lexists(folder / name)]
    for name in there:
        choice = _into(folder / name, record.get("edits", {}).get(name), shell, is_fixed)
        if choice is not None:
            return choice
    for name in NAMES:
        if name not in there and (allowed is None or name in allowed):
            return Choice(name, new_file(shell), {"new": True, "ours": [shell]}, is_new=True)
    if len(there) < len(NAMES):
        return Choice(note=f"{KEY} is not set in {folder}: run opencode-tasks init, or set it there: {shell}")
    which = " and ".join(str(folder / name) for name in NAMES)
    return Choice(note=f"there is no place for {KEY}: {which} are not ours to change; set it there: {shell}")


def _into(path: Path, before: Any, shell: str, is_fixed: Callable[[Path], bool]) -> Choice | None:
    """None: this one is not ours to change, and leaves the key to the next."""
    content_b = _content(path)
    is_like = state_of(content_b)
    if is_like == "ours":
        new_b = new_file(shell)
        changed = None if content_b == new_b else new_b
        return Choice(path.name, changed, {"new": True, "ours": [shell]}, is_new=True)
    text = _text(path, content_b)
    said = look(path, text)
    if is_like == "edited" and before is None:
        before = {"new": True, "ours": [said]}
    is_new = bool(before and before.get("new"))
    if said == shell:
        if before is None and not is_fixed(path):  # it came along from another work tree
            before = {"ours": [shell], "lead": "?"}
        return Choice(path.name, edit=before, is_new=is_new)
    if is_fixed(path):
        note = f"{path} sets {KEY}, and was left alone: it is a link, or committed; to be set there: {shell}"
        is_last_word = said is not MISSING and path.name == NAMES[0]
        return Choice(path.name, note=note) if is_last_word else None
    after, how = edit.put(text, [KEY], shell)
    if before is not None and said in before["ours"]:  # of a repository that was moved
        return Choice(path.name, after.encode(), {**before, "ours": [shell, *before["ours"]]}, is_new=is_new)
    return Choice(path.name, after.encode(), {**vars(how), "ours": [shell]}, backup_b=content_b)


def look(path: Path, text: str) -> Any:
    """What it says. Raises `TaskError` that names the file and the line."""
    try:
        return edit.look(text, [KEY])
    except ValueError as e:
        raise TaskError(
            f"{path} is not valid JSON: {e}", hint="mend the line named above; it was not changed", code="config"
        ) from e


def take_back(path: Path, done: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether our value went, and what a person should know."""
    try:
        content_b = _content(path)
        text = _text(path, content_b)
        said = look(path, text)
    except TaskError as e:
        return False, "" if not path.exists() else f"{e.message}; {KEY} may be in it still"
    if said not in done["ours"]:
        return False, "" if said is MISSING else f"{path} has another {KEY} by now, which is kept"
    how = Edit(**{name: done[name] for name in ("before", "lead", "made") if name in done})
    rest_b = edit.take_out(text, [KEY], said, how).encode()
    if done.get("new"):
        rest_b = without_line(rest_b)
        if look(path, rest_b.decode()) is MISSING and _is_bare(rest_b.decode()):
            path.unlink()
            return True, ""
    files.replace(path, rest_b)
    return True, ""


def back_up(folder: Path, chosen: Choice) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / backup_name(chosen), chosen.backup_b or b"", durable=True)


def backup_name(chosen: Choice) -> str:
    return f"{hashlib.sha256(chosen.backup_b or b'').hexdigest()[:16]}-{chosen.name}"


def _is_bare(text: str) -> bool:
    from opencode_tasks import jsonc

    return "//" not in text.replace(SCHEMA, "") and "/*" not in text and jsonc.loads(text) in ({}, {"$schema": SCHEMA})


def _content(path: Path) -> bytes:
    try:
        return read(path.resolve())
    except OSError as e:
        said = e.strerror or str(e)
        raise TaskError(f"{path} cannot be read: {said}", hint="make it an ordinary file", code="config") from e


def _text(path: Path, content_b: bytes) -> str:
    try:
        return content_b.decode()
    except UnicodeDecodeError as e:
        line = content_b.count(b"\n", 0, e.start) + 1
        raise TaskError(
            f"{path} is not UTF-8: line {line}", hint="save it as UTF-8; it was not changed", code="config"
        ) from e
