"""`opencode-tasks-hook HOOK`: a hook that another tool carries, as pre-commit does, instead of the shim from `init`.

Such a tool tells in variables what git tells in arguments. Beside the shims it does nothing a second time: what hooks
do depends on how things are, not on what happened.
"""

import os
import sys
from collections.abc import Sequence

from opencode_tasks.git_hooks import MODULES, entry

_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "post-checkout": ("PRE_COMMIT_FROM_REF", "PRE_COMMIT_TO_REF", "PRE_COMMIT_CHECKOUT_TYPE"),
    "prepare-commit-msg": ("PRE_COMMIT_COMMIT_MSG_SOURCE", "PRE_COMMIT_COMMIT_OBJECT_NAME"),
    "post-merge": ("PRE_COMMIT_IS_SQUASH_MERGE",),
    "post-rewrite": ("PRE_COMMIT_REWRITE_COMMAND",),
}


def arguments(name: str, given: Sequence[str]) -> list[str]:
    """As git gives them: the file of the message first, then what the variables say, as far as they say it."""
    found = [os.environ.get(variable, "") for variable in _ARGUMENTS.get(name, ())]
    while found and not found[-1]:
        found.pop()
    return [*given, *found]


def run() -> int:
    name, *given = sys.argv[1:] or [""]
    if name not in MODULES:
        entry.say(f"there is no hook {name!r}; one of: {', '.join(MODULES)}")
        return 2
    args = arguments(name, given)
    if name == "post-checkout" and args[2:3] == ["0"]:
        return 0  # files were checked out, not a branch
    if name == "post-rewrite" and args[:1] == ["amend"]:
        return 0  # post-commit has seen it
    return entry.run([name, *args])
