"""What can go wrong in a way that a person can mend.

One root. Every message says what happened and where; `hint` is the next command to
run, and is never destructive. A subclass exists only where a caller branches on it.
"""


class TaskError(Exception):
    """Something we refuse or cannot do. `code` is stable and appears in `--json`."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(TaskError):
    """The words of the call are off."""

    code = "usage"
    exit_code = 2


class NoTaskError(TaskError):
    """The branch or name belongs to no task."""

    code = "no_task"


class NoEngineError(TaskError):
    """No Docker engine answers. Everything but execution goes on without one."""

    code = "no_engine"


class ConflictError(TaskError):
    """Somebody else changed it first, or holds it now."""

    code = "conflict"
