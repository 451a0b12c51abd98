"""One module per command, named exactly like it.

Each has `HELP`, `configure(parser)` and `run(args) -> Result`; it returns values, and
`cli` prints them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opencode_tasks.values import value


@value
class Result:
    """`document` is what `--json` prints (nothing when None), `text` what a person reads."""

    document: dict[str, Any] | None = None
    text: str = ""
    exit_code: int = 0
    table: "Table | None" = None
    bars: "Sequence[Bars]" = ()


@value
class Table:
    """Drawn with rich on a terminal, as tab-separated lines in a pipe."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = ()
    empty: str = ""


@value
class Bars:
    """Quantities side by side: of each its name, size, and how it is said."""

    title: str
    sizes: Mapping[str, tuple[int, str]]


# A literal table: the name a person types, its module, in the order of the help.
MODULES: dict[str, str] = {
    "init": "init",
    "uninstall": "uninstall",
    "doctor": "doctor",
    "create-task": "create_task",
    "resume-task": "resume_task",
    "list-tasks": "list_tasks",
    "task-status": "task_status",
    "task-history": "task_history",
    "task-executions": "task_executions",
    "task-decisions": "task_decisions",
    "task-stats": "task_stats",
    "find-task": "find_task",
    "attach": "attach",
    "detach": "detach",
    "exec": "exec",
    "shell": "shell",
    "import-commits": "import_commits",
    "limits": "limits",
    "allow": "allow",
    "checkpoint": "checkpoint",
    "restore-checkpoint": "restore_checkpoint",
    "diff": "diff",
    "complete-task": "complete_task",
    "cleanup-task": "cleanup_task",
    "images": "images",
    "secrets": "secrets",
    "reconcile": "reconcile",
}
