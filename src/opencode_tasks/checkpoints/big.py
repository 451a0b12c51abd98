"""Files too big for git in checkpoints: what `chunks` does for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opencode_tasks.checkpoints.chunks import Big, Chunks
from opencode_tasks.checkpoints.shadow import Shadow


def _chunks(shadow: Shadow) -> Chunks:
    return Chunks(shadow.dir / "big")


def put(shadow: Shadow, path: str, was: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint says of the file at `path`, from the shadow's root; its content is durable then."""
    kept = _chunks(shadow).put(shadow.workspace, path, was=Big(**was) if was else None)
    return dict(vars(kept))


def restore(shadow: Shadow, path: str, kept: Mapping[str, Any], now: Mapping[str, Any] | None) -> None:
    """`now`: what lies there, as far as it is one of these."""
    _chunks(shadow).restore(Big(**kept), shadow.workspace, path, now=Big(**now) if now else None)


def problems(shadow: Shadow, kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is missing or damaged of these, in words."""
    found = _chunks(shadow).verify(Big(**one) for one in kept)
    return [f"a file of {one.big.size} bytes: {one.name} is {one.what}" for one in found]


def sweep(shadow: Shadow, keep: Iterable[Mapping[str, Any]], *, older_than_s: float) -> int:
    """Throw away all that is not of these; the bytes that it took. Nobody takes a checkpoint meanwhile."""
    return _chunks(shadow).sweep((Big(**one) for one in keep), older_than_s=older_than_s)
