"""What was found at the last look at a workspace, so that what has not changed need not be looked at again.

Lies beside the task's index, where no container sees it. Without it everything is looked at.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.events import dumps
from opencode_tasks.store import files
from opencode_tasks.values import value


@value
class KnownRoot:
    """`index`: what ours looked like when `tree` was made of it; `theirs`: the user's, when it was last asked what it
    tracks. `big`: `[stamp, chunks.Big]` by path. `young`: files of the last seconds; git compares whole seconds, and
    does not see that only a mode was changed. Paths are from the root.
    """

    index: list[int] | None = None
    theirs: list[int] | None = None
    tree: str | None = None
    modes: Mapping[str, int] = {}
    big: Mapping[str, Any] = {}
    young: Sequence[str] = ()


@value
class Known:
    """`last`: the data of the newest checkpoint, `at` its time, `extras` its extras as text. `of`: the checkpoint that
    the files come from, `trees` its trees by root. `memory`: what the task's documents looked like, and where they are
    kept; see `memory.kept`.
    """

    roots: Mapping[str, Any] = {}
    last: Mapping[str, Any] | None = None
    at: str = ""
    of: str | None = None
    memory: Mapping[str, Any] = {}
    extras: str = ""
    trees: Mapping[str, str] = {}

    def root(self, path: str) -> KnownRoot:
        with suppress(TypeError):
            return KnownRoot(**self.roots.get(path, {}))
        return KnownRoot()


def read(shadow: Shadow) -> Known:
    with suppress(OSError, ValueError, TypeError):
        return Known(**json.loads((shadow.place / "known.json").read_bytes()))
    return Known()


def write(shadow: Shadow, known: Known) -> None:
    files.replace(shadow.place / "known.json", dumps(vars(known)).encode())
