"""The image that a project's own Dockerfile makes: of a commit's files, never of the work tree's.

An agent can write the work tree; a commit that a task began from, it cannot.
"""

import hashlib
import io
import json
import posixpath
import tarfile
import tempfile
from collections.abc import Callable
from typing import IO, Any, cast

from opencode_tasks.containers import building, dockerfile, images
from opencode_tasks.containers.devcontainer import Build
from opencode_tasks.containers.engine import Engine, engine_errors
from opencode_tasks.containers.images import Image
from opencode_tasks.containers.spec import LABEL
from opencode_tasks.errors import TaskError
from opencode_tasks.git import trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from opencode_tasks.values import value

KIND = "project"
_LARGEST_CONTEXT_BYTES = 512 << 20
_LARGEST_DOCKERFILE_BYTES = 1 << 20
_OWN_NAME = ".opencode-tasks.Dockerfile"


@value
class Recipe:
    """`hash`: of everything that the repository gives to the image."""

    build: Build
    commit: str
    text: str
    needs: dockerfile.Needs
    hash: str


def recipe(checkout: Checkout, commit: str, build: Build) -> Recipe:
    """Raises `TaskError` (code `devcontainer`) for a Dockerfile that is not there, or cannot be used."""
    found = trees.entry(checkout, commit, build.dockerfile)
    if found is None or not found.is_file or found.size_bytes > _LARGEST_DOCKERFILE_BYTES:
        why = "is not there" if found is None else "is no ordinary file" if not found.is_file else "is too large"
        raise _refused(
            f"{build.dockerfile} {why} in commit {commit[:9]}", "a Dockerfile that is committed, and no link"
        )
    (text_b,) = trees.contents(checkout, [found])
    try:
        text = text_b.decode()
        needs = dockerfile.needs(text, build.args, build.target)
    except ValueError as e:
        raise _refused(f"{build.dockerfile}: {e}", "mend it and commit, then make a task from there") from e
    seen = [found.sha, sorted(build.args.items()), build.target]
    if needs.context:
        kept = _kept(checkout, commit, build)
        seen += [[e.mode, e.sha, e.path] for e in kept]
    return Recipe(build, commit, text, needs, hashlib.sha256(json.dumps(seen).encode()).hexdigest())


def resolve(engine: Engine, wanted: Recipe) -> str:
    """The tag of its newest image. Raises `TaskError`, code `image_missing`."""
    found = images.matching(engine, KIND, wanted.hash)
    if not found:
        raise TaskError(
            f"The image of {wanted.build.dockerfile} (commit {wanted.commit[:9]}) is not built yet",
            hint="opencode-tasks images build project",
            code="image_missing",
        )
    return found[0].tag


def build(
    engine: Engine,
    checkout: Checkout,
    wanted: Recipe,
    clone: str,
    progress: Callable[[str], None],
    watch: building.Watch,
) -> Image:
    """The image, built if this exact one is not there yet. Raises `TaskError` when what it begins from is missing."""
    ids = [_base(engine, name) for name in wanted.needs.images]
    tag = f"{images.repository(KIND)}:{hashlib.sha256(json.dumps([wanted.hash, ids]).encode()).hexdigest()[:16]}"
    found = images.inspect(engine, tag, KIND)
    if found is not None:
        return found
    progress(f"building {tag} from {wanted.build.dockerfile} of commit {wanted.commit[:9]}")
    with tempfile.TemporaryFile() as context:
        name = _write_context(checkout, wanted, context, progress)
        context.seek(0)
        with engine_errors(f"Building {tag}"):
            stream = engine.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=name,
                tag=tag,
                rm=True,
                forcerm=True,
                pull=False,
                buildargs=dict(wanted.build.args),
                target=cast(str, wanted.build.target or None),
                labels={
                    f"{LABEL}.image": KIND,
                    f"{LABEL}.recipe": wanted.hash,
                    f"{LABEL}.clone": clone,
                },
                decode=True,
            )
            building.drain(engine, stream, tag, progress, watch)
    made = images.inspect(engine, tag, KIND, built=True)
    if made is None:
        raise TaskError(f"The engine built {tag} but does not have it", hint="opencode-tasks doctor")
    return made


def _base(engine: Engine, name: str) -> str:
    found = images.inspect(engine, name, "user")
    if found is None:
        raise TaskError(
            f"The Dockerfile needs {name}, which the engine does not have; images are never pulled behind your back",
            hint=f"docker pull {name}; without a network: opencode-tasks images load FILE",
            code="image_missing",
        )
    return found.id


def _kept(checkout: Checkout, commit: str, wanted: Build) -> list[trees.Entry]:
    """The context less what `.dockerignore` leaves out. Raises `TaskError` for a link that leaves it."""
    from docker.utils.build import PatternMatcher

    found = trees.entries(checkout, commit, wanted.context)
    ignore = next((e for e in found if e.path == ".dockerignore" and e.is_file and e.size_bytes < 1 << 20), None)
    if ignore is not None:
        (text_b,) = trees.contents(checkout, [ignore])
        lines = [line.strip() for line in text_b.decode(errors="replace").splitlines()]
        matcher = PatternMatcher([line for line in lines if line and not line.startswith("#")])
        found = [e for e in found if not matcher.matches(cast(Any, e.path))]
    if sum(e.size_bytes for e in found) > _LARGEST_CONTEXT_BYTES:
        raise _refused(
            f"The build's context has more than {_LARGEST_CONTEXT_BYTES >> 20} MiB",
            "leave files out with .dockerignore",
        )
    links = [e for e in found if e.mode == trees.LINK]
    for link, target_b in zip(links, trees.contents(checkout, links), strict=True):
        if trees.leaves(link.path, target_b.decode(errors="replace")):
            raise _refused(
                f"The link {link.path} in the build's context leads out of it", "leave it out with .dockerignore"
            )
    return found


def _write_context(checkout: Checkout, wanted: Recipe, into: IO[bytes], progress: Callable[[str], None]) -> str:
    """A tar archive with nothing of this machine in it; the name that the Dockerfile has there."""
    kept = _kept(checkout, wanted.commit, wanted.build) if wanted.needs.context else []
    for one in kept:
        if one.mode == trees.SUBMODULE:
            progress(f"{one.path} is a submodule: its files are not in the build's context")
    sent = [e for e in kept if e.is_file or e.mode == trees.LINK]
    with files.refused_writes(tempfile.gettempdir()), tarfile.open(fileobj=into, mode="w") as tar:
        for one, content_b in zip(sent, trees.contents(checkout, sent), strict=True):
            entry = tarfile.TarInfo(one.path)
            entry.mode = 0o755 if one.mode == trees.EXECUTABLE else 0o644
            if one.mode == trees.LINK:
                entry.type, entry.linkname = tarfile.SYMTYPE, content_b.decode("utf-8", "surrogateescape")
                tar.addfile(entry)
            else:
                entry.size = len(content_b)
                tar.addfile(entry, io.BytesIO(content_b))
        name = posixpath.relpath(wanted.build.dockerfile, wanted.build.context or ".")
        if name not in [e.path for e in sent if e.is_file]:
            name = _OWN_NAME
            entry = tarfile.TarInfo(name)
            entry.size = len(wanted.text.encode())
            tar.addfile(entry, io.BytesIO(wanted.text.encode()))
    return name


def _refused(message: str, hint: str) -> TaskError:
    return TaskError(message, hint=hint, code="devcontainer")
