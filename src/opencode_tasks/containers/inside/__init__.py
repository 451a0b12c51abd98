"""What runs in the task's container. Its texts are handed to the image's own python3."""

from opencode_tasks.containers import handed

# Each after those that it imports; the last is the program.
_MODULES = ("messages", "processes", "watch", "supervisor")


def program() -> str:
    return handed.text(*(f"{__name__}.{name}" for name in _MODULES))
