"""`plan.md` of a task: made from the template, then the agent's and the person's own; read for its checkboxes."""

import re
from functools import cache
from pathlib import Path

from opencode_tasks import assets
from opencode_tasks.values import value

_CHECKBOX = re.compile(r"^\s*[-*+] \[([ xX])\] ", re.MULTILINE)


@value
class Progress:
    done: int
    total: int


def first(title: str, branch: str) -> str:
    words = {"title": title, "branch": branch}
    return re.sub(r"\{(title|branch)\}", lambda found: words[found[1]], _template())


@cache
def _template() -> str:
    return (assets.root() / "templates" / "plan.md").read_text()


def progress(path: Path) -> Progress:
    """Checked and all checkboxes; none when there is no plan."""
    try:
        marks = _CHECKBOX.findall(path.read_text(errors="replace"))
    except FileNotFoundError:
        marks = []
    return Progress(sum(m != " " for m in marks), len(marks))
