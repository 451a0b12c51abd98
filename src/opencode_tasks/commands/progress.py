"""How far a long step is: on a terminal, and only when it takes longer than a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
