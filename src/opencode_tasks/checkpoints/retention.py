"""Which checkpoints are kept. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from opencode_tasks.checkpoints.snapshot import Checkpoint

LAST = 50
HOURLY = timedelta(days=1)
DAILY = timedelta(days=14)
UNDO = timedelta(days=7)


def superfluous(checkpoints: Sequence[Checkpoint], now: datetime, of: str | None = None) -> list[str]:
    """The ids that go, oldest first; `checkpoints` of one task, oldest first.

    Stay: what a person made or a risk pinned, the newest, the one that the files come from (`of`), the last 50
    automatic ones, then one an hour for a day and one a day for two weeks, and for a week what undoes a restore.
    """
    kept = {of, *(one.id for one in checkpoints[-1:])} | {one.id for one in checkpoints if one.is_pinned}
    kept |= {one.id for one in checkpoints if one.kind == "pre-restore" and now - _time(one) < UNDO}
    automatic = [one for one in checkpoints if one.kind == "auto"]
    kept |= {one.id for one in automatic[-LAST:]}
    kept |= _one_for_each(automatic, now, HOURLY, "%Y-%m-%dT%H") | _one_for_each(automatic, now, DAILY, "%Y-%m-%d")
    return [one.id for one in checkpoints if one.id not in kept]


def cheapest_loss(checkpoints: Sequence[Checkpoint], of: str | None = None) -> list[str]:
    """When the budget is exceeded: the older half of what nobody asked for."""
    loose = [one.id for one in checkpoints[:-1] if not one.is_pinned and one.id != of]
    return loose[: (len(loose) + 1) // 2]


def _one_for_each(checkpoints: Iterable[Checkpoint], now: datetime, age: timedelta, period: str) -> set[str]:
    newest = {_time(one).strftime(period): one.id for one in checkpoints if now - _time(one) < age}
    return set(newest.values())


def _time(checkpoint: Checkpoint) -> datetime:
    return datetime.fromisoformat(checkpoint.created_at)
