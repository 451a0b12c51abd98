"""What a checkpoint holds beside git's tree: repositories inside, big files, unusual modes, empty folders."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from opencode_tasks.events import dumps
from opencode_tasks.values import value

_NONE: Mapping[str, Any] = MappingProxyType({})


@value
class Extras:
    """By path from the workspace's top. `roots`: the tree of a repository inside, its path ended by a slash.

    `big`: as `chunks.Big`. `modes`: the nine bits of files where git gives others. `empty`: folders, in order.
    `memory`: the tree of the task's plan.md and decisions.md.
    """

    roots: Mapping[str, str] = _NONE
    big: Mapping[str, Mapping[str, Any]] = _NONE
    modes: Mapping[str, int] = _NONE
    empty: tuple[str, ...] = ()
    memory: str = ""

    @property
    def text(self) -> str:
        """The same for the same; empty when there is nothing."""
        said: dict[str, object] = {name: dict(sorted(held.items())) for name, held in self._maps() if held}
        if self.empty:
            said["empty"] = list(self.empty)
        if self.memory:
            said["memory"] = self.memory
        return dumps(said) if said else ""

    @property
    def digest(self) -> str:
        text = self.text
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    def _maps(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [("roots", self.roots), ("big", self.big), ("modes", self.modes)]


def root_of(path: str, roots: Iterable[str]) -> str:
    """The innermost of `roots` that holds `path`; empty: the workspace itself."""
    return max((root for root in roots if path.startswith(root)), key=len, default="")


def by_root(paths: Iterable[str], roots: Collection[str]) -> dict[str, list[str]]:
    """Each path from the innermost root that holds it."""
    found: dict[str, list[str]] = {}
    for path in paths:
        root = root_of(path, roots)
        found.setdefault(root, []).append(path[len(root) :])
    return found


def is_newer(path: str, found: Extras, wanted: Extras) -> bool:
    """Whether it lies in a repository that was made since: all in there stays."""
    return root_of(path, found.roots) not in ("", *wanted.roots)


def parse(text: str) -> Extras:
    """Raises `ValueError` for what `Extras.text` did not write."""
    if not text:
        return Extras()
    said = json.loads(text)
    return Extras(
        roots=said.get("roots", {}),
        big=said.get("big", {}),
        modes=said.get("modes", {}),
        empty=tuple(said.get("empty", ())),
        memory=said.get("memory", ""),
    )
