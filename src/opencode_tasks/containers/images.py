"""Our images: tagged by the hash of what goes in, built on a miss only, never pulled implicitly."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, cast

from opencode_tasks import assets
from opencode_tasks.containers import building
from opencode_tasks.containers.engine import Engine, engine_errors
from opencode_tasks.containers.spec import LABEL
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store import files
from opencode_tasks.values import value

Kind = Literal["base", "developer"]
KINDS: tuple[Kind, ...] = ("base", "developer")
FOUNDATION = "debian:bookworm-slim"

_PARENTS: dict[Kind, Kind | None] = {"base": None, "developer": "base"}


@value
class Image:
    kind: str
    tag: str
    id: str
    size_bytes: int
    created_at: str
    built: bool = False


def repository(kind: str) -> str:
    return f"localhost/opencode-sandbox-{kind}"


def recipe(kind: Kind) -> str:
    """The hash of our own part: every file of the image's folder, and its parents'."""
    digest = hashlib.sha256()
    parent = _PARENTS[kind]
    if parent is not None:
        digest.update(recipe(parent).encode())
    folder = _folder(kind)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content_b = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0{len(content_b)}\0".encode())
        digest.update(content_b)
    return digest.hexdigest()


def build(
    engine: Engine,
    kind: Kind,
    progress: Callable[[str], None],
    *,
    apt_mirror: str = "",
    watch: building.Watch = building.unwatched,
) -> Image:
    """The image of `kind`, built if this exact one is not there yet (its parents first)."""
    parent = _PARENTS[kind]
    if parent is None:
        base = _foundation(engine, progress, watch)
    else:
        base = build(engine, parent, progress, apt_mirror=apt_mirror, watch=watch)
    # Everything that decides what is in it: recipe, arguments, the base's contents (and so the platform).
    key = hashlib.sha256(json.dumps([recipe(kind), apt_mirror, base.id]).encode()).hexdigest()
    tag = f"{repository(kind)}:{key[:16]}"
    found = inspect(engine, tag, kind)
    if found is not None:
        return found
    progress(f"building {tag} from {base.tag}")
    with engine_errors(f"Building {tag}"):
        stream = engine.api.build(
            fileobj=_context(_folder(kind)),
            custom_context=True,
            encoding="gzip",
            tag=tag,
            rm=True,
            forcerm=True,
            pull=False,
            buildargs={"BASE": base.tag, "APT_MIRROR": apt_mirror},
            labels={f"{LABEL}.image": kind, f"{LABEL}.recipe": recipe(kind)},
            decode=True,
        )
        building.drain(engine, stream, tag, progress, watch)
    made = inspect(engine, tag, kind, built=True)
    if made is None:
        raise TaskError(f"The engine built {tag} but does not have it", hint="opencode-tasks doctor")
    return made


def newest(engine: Engine, kind: Kind) -> Image:
    """The image of `kind` that matches this version's recipe. Raises `TaskError`, code `image_missing`."""
    images = matching(engine, kind, recipe(kind))
    if not images:
        raise TaskError(
            f"The image opencode-sandbox-{kind} is not built yet, or is of another version of opencode-tasks",
            hint=f"opencode-tasks images build {kind}",
            code="image_missing",
        )
    return images[0]


def matching(engine: Engine, kind: str, recipe_hash: str) -> list[Image]:
    """Ours that were built by this recipe, newest first."""
    # Of two labels, podman 4.3 finds no image that has both.
    return [image for image in _listed(engine, {"label": [f"{LABEL}.recipe={recipe_hash}"]}) if image.kind == kind]


def environment(engine: Engine, tag: str) -> dict[str, str]:
    """What the image sets by itself."""
    with engine_errors(f"Looking for image {tag}"):
        seen = engine.api.inspect_image(tag)  # type: ignore[no-untyped-call] # in types-docker
    return dict(line.partition("=")[::2] for line in seen["Config"]["Env"] or [])


def listed(engine: Engine) -> list[Image]:
    """Ours, newest first."""
    return _listed(engine, {"label": [f"{LABEL}.image"]})


def superfluous(engine: Engine) -> list[Image]:
    """Ours that nothing would be made from any more: other versions', and older ones of this."""
    kept = set()
    for kind in KINDS:
        with suppress(TaskError):
            kept.add(newest(engine, kind).tag)
    kept |= _newest_of_projects(engine)
    return [image for image in listed(engine) if image.tag not in kept]


def _newest_of_projects(engine: Engine) -> set[str]:
    """The last that each clone built of its own Dockerfile."""
    with engine_errors("Listing images"):
        seen = engine.api.images(filters={"label": f"{LABEL}.image=project"})
    newest_by_clone: dict[str, str] = {}
    for one in sorted(seen, key=lambda i: cast(int, i["Created"])):
        for tag in (one["RepoTags"] or [])[:1]:
            newest_by_clone[one["Labels"].get(f"{LABEL}.clone", "")] = tag
    return set(newest_by_clone.values())


def remove(engine: Engine, image: Image) -> bool:
    """False: a container is made of it."""
    with suppress(ConflictError), engine_errors(f"Removing {image.tag}"):
        engine.api.remove_image(image.tag)
        return True
    return False


