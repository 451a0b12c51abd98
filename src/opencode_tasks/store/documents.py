"""Layer 3: what a person reads and edits: `plan.md` and `decisions.md`."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from opencode_tasks import assets, decisions
from opencode_tasks.decisions import Decisions
from opencode_tasks.events import New
from opencode_tasks.store import files
from opencode_tasks.task import Task
from opencode_tasks.values import value

_CHECKBOX = re.compile(r"^\s*[-*+] \[([ xX])\] ", re.MULTILINE)


@value
class Progress:
    done: int
    total: int


def write_first(task_dir: Path, task: Task) -> None:
    """The documents of a new task, from the templates."""
    template = (assets.root() / "templates" / "plan.md").read_text()
    plan = template.replace("{title}", task.title).replace("{branch}", task.branch)
    files.replace(task_dir / "plan.md", plan.encode(errors="replace"))
    files.replace(task_dir / "decisions.md", _encoded(decisions.render(Decisions(task.title))))


def progress(plan: Path) -> Progress:
    """Checked and all checkboxes of the plan; none when there is no plan."""
    try:
        marks = _CHECKBOX.findall(plan.read_text(errors="replace"))
    except FileNotFoundError:
        marks = []
    return Progress(sum(m != " " for m in marks), len(marks))


def hand_edits(path: Path, known: Decisions) -> tuple[list[New], bytes | None]:
    """What somebody changed in `decisions.md`, as events, and the bytes that were read (None: no file)."""
    try:
        content_b = path.read_bytes()
    except FileNotFoundError:
        return [], None
    if content_b == _encoded(decisions.render(known)):
        return [], content_b
    return decisions.hand_edits(known, content_b.decode(errors="surrogateescape"), new_ids(known)), content_b


def write_decisions(path: Path, known: Decisions, read_b: bytes | None) -> bool:
    """Replace the file, which held `read_b`. False, and nothing replaced, when an editor saved meanwhile.

    Under the task's lock, which keeps us out and no editor: the old file is kept under a second
    name until it is sure that it was the one that was read.
    """
    content_b = _encoded(decisions.render(known))
    if content_b == read_b:
        return True
    kept = path.with_name(f".{path.name}.{os.getpid()}.before")
    with files.refused_writes(path):
        kept.unlink(missing_ok=True)
        try:
            with suppress(FileNotFoundError):
                kept.hardlink_to(path)
            if _read(kept) != read_b:
                return False
            files.replace(path, content_b)
            if _read(kept) == read_b:
                return True
            kept.replace(path)  # an editor wrote into the old file while we replaced it
            return False
        finally:
            kept.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def new_ids(known: Decisions) -> Iterator[str]:
    taken = {item.id for item in known.items}
    while True:
        made = f"d{secrets.token_hex(3)}"
        if made not in taken:
            taken.add(made)
            yield made
