"""Lengths of time, as people type them."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> int:
    """`90m` → 5400. Raises `ValueError`."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * _SECONDS[found[2]]


def seconds_or_never(text: str) -> int | None:
    """None for `never` and `0`. Raises `ValueError`."""
    return None if text in ("never", "0") else seconds(text) or None
