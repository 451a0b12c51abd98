"""Layer 3: what a person reads and edits: `plan.md` and `decisions.md`."""

import re
from dataclasses import dataclass
from pathlib import Path

from opencode_tasks import assets
from opencode_tasks.store import files
from opencode_tasks.task import Task

_CHECKBOX = re.compile(r"^\s*[-*+] \[([ xX])\] ", re.MULTILINE)


@dataclass(frozen=True)
class Progress:
    done: int
    total: int


def write_first(task_dir: Path, task: Task) -> None:
    """The documents of a new task, from the templates."""
    template = (assets.root() / "templates" / "plan.md").read_text()
    plan = template.replace("{title}", task.title).replace("{branch}", task.branch)
    files.replace(task_dir / "plan.md", plan.encode(errors="replace"))
    files.replace(task_dir / "decisions.md", f"# Decisions: {task.title}\n".encode(errors="replace"))


def progress(plan: Path) -> Progress:
    """Checked and all checkboxes of the plan; none when there is no plan."""
    try:
        marks = _CHECKBOX.findall(plan.read_text(errors="replace"))
    except FileNotFoundError:
        marks = []
    return Progress(sum(m != " " for m in marks), len(marks))
