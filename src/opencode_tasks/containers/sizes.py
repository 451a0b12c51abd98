"""Sizes as people write them, and as they are told."""

import re

from opencode_tasks.errors import TaskError

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)([bkmg]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LARGEST = 1 << 50


def parse(written: str, *, what: str) -> int:
    """Bytes of `4g`, `512m`, `64k`. Raises `TaskError` (code `usage`) that names `what` it was to be."""
    found = _WRITTEN.fullmatch(written.strip())
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if not 0 < size < _LARGEST:
        raise TaskError(f"{what}: {written!r} is no size", hint="write it like 512m or 4g", code="usage")
    return size


def told(n: int) -> str:
    size = float(n)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def written(n: int) -> str:
    """As `parse` takes it, exactly."""
    for unit in ("g", "m", "k"):
        if n % _UNITS[unit] == 0:
            return f"{n // _UNITS[unit]}{unit}"
    return str(n)
