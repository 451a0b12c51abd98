"""How far a long step is: on a terminal, and only when it takes longer than a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opencode_tasks.containers.building import Layer

_PATIENCE_S = 1.0


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what to call with how many are done, of how many."""
    begun = time.monotonic()
    bar: Any = None
    task: Any = None

    def tell(done: int, of: int) -> None:
        nonlocal bar, task
        if bar is None and sys.stderr.isatty() and time.monotonic() - begun > _PATIENCE_S:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            bar.start()
            task = bar.add_task(what, total=of)
        if bar is not None:
            bar.update(task, completed=done, total=of)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def layers() -> Iterator[tuple[Callable[[str], None], "Callable[[Layer], None]"]]:
    """What to call with a line, and with a layer of an image as it grows.

    On a terminal a bar for what is on its way; elsewhere plain lines, one for each step and its size.
    """
    if not sys.stderr.isatty():
        yield _line, _plainly
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.fields[size]:>18}"), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        known: dict[str, Any] = {}

        def say(line: str) -> None:
            console.print(Text(_clean(line)))

        def watch(layer: "Layer") -> None:
            # One bar for all steps of a build, which come one after the other; one for each layer of a pull.
            key = "build" if layer.steps else layer.id
            if key not in known:
                known[key] = bar.add_task("", total=None, size="")
            if layer.steps:
                bar.update(known[key], completed=layer.step - (not layer.of_bytes), total=layer.steps)
            elif layer.of_bytes:
                bar.update(known[key], completed=layer.done_bytes, total=layer.of_bytes)
            bar.update(known[key], size=_size(layer), description=_clean(f"{layer.id} {layer.text}")[:60])
            if layer.steps and layer.of_bytes:
                say(f"  {_size(layer)}")

        yield say, watch


def _line(line: str) -> None:
    sys.stderr.write(f"{_clean(line)}\n")


def _plainly(layer: "Layer") -> None:
    if layer.steps and layer.of_bytes:
        _line(f"  {_size(layer)}")


def _size(layer: "Layer") -> str:
    whole = f"{layer.of_bytes / 1e6:.1f} MB" if layer.of_bytes else ""
    return f"{layer.done_bytes / 1e6:.1f} of {whole}" if 0 < layer.done_bytes < layer.of_bytes else whole


def _clean(text: str) -> str:
    """A Dockerfile's words, and what its commands print, may come from anybody: nothing may steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
