"""That a restore has begun, on the disk before it changes anything: a killed one is brought to its end."""

import json
from contextlib import suppress

from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.events import dumps
from opencode_tasks.store import files
from opencode_tasks.values import value


@value
class Begun:
    """Ids of checkpoints: where it goes, and what brings back what was. `only`: which paths, else all."""

    to: str
    undo: str
    only: tuple[str, ...] = ()


def read(shadow: Shadow) -> Begun | None:
    """None also for one that was torn: nothing was changed yet then."""
    with suppress(OSError, ValueError, TypeError):
        said = json.loads((shadow.place / _NAME).read_bytes())
        return Begun(said["to"], said["undo"], tuple(said["only"]))
    return None


def write(shadow: Shadow, begun: Begun) -> None:
    files.replace(shadow.place / _NAME, dumps(vars(begun)).encode(), durable=True)


def remove(shadow: Shadow) -> None:
    (shadow.place / _NAME).unlink(missing_ok=True)


_NAME = "restoring.json"
