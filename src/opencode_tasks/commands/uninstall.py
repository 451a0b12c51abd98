"""`uninstall`: the inverse of `init`, to the byte. Memory is kept unless `--purge`."""

import hashlib
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from opencode_tasks.commands import Result, here, init, opencode_set
from opencode_tasks.commands.here import Here
from opencode_tasks.errors import NoEngineError, TaskError
from opencode_tasks.git import backup, exclude, hooks, plumbing
from opencode_tasks.store import files, link

HELP = "take everything out of this repository again; memory stays unless --purge"


def configure(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--purge", action="store_true", help="delete all tasks' memory and volumes too, for good")
    what.add_argument("--global", dest="is_global", action="store_true", help="the inverse of init --global, only")


def run(args: Namespace) -> Result:
    if args.is_global:
        from opencode_tasks.opencode import own

        done = own.remove()
        return Result({"changed": done, "purged": False}, "\n".join(done) or "Nothing to do: it is not installed.")
    at = here.find()
    manifest = init.read_manifest(at)
    done = [*_containers(at), *_volumes(at, purge=args.purge), *_hooks(at, manifest)]
    done += [*opencode_set.take_out(at, manifest.get("opencode", {})), *_settings(at, manifest)]
    for branch, task_id in plumbing.tasks_by_branch(at.checkout).items():
        plumbing.untie_branch(at.checkout, branch)
        done.append(f"branch {branch} untied from task {task_id}")
    for checkout in init.other_checkouts(at):
        checkout.occupant_file.unlink(missing_ok=True)
        link.remove(checkout.top, at.store.layout)
    if "exclude" in manifest:
        exclude.remove(at.checkout, exclude.Added(**manifest["exclude"]))
        done.append(f"{exclude.LINE} taken out of the excludes")
    at.store.layout.branches.unlink(missing_ok=True)
    at.store.layout.installed.unlink(missing_ok=True)
    kept = len(at.store.ids())
    if args.purge and at.store.layout.root.is_dir():
        backup.drop_all(at.checkout)
        files.remove_tree(at.store.layout.root)
        done.append(f"memory of {kept} tasks deleted")
    elif kept:
        done.append(f"memory of {kept} tasks kept in {at.store.layout.store}")
    document = {"changed": done, "purged": bool(args.purge)}
    return Result(document, "\n".join(done) if done else "Nothing to do: opencode-tasks is not installed here.")


def _containers(at: Here) -> list[str]:
    """A container holds nothing that is not in the workspace: it is made anew when needed."""
    from opencode_tasks.containers import sockets

    tasks = at.store.all() if at.store.exists() else []
    if all(task.container.id is None for task in tasks) and not (tasks and sockets.is_used(at.store.clone_id)):
        return []
    from opencode_tasks.containers import sidecar
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.containers.spec import container_name

    done = []
    try:
        engine = Engine()
        for task_id in engine.states(at.store.clone_id):
            engine.remove(container_name(task_id))
            done.append(f"container of {task_id} removed")
        engine.remove(sidecar.name(at.store.clone_id))
        sockets.remove_all(at.store.clone_id)
    except NoEngineError as e:
        done.append(f"containers were left: {e.message}")
    return done


def _volumes(at: Here, *, purge: bool) -> list[str]:
    """What a project keeps in a volume may be found nowhere else."""
    tasks = at.store.all() if at.store.exists() else []
    if all(task.container.engine is None for task in tasks) and not purge:
        return []
    from opencode_tasks.containers import volumes
    from opencode_tasks.containers.engine import Engine

    try:
        engine = Engine()
        names = [found.name for found in volumes.listed(engine, at.store.clone_id)]
    except NoEngineError as e:
        return [f"volumes were left, if there are any: {e.message}"] if tasks else []
    if not purge:
        return [f"volumes kept: {', '.join(names)}; uninstall --purge removes them"] if names else []
    return volumes.remove_told(engine, names)


def _hooks(at: Here, manifest: dict[str, Any]) -> list[str]:
    if "hooks" not in manifest:
        return []
    removed = hooks.remove(at.checkout, hooks.Installed(**manifest["hooks"]))
    return [f"hooks removed: {', '.join(removed)}"] if removed else []


def _settings(at: Here, manifest: dict[str, Any]) -> list[str]:
    written = manifest.get("settings")
    if not written:
        return []
    path = Path(written["path"])
    try:
        same = not path.is_symlink() and hashlib.sha256(path.read_bytes()).hexdigest() == written["sha256"]
    except FileNotFoundError:
        return []
    except OSError as e:
        raise TaskError(f"{path} cannot be read: {e.strerror}") from e
    if not same or plumbing.is_tracked(at.checkout, path):
        return [f"{path} {'is committed' if same else 'was edited'} and is kept"]
    path.unlink()
    if written["made_directory"] and not any(path.parent.iterdir()):
        path.parent.rmdir()
    return [f"{path} removed"]
