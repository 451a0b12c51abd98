"""`images`: the container images, built here from `docker-images/`."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.commands import Result, Table

if TYPE_CHECKING:
    from opencode_tasks.containers.engine import Engine

HELP = "list, build, remove, save or load the container images"
_KINDS = ("base", "developer")


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|build|prune|save|load")
    actions.add_parser("list", help="the images that are here")
    build = actions.add_parser("build", help="build an image unless this exact one is here")
    build.add_argument("kind", nargs="?", default="base", choices=_KINDS)
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

    image = images.build(engine, args.kind, _tell, apt_mirror=args.apt_mirror)
    return Result(vars(image), f"{image.tag} {'built' if image.built else 'is here already'}")


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

    loaded = images.load(engine, args.file, _tell)
    lines = [f"{image.tag} loaded" for image in loaded] or ["Nothing in it is new here."]
    return Result({"images": [vars(i) for i in loaded]}, "\n".join(lines))


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _tell_in_place(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line}")
