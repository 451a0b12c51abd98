"""What `init` and `uninstall` do for OpenCode, in every work tree."""

from collections.abc import Callable
from typing import Any

from opencode_tasks.commands.here import Here
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, exclude, workspaces
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.opencode import launcher, present, project


def settle(
    at: Here, noted: dict[str, Any], asked: bool | None, note: Callable[[dict[str, Any]], None]
) -> tuple[list[str], list[str]]:
    """What was changed, and what a person should know. `asked`: what the call says, else what was said last counts.

    Raises `TaskError` for a configuration that cannot be read, when all the rest is done.
    """
    if not (noted.get("wanted", True) if asked is None else asked):
        gone = take_out(at, noted)
        note({"wanted": False})
        return gone, []
    with at.store.registry_lock():  # one at a time writes the excludes
        return _put_in(at, noted, note)


def _put_in(at: Here, noted: dict[str, Any], note: Callable[[dict[str, Any]], None]) -> tuple[list[str], list[str]]:
    trees = _trees(at)
    done: list[str] = []
    notes: list[str] = []
    failed: list[TaskError] = []
    planned = exclude.plan(at.checkout, _lines(trees, failed))
    note({"wanted": True, "exclude": [*noted.get("exclude", []), *([vars(planned)] if planned else [])]})
    if planned is not None:
        exclude.add(at.checkout, planned)
    if launcher.install(at.store.layout.root):
        done.append(f"shell for OpenCode: {launcher.path_in(at.store.layout.root)}")
    for tree in trees:
        try:
            changed, told = project.install_in(tree)
        except TaskError as e:
            failed.append(e)
            continue
        notes += told
        if changed:
            done.append(f"{tree.top / present.FOLDER}: {', '.join(changed)}")
    if failed:
        raise failed[0]
    return done, notes


def take_out(at: Here, noted: dict[str, Any]) -> list[str]:
    """The inverse."""
    done = []
    for tree in _trees(at):
        gone, notes = project.remove_from(tree)
        done += [f"{tree.top / present.FOLDER}: {', '.join(gone)} removed"] if gone else []
        done += notes
    for added in reversed(noted.get("exclude", [])):
        exclude.remove(at.checkout, exclude.Added(**added))
    if launcher.remove(at.store.layout.root):
        done.append("shell for OpenCode removed")
    return done


def _trees(at: Here) -> list[Checkout]:
    return [discovery.find(top, {}) for top in workspaces.work_trees(at.checkout)]


def _lines(trees: list[Checkout], failed: list[TaskError]) -> list[str]:
    """Of a work tree whose configuration cannot be read nothing is known, and nothing goes there."""
    readable = []
    for tree in trees:
        try:
            project.lines([tree])
            readable.append(tree)
        except TaskError as e:
            failed.append(e)
    return project.lines(readable)
