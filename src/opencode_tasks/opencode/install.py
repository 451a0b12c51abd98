"""Our set in one configuration directory of OpenCode: whole files, and the key `shell`. The exact inverse, too.

What we did there is written down before it is done, in `Target.record`, so that a kill leaves nothing unknown. Files of
ours need no record: they say so themselves (`marked`).
"""

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from opencode_tasks import assets
from opencode_tasks.errors import TaskError
from opencode_tasks.marked import State, marked, state
from opencode_tasks.opencode import present, settings
from opencode_tasks.store import files
from opencode_tasks.values import value

_FOLDERS = ("plugins", "agents", "commands")
_FROM = {
    present.PLUGIN: "opencode_hooks/opencode-tasks.js",
    "agents/docker-sandbox.md": "opencode_hooks/docker-sandbox.md",
}


@value
class Target:
    """`folder`: the configuration directory. `shell`: what the key is to name. `backups`: where a file of another's
    goes before we change it. `is_own`: it is the user's, for all projects, and may have links. `is_tracked`: whether
    git has a file of it.
    """

    folder: Path
    record: Path
    backups: Path
    shell: str
    is_own: bool
    is_tracked: Callable[[Path], bool]

    def is_fixed(self, path: Path) -> bool:
        return not self.is_own and (path.is_symlink() or self.is_tracked(path))


@cache
def wanted() -> dict[str, bytes]:
    """Every whole file of ours, by its name below the directory."""
    top = assets.root()
    sources = {name: top / source for name, source in _FROM.items()}
    with suppress(FileNotFoundError):
        sources |= {f"commands/{p.name}": p for p in sorted((top / "commands").iterdir()) if p.suffix == ".md"}
    return {name: marked(source.read_bytes(), source.suffix) for name, source in sources.items() if source.is_file()}


def _require_folders(target: Target) -> None:
    for path in (target.folder, *(target.folder / name for name in _FOLDERS)):
        if path.is_symlink() and not target.is_own:
            raise TaskError(f"{path} is a symbolic link", hint="make it a directory", code="config")
        if path.exists() and not path.is_dir():
            raise TaskError(f"{path} is no directory", hint="move it away, then run init again", code="config")


def states(target: Target, names: Collection[str]) -> dict[str, State]:
    return {name: state(target.folder / name) for name in names}


def new_names(target: Target, *, allowed: Collection[str]) -> list[str]:
    """What `apply` would make, or has made, of whole files: those are to be kept out of git."""
    found = [name for name, is_like in states(target, wanted()).items() if is_like in ("missing", "ours", "edited")]
    config = settings.choose(target.folder, read_record(target), target.shell, target.is_fixed, allowed)
    return [*found, *([config.name] if config.is_new else [])]


