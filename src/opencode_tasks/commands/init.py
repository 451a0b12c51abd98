"""`init`: hooks, the store, its link and exclude line, the settings file, OpenCode's. Again: nothing changes."""

import hashlib
import json
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from contextlib import suppress
from typing import Any

from opencode_tasks import config
from opencode_tasks.commands import Result, here, opencode_set
from opencode_tasks.commands.here import Here
from opencode_tasks.containers import handover
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, exclude, hooks, plumbing, workspaces
from opencode_tasks.store import files, link

HELP = "set this repository up: hooks, store, settings"


def configure(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--opencode",
        action=BooleanOptionalAction,
        help="set OpenCode up in every work tree, or take that out; as it was said last (default: set it up)",
    )
    what.add_argument(
        "--global", dest="is_global", action="store_true", help="only OpenCode, for all projects of this user"
    )


def run(args: Namespace) -> Result:
    if args.is_global:
        from opencode_tasks.opencode import own

        changed, notes = own.install()
        return _result(changed, notes, {})
    at = here.find()
    done = [
        *_make_store(at),
        *_install_hooks(at),
        *_write_settings(at),
        *_add_exclude(at),
        *_link(at),
        *_tie(at),
    ]
    switched = workspaces.switch(at.store, at.checkout, at.config, actor=at.actor)
    done += handover.after(at.store, at.checkout, at.config, switched.left, None)
    if switched.created and switched.entered:
        done.append(f"task {switched.entered.id} created for branch {switched.entered.branch}")
        handover.after(at.store, at.checkout, at.config, None, switched.entered)
    done += _containers(at)
    changed, notes = opencode_set.settle(
        at, read_manifest(at).get("opencode", {}), args.opencode, lambda told: _note(at, "opencode", told, again=True)
    )
    done += changed
    more = [f"Start a task: git checkout -b {at.config.branch.prefix}<name>, or opencode-tasks create-task TITLE"]
    return _result(done, [*notes, *(more if done else ())], {"store": str(at.store.layout.store)})


def _result(done: list[str], notes: list[str], more: dict[str, str]) -> Result:
    text = "\n".join([*(done or ["Nothing to do: everything is in place."]), *notes])
    return Result({"changed": done, **more}, text)


def read_manifest(at: Here) -> dict[str, Any]:
    """What `init` changed, for `uninstall`. Empty when nothing was recorded."""
    try:
        found: dict[str, Any] = json.loads(at.store.layout.installed.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _note(at: Here, key: str, value: object, *, again: bool = False) -> None:
    """The first `init` knows how it was before; later ones must not overwrite that, unless they know more."""
    manifest = read_manifest(at)
    if key not in manifest or (again and manifest[key] != value):
        files.replace(at.store.layout.installed, json.dumps({**manifest, key: value}).encode(), durable=True)


def _make_store(at: Here) -> list[str]:
    made = at.store.make()
    with at.store.registry_lock():
        swept = at.store.sweep_unfinished()
    done = [f"store made in {at.store.layout.root}"] if made else []
    return done + [f"half-made task {name} removed" for name in swept]


def _write_settings(at: Here) -> list[str]:
    import tomli_w

    path = at.checkout.top / config.FILE
    if path.exists() or path.is_symlink():
        return []
    if path.parent.is_symlink():
        raise TaskError(f"{path.parent} is a symbolic link", hint="make it a directory", code="config")
    content_b = tomli_w.dumps(config.defaults()).encode()
    made_directory = not path.parent.is_dir()
    with files.refused_writes(path):
        path.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256(content_b).hexdigest()
    _note(at, "settings", {"path": str(path), "sha256": digest, "made_directory": made_directory})
    files.replace(path, content_b)
    return [f"{config.FILE} written"]


def _add_exclude(at: Here) -> list[str]:
    planned = exclude.plan(at.checkout)
    if planned is None:
        return []
    _note(at, "exclude", vars(planned))  # first: `uninstall` must know of a line that a kill leaves here
    exclude.add(at.checkout, planned)
    return [f"{exclude.LINE} excluded in {exclude.path_of(at.checkout)}"]


def _link(at: Here) -> list[str]:
    done = []
    for top in workspaces.work_trees(at.checkout):
        before = link.state(top, at.store.layout)
        after = link.ensure(top, at.store.layout)
        if after == "wrong":
            done.append(f"{top / '.tasks'} is something else and was left alone; the store works without the link")
        elif before != after:
            done.append(f"{top / '.tasks'} links to the store")
    return done


def _install_hooks(at: Here) -> list[str]:
    without, known = at.config.hooks.without, hooks.names()
    if unknown := set(without) - set(known):
        raise TaskError(
            f"hooks.without: there is no hook {min(unknown)!r}", hint=f"one of: {', '.join(known)}", code="config"
        )
    states = hooks.states(plumbing.hooks_dir(at.checkout), sys.executable)
    is_there = {name: state in ("current", "chained") for name, state in states.items()}
    if all(is_there[name] != (name in without) for name in is_there) and "hooks" in read_manifest(at):
        return []
    installed = hooks.install(at.checkout, sys.executable, at.store.layout.root, without=without)
    _note(at, "hooks", vars(installed))
    return [f"hooks installed in {installed.directory}: {', '.join(name for name in known if name not in without)}"]


def _tie(at: Here) -> list[str]:
    """After an `uninstall`: the branches know their tasks again."""
    tied = plumbing.tasks_by_branch(at.checkout)
    branches = set(workspaces.local_branches(at.checkout))
    done = []
    for task in at.store.all():
        if task.is_open and task.branch in branches and task.branch not in tied:
            plumbing.tie_branch(at.checkout, task.branch, task.id)
            tied[task.branch] = task.id
            done.append(f"branch {task.branch} belongs to task {task.id} again")
    return done


def _containers(at: Here) -> list[str]:
    """What goes without starting or deleting any; nothing without an engine, which is for `doctor` to say."""
    if all(task.container.id is None for task in at.store.all()):
        return []
    from opencode_tasks.containers import agreement
    from opencode_tasks.containers.engine import Engine

    with suppress(TaskError):
        did = agreement.quick(at.store, Engine(timeout_s=10), at.config, actor=at.actor)
        return [f"container of {action.task}: {action.action}, {action.why}" for action in did]
    return []


def other_checkouts(at: Here) -> list[discovery.Checkout]:
    return [discovery.find(top, {}) for top in workspaces.work_trees(at.checkout)]