def save(engine: Engine, kind: Kind, path: Path, progress: Callable[[str], None]) -> Image:
    """The newest of its kind, in the form of `docker save`; compressed when the name ends in `.gz`.

    Whole or not at all.
    """
    found = newest(engine, kind)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.building")
    try:
        with engine_errors(f"Saving {found.tag}"), files.refused_writes(path):
            pieces = engine.api.get_image(found.tag, chunk_size=_PIECE_BYTES)
            try:
                with _writer(unfinished, path.name.endswith(".gz")) as f:
                    for done in _copied(pieces, f):
                        progress(f"{done / 1e6:.0f} of about {found.size_bytes / 1e6:.0f} MB")
            finally:
                for _ in pieces:  # to its end even after an error: the connection is the engine's to close
                    pass
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return found


def load(
    engine: Engine, path: Path, progress: Callable[[str], None], watch: building.Watch = building.unwatched
) -> list[Image]:
    """What `save` wrote. Gives those of ours that are new here; raises `TaskError` for a file without any."""
    before = {image.tag for image in listed(engine)}
    try:
        with path.open("rb") as f, engine_errors(f"Loading {path}"):
            for part in engine.api.load_image(f):  # type: ignore[no-untyped-call]
                said = part.get("stream") or part.get("status") or ""
                if part.get("progressDetail"):
                    watch(building.moving(part))
                elif said.strip():
                    progress(said.strip())
                if part.get("error"):
                    raise TaskError(f"{path} is no saved image: {part['error']}", hint="images save makes one")
    except OSError as e:
        raise TaskError(f"{path} cannot be read: {e.strerror}", hint="opencode-tasks images load FILE") from e
    return [image for image in listed(engine) if image.tag not in before]


_PIECE_BYTES = 1 << 20


@contextmanager
def _writer(path: Path, is_packed: bool) -> Iterator[IO[bytes]]:
    with path.open("xb") as f:
        if is_packed:
            with gzip.GzipFile(filename="", mode="wb", fileobj=f, compresslevel=1, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield f
        f.flush()
        os.fsync(f.fileno())


def _copied(pieces: Iterator[bytes], f: IO[bytes]) -> Iterator[int]:
    done = 0
    for piece in pieces:
        f.write(piece)
        done += len(piece)
        yield done


def resolve(engine: Engine, wanted: str | None) -> str:
    """The reference to create a container from: what the user named, or our base image's tag."""
    if wanted in (None, "", "base"):
        return newest(engine, "base").tag
    if wanted == "developer":
        return newest(engine, "developer").tag
    assert wanted is not None  # noqa: S101 (for mypy)
    if inspect(engine, wanted, "user") is None:
        raise TaskError(
            f"The engine has no image {wanted}; images are never pulled behind your back",
            hint=f"docker pull {wanted}",
            code="image_missing",
        )
    return wanted


def _folder(kind: Kind) -> Path:
    return assets.root() / "docker-images" / f"opencode-sandbox-{kind}"


def _foundation(engine: Engine, progress: Callable[[str], None], watch: building.Watch) -> Image:
    found = inspect(engine, FOUNDATION, "foundation")
    if found is not None:
        return found
    progress(f"pulling {FOUNDATION}")
    try:
        with engine_errors(f"Pulling {FOUNDATION}"):
            building.pulled(engine.api.pull(FOUNDATION, stream=True, decode=True), FOUNDATION, watch)
    except TaskError as e:
        raise TaskError(
            f"{FOUNDATION} is not here and cannot be pulled ({e.message})",
            hint=f"make it from the Debian mirror, as root: {assets.root() / 'docker-images' / 'debian-base'}",
            code="image_missing",
        ) from e
    pulled = inspect(engine, FOUNDATION, "foundation")
    if pulled is None:
        raise TaskError(f"The engine pulled {FOUNDATION} but does not have it", code="image_missing")
    return pulled


def inspect(engine: Engine, tag: str, kind: str, *, built: bool = False) -> Image | None:
    """None: the engine has no such image."""
    from docker.errors import ImageNotFound

    with engine_errors(f"Looking for image {tag}"):
        try:
            seen = engine.api.inspect_image(tag)  # type: ignore[no-untyped-call] # in types-docker
        except ImageNotFound:
            return None
    return Image(kind, tag, seen["Id"], seen["Size"], seen["Created"], built)


def _listed(engine: Engine, filters: dict[str, list[str]]) -> list[Image]:
    """By our names too: an image that somebody builds from ours has our labels."""
    with engine_errors("Listing images"):
        seen = engine.api.images(filters=filters)
    seen.sort(key=lambda i: cast(int, i["Created"]), reverse=True)
    made = []
    for i in seen:
        kind = i["Labels"].get(f"{LABEL}.image", "")
        tag = next((t for t in i["RepoTags"] or [] if t.startswith(f"{repository(kind)}:")), None)
        if tag is not None:
            made.append(Image(kind, tag, i["Id"], i["Size"], str(i["Created"])))
    return made


def _context(folder: Path) -> io.BytesIO:
    """A build context with nothing of this machine in it: no owner, no time."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            with path.open("rb") as f:
                tar.addfile(entry, f)
    made.seek(0)
    return made
