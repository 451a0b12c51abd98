"""`images`: the container images, built here from `docker-images/`."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.commands import Result, Table, here
from opencode_tasks.commands.progress import layers
from opencode_tasks.errors import NoTaskError, TaskError
from opencode_tasks.git import plumbing

if TYPE_CHECKING:
    from opencode_tasks.containers.building import Layer
    from opencode_tasks.containers.engine import Engine
    from opencode_tasks.containers.images import Image

HELP = "list, build, remove, save or load the container images"
_KINDS = ("base", "developer")


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|build|prune|save|load")
    actions.add_parser("list", help="the images that are here")
    build = actions.add_parser("build", help="build an image unless this exact one is here")
    build.add_argument("kind", nargs="?", default="base", choices=(*_KINDS, "project"))
    build.add_argument("--task", help="whose base commit's devcontainer.json (default: the branch here, else HEAD)")
    build.add_argument("--apt-mirror", default="", help="Debian mirror to install from (default: the foundation's)")
    prune = actions.add_parser("prune", help="remove those of ours that no task would be started from any more")
    prune.add_argument("--dry-run", action="store_true", help="only tell which")
    save = actions.add_parser("save", help="write an image to a file, for a machine without a network")
    save.add_argument("file", type=Path, help="compressed when its name ends in .gz")
    save.add_argument("kind", nargs="?", default="base", choices=_KINDS)
    load = actions.add_parser("load", help="read what `save` wrote")
    load.add_argument("file", type=Path)
    for action in (*actions.choices.values(),):
        action.add_argument("--json", action="store_true", default=False, help="print one JSON document")


def run(args: Namespace) -> Result:
    from opencode_tasks.containers.engine import Engine

    engine = Engine(timeout_s=3600)
    does = {"list": _list, "build": _build, "prune": _prune, "save": _save, "load": _load}
    return does[args.action](engine, args)


def _list(engine: "Engine", args: Namespace) -> Result:
    del args
    from opencode_tasks.containers import images

    found = images.listed(engine)
    rows = [(i.tag, i.id.removeprefix("sha256:")[:12], f"{i.size_bytes / 1e6:.0f} MB") for i in found]
    empty = "No images yet: opencode-tasks images build base"
    return Result({"images": [vars(i) for i in found]}, table=Table(("image", "id", "size"), rows, empty))


def _build(engine: "Engine", args: Namespace) -> Result:
    from opencode_tasks.containers import images

    with layers() as (tell, watch):
        if args.kind == "project":
            image = _build_project(engine, args.task, tell, watch)
        else:
            image = images.build(engine, args.kind, tell, apt_mirror=args.apt_mirror, watch=watch)
    return Result(vars(image), f"{image.tag} {'built' if image.built else 'is here already'}")


def _build_project(
    engine: "Engine", task_named: str | None, tell: Callable[[str], None], watch: "Callable[[Layer], None]"
) -> "Image":
    """What `devcontainer.json` of the commit builds: a person's decision, for its commands run as the build's root."""
    from opencode_tasks.containers import project, project_image

    here.require_person("lets the commands of a project's Dockerfile run")
    at = here.ready()
    commit, workspace, owner = plumbing.head_commit(at.checkout), str(at.checkout.top), ""
    with suppress(NoTaskError) if task_named is None else nullcontext():
        task = at.task(task_named)
        commit, workspace, owner = task.base.commit, task.workspace.path, f"{at.store.clone_id} {task.id}"
    if commit is None:
        raise TaskError("The repository has no commits yet", hint="commit a devcontainer.json first", code="no_commits")
    found = project.read(at.checkout, at.config, commit, workspace=workspace, owner=owner)
    if found is None:
        raise project.missing(commit)
    for warning in found.warnings:
        tell(warning)
    build = found.required().build
    if build is None:
        raise TaskError(
            f"{found.path} of commit {commit[:9]} has no Dockerfile to build",
            hint=f"docker pull {found.image}" if found.image else "opencode-tasks images build base",
            code="devcontainer",
        )
    recipe = project_image.recipe(at.checkout, commit, build)
    return project_image.build(engine, at.checkout, recipe, at.store.clone_id, tell, watch)


def _prune(engine: "Engine", args: Namespace) -> Result:
    from opencode_tasks.containers import images

    removed: list[str] = []
    in_use: list[str] = []
    for image in images.superfluous(engine):
        (removed if args.dry_run or images.remove(engine, image) else in_use).append(image.tag)
    would = "would be removed" if args.dry_run else "removed"
    lines = [f"{tag} {would}" for tag in removed] + [f"{tag} kept: a container is made of it" for tag in in_use]
    document = {"removed": removed, "in_use": in_use, "dry_run": args.dry_run}
    return Result(document, "\n".join(lines) or "Nothing to remove.")


def _save(engine: "Engine", args: Namespace) -> Result:
    from opencode_tasks.containers import images

    saved = images.save(engine, args.kind, args.file, _tell_in_place)
    size_bytes = args.file.stat().st_size
    document = {"file": str(args.file), "size_bytes": size_bytes, "image": vars(saved)}
    return Result(document, f"{saved.tag} is in {args.file} ({size_bytes / 1e6:.0f} MB)")


def _load(engine: "Engine", args: Namespace) -> Result:
    from opencode_tasks.containers import images

    with layers() as (tell, watch):
        loaded = images.load(engine, args.file, tell, watch)
    lines = [f"{image.tag} loaded" for image in loaded] or ["Nothing in it is new here."]
    return Result({"images": [vars(i) for i in loaded]}, "\n".join(lines))


def _tell_in_place(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line}")
