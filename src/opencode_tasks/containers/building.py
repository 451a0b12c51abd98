"""What an engine tells while it builds, pulls or loads: steps, layers and their sizes."""

from collections.abc import Callable
from typing import Any, cast

from opencode_tasks.containers.engine import Engine
from opencode_tasks.errors import TaskError
from opencode_tasks.values import value


@value
class Layer:
    """`id`: the same one is told of again as it grows. `of_bytes`: 0 when nobody knows yet.

    `step` of `steps` while an image is built; 0 for a layer that comes from elsewhere.
    """

    id: str
    text: str
    done_bytes: int = 0
    of_bytes: int = 0
    step: int = 0
    steps: int = 0


Watch = Callable[[Layer], None]


def unwatched(layer: Layer) -> None:
    del layer


def drain(engine: Engine, stream: object, tag: str, progress: Callable[[str], None], watch: Watch = unwatched) -> None:
    """To its end, even after an error: the connection is the engine's to close.

    Raises `TaskError` (code `build_failed`) with the last lines.
    """
    said: list[str] = []
    error, size_bytes = "", 0
    now = Layer("", "")
    for part in cast("list[dict[str, Any]]", stream):
        error = str(part.get("error", error))
        text = str(part.get("stream", "")).rstrip()
        if text:
            said.append(text)
            del said[:-_KEPT]
        if text.startswith("Step "):
            progress(text)
            now = _step(text)
            watch(now)
        elif text.startswith(" ---> ") and now.id:
            grown = _size(engine, text.removeprefix(" ---> ").strip())
            if grown is not None:
                watch(
                    Layer(now.id, now.text, max(0, grown - size_bytes), max(0, grown - size_bytes), now.step, now.steps)
                )
                size_bytes = grown
        elif "progressDetail" in part:
            watch(moving(part))
    if error:
        shown = "\n".join(said)
        raise TaskError(f"Building {tag} failed: {error.strip()}\n{shown}", code="build_failed")


_KEPT = 15


def pulled(stream: object, tag: str, watch: Watch) -> None:
    """To its end. Raises `TaskError` when it failed."""
    error = ""
    for part in cast("list[dict[str, Any]]", stream):
        error = str(part.get("error", error))
        if "progressDetail" in part:
            watch(moving(part))
    if error:
        raise TaskError(f"Pulling {tag} failed: {error}")


def moving(part: dict[str, Any]) -> Layer:
    """A layer that is pulled or loaded."""
    detail = part.get("progressDetail") or {}
    done, total = (int(detail.get(name) or 0) for name in ("current", "total"))
    return Layer(str(part.get("id", "")), str(part.get("status", "")), done, total)


def _step(text: str) -> Layer:
    """`Step 3/7 : RUN …`"""
    counted, _, what = text.removeprefix("Step ").partition(" : ")
    number, _, of = counted.partition("/")
    step, steps = (int(n) if n.isdigit() else 0 for n in (number, of))
    return Layer(f"step {step}", what, step=step, steps=steps)


def _size(engine: Engine, image: str) -> int | None:
    """Of an intermediate image; ` ---> Running in …` and ` ---> Using cache` are none."""
    from docker.errors import DockerException

    if not image.isalnum():
        return None
    try:
        seen = engine.api.inspect_image(image)  # type: ignore[no-untyped-call] # in types-docker
        return int(seen["Size"])
    except DockerException:
        return None
