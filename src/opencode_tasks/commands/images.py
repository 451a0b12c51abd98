"""`images`: the container images, built here from `docker-images/`."""

import sys
from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, Table

HELP = "list or build the container images"


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|build")
    actions.add_parser("list", help="the images that are here")
    build = actions.add_parser("build", help="build an image unless this exact one is here")
    build.add_argument("kind", nargs="?", default="base", choices=("base", "developer"))
    build.add_argument("--apt-mirror", default="", help="Debian mirror to install from (default: the foundation's)")
    for action in (*actions.choices.values(),):
        action.add_argument("--json", action="store_true", default=False, help="print one JSON document")


def run(args: Namespace) -> Result:
    from opencode_tasks.containers import images
    from opencode_tasks.containers.engine import Engine

    engine = Engine(timeout_s=3600)
    if args.action == "build":
        image = images.build(engine, args.kind, _progress, apt_mirror=args.apt_mirror)
        return Result(vars(image), f"{image.tag} {'built' if image.built else 'is here already'}")
    found = images.listed(engine)
    rows = [(i.tag, i.id.removeprefix("sha256:")[:12], f"{i.size_bytes / 1e6:.0f} MB") for i in found]
    empty = "No images yet: opencode-tasks images build base"
    return Result({"images": [vars(i) for i in found]}, table=Table(("image", "id", "size"), rows, empty))


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")
