"""Checkpoints as a tree: each below the one that its files came from."""

from collections.abc import Sequence

from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.commands import period
from opencode_tasks.containers import sizes


def drawn(found: Sequence[Checkpoint], now: tuple[str, int] | None) -> str:
    """`found`: oldest first. `now`: where the files come from, and how many differ from it."""
    below: dict[str | None, list[Checkpoint]] = {}
    ids = {one.id for one in found}
    for one in found:
        below.setdefault(one.parent if one.parent in ids else None, []).append(one)
    lines: list[str] = []
    # The newest of those that follow one goes on in its column; what else followed it is indented.
    todo = [(one, "") for one in reversed(below.get(None, []))]
    while todo:
        one, indent = todo.pop()
        lines.append(f"{indent}{_line(one)}{_here(one, now)}")
        follow = below.get(one.id, [])
        todo += [(last, indent) for last in follow[-1:]]
        todo += [(other, f"{indent}  ") for other in reversed(follow[:-1])]
    return "\n".join(lines)


def _line(one: Checkpoint) -> str:
    said = one.label or one.kind
    risk = f" [{', '.join(one.risk)}]" if one.risk else ""
    size = f", {sizes.told(one.size_bytes)}" if one.size_bytes else ""
    container = f", container {sizes.told(one.layer.size)}" if one.layer else ""
    container += ", its container's files are gone" if one.layer_gone else ""
    return f"{one.id}  {period.since(one.created_at)}  {said}{risk}  {one.changed} changed{size}{container}"


def _here(one: Checkpoint, now: tuple[str, int] | None) -> str:
    if now is None or now[0] != one.id:
        return ""
    return f"  ← the files now, {now[1]} changed since" if now[1] else "  ← the files now"
