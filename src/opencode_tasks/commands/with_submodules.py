"""What `create-task` says of submodules, and does for them."""

from typing import TYPE_CHECKING, Any

from opencode_tasks.commands.place import Place
from opencode_tasks.commands.progress import progress
from opencode_tasks.git.discovery import Checkout

if TYPE_CHECKING:
    from opencode_tasks.git.submodules import Finding


class Submodules:
    """`found`: what was the matter before the task began."""

    def __init__(self, found: "list[Finding]") -> None:
        self._found = found
        self._ready: tuple[str, ...] = ()
        self.lines: list[str] = [finding.line for finding in found]

    def prepare(self, at: Place, checkout: Checkout) -> None:
        """Raises `TaskError` when the disk is full."""
        from opencode_tasks.git import submodules

        if not at.config.workspace.submodules or not submodules.has_any(checkout):
            return
        from opencode_tasks.git import submodule_trees

        with progress("checking submodules out") as tell:
            prepared = submodule_trees.prepare(checkout, tell)
        told = {*prepared.ready, *(finding.path for finding in prepared.findings)}
        old = [f for f in self._found if f.path not in told or f.kind not in ("missing", "absent", "refused")]
        self._found, self._ready = [*old, *prepared.findings], prepared.ready
        self.lines = [*(finding.line for finding in old), *prepared.lines]

    def into(self, document: dict[str, Any]) -> None:
        if self._found or self._ready:
            document["submodules"] = {"ready": self._ready, "found": [vars(finding) for finding in self._found]}


def before(at: Place, start: str, *, in_place: bool) -> Submodules:
    """Look at those of the checkout here. Raises `TaskError` (code `submodules`) where a start would lose something."""
    if not (at.checkout.top / ".gitmodules").exists():
        return Submodules([])
    from opencode_tasks.git import submodule_conflicts

    found = submodule_conflicts.found(at.checkout)
    if in_place:
        submodule_conflicts.refuse_loss(at.checkout, found, start)
    return Submodules(found)
