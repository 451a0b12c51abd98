"""Every task of a coding agent gets its own branch, container, memory and undo."""

__version__ = "0.1.0"
