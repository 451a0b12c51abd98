"""What `doctor` finds out about OpenCode: whether all is well, the finding, the fix. Changes nothing."""

import json
import os
import re
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from opencode_tasks.commands.here import Here
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, workspaces
from opencode_tasks.marked import read
from opencode_tasks.opencode import edit, install, launcher, present, project, settings
from opencode_tasks.proc import run

Finding = tuple[bool, str, str]

PROGRAM = "opencode"
_OLDEST, _BEYOND = (1, 18), (2, 0)
_PATIENCE_S = 30
_OFF = "not set up here: init --opencode does it"
_QUIET = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1", "npm_config_fetch_retries": "0"}


def version(at: Here) -> Finding:
    if not present.is_set_up(at.checkout):
        return True, _OFF, ""
    path = shutil.which(PROGRAM)
    if path is None:
        return True, "there is no opencode on PATH: its version is not known", ""
    said, number = _version(path, at.checkout.top)
    if number is None:
        return False, f"{path} does not tell its version: {said}", "npm install -g opencode-ai@1"
    fix = "npm install -g opencode-ai@1"
    if number >= _BEYOND:
        return False, f"{said}, {path}: OpenCode 2 does not run plugins like ours, nor our memory and protection", fix
    if number < _OLDEST:
        return False, f"{said}, {path}: older than {'.'.join(map(str, _OLDEST))}, with which it was never tried", fix
    return True, f"{said}, {path}", ""


def whole_files(at: Here) -> Finding:
    """In every work tree: they may stand on another version of ours, or of somebody else's."""
    if not present.is_set_up(at.checkout):
        return True, _OFF, ""
    bad = [] if launcher.is_current(at.store.layout.root) else [f"{launcher.path_in(at.store.layout.root)} outdated"]
    wanted = install.wanted()
    tops = workspaces.work_trees(at.checkout)
    for top in tops:
        target = project.target(discovery.find(top, {}))
        for name, is_like in install.states(target, wanted).items():
            path = target.folder / name
            if is_like == "ours" and path.read_bytes() != wanted[name]:
                bad.append(f"{path} outdated")
            elif is_like != "ours":
                bad.append(f"{path} {is_like}")
    if not bad:
        return True, f"{len(wanted)} files in each of {len(tops)} work trees", ""
    return False, "; ".join(bad), "opencode-tasks init; it says what it leaves alone"


def shell(at: Here) -> Finding:
    """Which shell OpenCode takes here, by its own word where it is there to be asked."""
    if not present.is_set_up(at.checkout):
        return True, _OFF, ""
    ours = str(launcher.path_in(at.store.layout.root))
    how = "by `opencode debug config`"
    try:
        said, where = _asked(at), ""
    except TaskError as e:
        said, where = _read(at.checkout.top)
        how = f"by its files ({e.message})"
    if said == ours:
        return True, f"{ours}, {how}", ""
    found = f"{said or 'the default shell'}{f' of {where}' if where else ''} instead of {ours}, {how}"
    return False, found, "opencode-tasks init; if that changes nothing, another configuration comes after ours"


@cache
def _version(path: str, top: Path) -> tuple[str, tuple[int, ...] | None]:
    try:
        done = run((path, "--version"), cwd=top, env=_environment(top), timeout_s=_PATIENCE_S, check=False)
    except (TaskError, OSError) as e:
        return str(e), None
    said = done.out.strip()
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.\d+\S*", said)
    return said[:80], None if found is None else (int(found[1]), int(found[2]))


def _asked(at: Here) -> str | None:
    """Without its plugins, for which it would wait for its registry."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise TaskError("there is no opencode on PATH")
    _, number = _version(path, at.checkout.top)
    if number is None or not _OLDEST <= number < _BEYOND:
        raise TaskError("opencode is of another version")
    words = (path, "--pure", "debug", "config")
    top = at.checkout.top
    done = run(words, cwd=top, env=_environment(top), timeout_s=_PATIENCE_S, check=False)
    if done.code != 0:
        raise TaskError(f"opencode failed: {(done.err or done.out).strip()[-200:]}")
    try:
        said = json.loads(done.out).get(settings.KEY)
    except (ValueError, AttributeError) as e:
        raise TaskError("opencode did not say it as JSON") from e
    return said if isinstance(said, str) else None


def _environment(top: Path) -> dict[str, str]:
    return {**os.environ, **_QUIET, "PWD": str(top)}  # it goes by that, and not by the directory it is in


def _read(top: Path) -> tuple[str | None, str]:
    """What its files say, the last word first; and where."""
    with suppress(KeyError, ValueError):
        said = edit.look(os.environ["OPENCODE_CONFIG_CONTENT"], [settings.KEY])
        if isinstance(said, str):
            return said, "OPENCODE_CONFIG_CONTENT"
    named = os.environ.get("OPENCODE_CONFIG_DIR")
    folders = [*([Path(named)] if named else []), Path.home() / present.FOLDER, top / present.FOLDER, top]
    for path in (folder / name for folder in folders for name in settings.NAMES):
        with suppress(OSError, ValueError):
            said = edit.look(read(path.resolve()).decode(), [settings.KEY])
            if isinstance(said, str):
                return said, str(path)
    return None, ""
