"""The memory of the tasks: `<git common dir>/opencode-tasks/`. Nothing else touches its files."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_tasks.store.registry import Store
else:

    def __getattr__(name: str) -> object:
        """Loaded when it is asked for: a lock and a note need none of it."""
        if name != "Store":
            raise AttributeError(name)
        from opencode_tasks.store.registry import Store

        globals()[name] = Store
        return Store


__all__ = ["Store"]
