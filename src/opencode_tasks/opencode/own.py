"""Our set in the user's own configuration directory, for all projects: `init --global`. Outside of any repository."""

import os
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.opencode import install as sets
from opencode_tasks.opencode import launcher
from opencode_tasks.opencode.install import Target

RECORD = "installed.json"


def root() -> Path:
    return _base("XDG_DATA_HOME", ".local/share") / "opencode-tasks"


def folder() -> Path:
    named = os.environ.get("OPENCODE_CONFIG_DIR")
    return Path(named).absolute() if named else _base("XDG_CONFIG_HOME", ".config") / "opencode"


def target(where: Path | None = None) -> Target:
    return Target(
        folder=where or folder(),
        record=root() / RECORD,
        backups=root() / "opencode",
        shell=str(launcher.path_in(root())),
        is_own=True,
        is_tracked=lambda _: False,
    )


def install() -> tuple[list[str], list[str]]:
    """What was changed, and what a person should know."""
    done = []
    before = sets.read_record(target()).get("folder")
    if before is not None and Path(before) != folder():
        done += remove()  # OPENCODE_CONFIG_DIR names another one by now
    missing = [str(path) for path in (root(), *root().parents) if not path.is_dir()]
    sets.extend_record(target(), {"folder": str(folder())}, above=missing)
    if launcher.install(root()):
        done.append(f"shell for OpenCode: {launcher.path_in(root())}")
    changed, notes = sets.apply(target())
    return [*done, *([f"{folder()}: {', '.join(changed)}"] if changed else [])], notes


def remove() -> list[str]:
    record = sets.read_record(target())
    where = target(Path(record["folder"])) if "folder" in record else target()
    gone, notes = sets.remove(where)
    done = [f"{where.folder}: {', '.join(gone)} removed"] if gone else []
    if launcher.remove(root()):
        done.append("shell for OpenCode removed")
    sets.remove_folders([root(), *map(Path, record.get("above", ()))])
    return [*done, *notes]


def _base(name: str, default: str) -> Path:
    said = os.environ.get(name, "")
    if said.startswith("/"):  # others are to be ignored, by the XDG specification
        return Path(said)
    try:
        return Path.home() / default
    except RuntimeError as e:
        raise TaskError("Nobody knows where your home directory is", hint="set HOME", code="config") from e
