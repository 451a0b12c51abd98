"""Lengths of time, as people type and read them."""

from opencode_tasks.durations import seconds
from opencode_tasks.errors import UsageError


def ago(text: str | None) -> str | None:
    """`12h` → that long before now, RFC 3339 UTC. Raises `UsageError`."""
    if text is None:
        return None
    from datetime import UTC, datetime, timedelta

    try:
        then = datetime.now(UTC) - timedelta(seconds=seconds(text))
    except ValueError as e:
        raise UsageError(f"{text!r} is not a length of time", hint="for example 90m, 12h, 7d, 4w") from e
    except OverflowError as e:
        raise UsageError(f"{text} is longer than there have been calendars") from e
    return then.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def since(text: str) -> str:
    """RFC 3339 UTC → `3 min ago`."""
    from datetime import UTC, datetime

    passed = datetime.now(UTC) - datetime.fromisoformat(text)
    return f"{told(max(0, int(passed.total_seconds() * 1000)))} ago"


def told(ms: int) -> str:
    """`3723000` → `1 h 2 min`: two units, the second left out when it is 0."""
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("unreachable")