def apply(target: Target, *, allowed: Collection[str] | None = None) -> tuple[list[str], list[str]]:
    """What was changed, and what a person should know. `allowed`: the only names that new files may have.

    Raises `TaskError` for a configuration that cannot be read; nothing was changed then.
    """
    _require_folders(target)
    record, whole = read_record(target), wanted()
    chosen = settings.choose(target.folder, record, target.shell, target.is_fixed, allowed)
    _sweep(target)
    now = states(target, whole)
    notes = [_note(target.folder / name, like) for name, like in now.items() if like in ("foreign", "edited")]
    write = [
        (name, content_b)
        for name, content_b in whole.items()
        if (now[name] == "missing" and (allowed is None or name in allowed))
        or (now[name] == "ours" and (target.folder / name).read_bytes() != content_b)
    ]
    write += [(chosen.name, chosen.content_b)] if chosen.content_b is not None else []
    stale = [name for name in _ours(target.folder) if name not in whole and _is_stale(target, target.folder / name)]
    after = _planned(target, record, [name for name, _ in write], chosen)
    with files.refused_writes(target.folder):
        if after != record:
            _write_record(target, after)
        if chosen.backup_b is not None:
            settings.back_up(target.backups, chosen)
        for name, content_b in write:
            (target.folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.replace(_real(target, name), content_b)
        for name in stale:
            (target.folder / name).unlink()
    if _stamped(target, after) != after:
        _write_record(target, _stamped(target, after))
    return [*(name for name, _ in write), *stale], [*notes, *filter(None, [chosen.note])]


def remove(target: Target) -> tuple[list[str], list[str]]:
    """The inverse of `apply`: what went, and what was left with the reason."""
    record = read_record(target)
    if not target.is_own and target.folder.is_symlink():
        return [], [f"{target.folder} is a symbolic link and was left alone"] if record else []
    _sweep(target)
    with files.refused_writes(target.folder):
        gone, notes = _remove_files(target, record.get("edits", {}))
    remove_folders([Path(os.path.normpath(target.folder / name)) for name in record.get("made", ())])
    for backup in record.get("backups", ()):
        (target.backups / backup).unlink(missing_ok=True)
    with suppress(OSError):
        target.backups.rmdir()
    target.record.unlink(missing_ok=True)
    return gone, notes


def _remove_files(target: Target, edits: dict[str, Any]) -> tuple[list[str], list[str]]:
    gone: list[str] = []
    notes: list[str] = []
    for name in (*_ours(target.folder), *settings.NAMES):
        path = target.folder / name
        is_like = state(path)
        if is_like == "ours" and not target.is_tracked(path):
            path.unlink()
            gone.append(name)
        elif is_like == "ours" or (is_like == "edited" and name not in settings.NAMES):
            notes.append(f"{path} {'is committed' if is_like == 'ours' else 'was edited'} and is kept")
    for name, edit in edits.items():
        path = _real(target, name)
        if path.is_symlink():
            notes.append(f"{path} is a symbolic link and was left alone")
            continue
        done, note = settings.take_back(path, edit)
        gone += [name] if done else []
        notes += [note] if note else []
    return gone, notes


def remove_folders(made: Collection[Path]) -> None:
    """Those that are empty; inner ones first."""
    for folder in sorted(made, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # somebody else has something in there
            folder.rmdir()


def extend_record(target: Target, more: dict[str, Any], *, above: list[str]) -> None:
    """`above`: folders that were made for the record itself."""
    record = read_record(target)
    after = {**record, **more, "above": sorted({*record.get("above", ()), *above})}
    if after != record:
        _write_record(target, after)


def read_record(target: Target) -> dict[str, Any]:
    """Empty where nothing was done yet, or nobody can tell any more what."""
    with suppress(OSError, ValueError):
        found = json.loads(target.record.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _planned(target: Target, record: dict[str, Any], names: list[str], chosen: settings.Choice) -> dict[str, Any]:
    """The record of what is going to be done. Who was here first knows what stood here."""
    needed = {path for name in names for path in (target.folder / name).parents}
    made = {os.path.relpath(path, target.folder) for path in needed if not path.is_dir()}
    after = {**record, "made": sorted({*record.get("made", ()), *made}), "edits": {**record.get("edits", {})}}
    if chosen.edit is not None:
        after["edits"][chosen.name] = chosen.edit
    if chosen.backup_b is not None:
        after["backups"] = sorted({*record.get("backups", ()), settings.backup_name(chosen)})
    after["config"] = chosen.name or settings.NAMES[0]
    return after


def _stamped(target: Target, record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "stamps": present.stamps(target.folder, record)}


def _write_record(target: Target, record: dict[str, Any]) -> None:
    target.record.parent.mkdir(parents=True, exist_ok=True)
    files.replace(target.record, json.dumps(record).encode())


def _real(target: Target, name: str) -> Path:
    """People keep their own configuration as a link to a file elsewhere."""
    path = target.folder / name
    return path.resolve() if target.is_own else path


def _ours(folder: Path) -> Iterator[str]:
    for name in _FOLDERS:
        with suppress(OSError):
            if (folder / name).is_symlink():
                continue
            for path in sorted((folder / name).iterdir()):
                if path.suffix in (".js", ".md") and state(path) in ("ours", "edited"):
                    yield f"{name}/{path.name}"


def _sweep(target: Target) -> None:
    """What a kill left of files that we were writing."""
    ours = {target.record.name, *settings.NAMES, *(os.path.basename(name) for name in wanted())}  # noqa: PTH119
    above = [] if target.is_own else [target.folder.parent]
    for where in (target.record.parent, target.folder, *above, *(target.folder / name for name in _FOLDERS)):
        with suppress(OSError):
            for path in where.iterdir():
                name, _, rest = path.name[1:].rpartition(".tmp")[0].rpartition(".")
                if path.name.startswith(".") and name in ours and _is_of_the_dead(rest):
                    path.unlink()


def _is_of_the_dead(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError, OverflowError):
        return False
    return False


def _is_stale(target: Target, path: Path) -> bool:
    return state(path) == "ours" and not target.is_fixed(path)


def _note(path: Path, is_like: State) -> str:
    if is_like == "edited":
        return f"{path} was edited and is kept; for ours: delete it, then opencode-tasks init"
    return f"{path} is not ours and was left alone; for ours: move it away, then opencode-tasks init"
