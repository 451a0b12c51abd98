"""Where a file tool of the host may write while a task is at work."""

import os
from collections.abc import Sequence
from pathlib import Path

from opencode_tasks.containers import place
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store.layout import LINK


def why_not(checkout: Checkout, path: Path, protected: Sequence[str]) -> str:
    """Why `path` may not be written; empty when it may. By where it leads: an agent can make links."""
    real = Path(os.path.realpath(path))
    if real != checkout.top and checkout.top not in real.parents:
        return "it leads out of the task's workspace, where no checkpoint would undo it"
    closed = [checkout.top / LINK, *place.wanted(checkout, protected)]
    for one in closed:
        for named in (one, Path(os.path.realpath(one))):
            if real == named or named in real.parents:
                return f"{one.relative_to(checkout.top) if checkout.top in one.parents else one} is closed to agents"
    folded = [str(one).casefold() for one in closed]
    if any(str(part).casefold() in folded for part in (real, *real.parents)):
        return "on some file systems its name is one that is closed to agents"
    return ""
