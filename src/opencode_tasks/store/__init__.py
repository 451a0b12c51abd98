"""The memory of the tasks: `<git common dir>/opencode-tasks/`. Nothing else touches its files."""

from opencode_tasks.store.registry import Store

__all__ = ["Store"]
