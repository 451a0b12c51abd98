"""What a commit says of other open tasks that changed the same files: once, and briefly."""

from opencode_tasks.git import overlaps
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.overlaps import Overlap, SharedFile
from opencode_tasks.printable import printable
from opencode_tasks.store import Store

_MOST_LINES, _MOST_FILES, _MOST_PLACES = 5, 3, 3
_ALL = "opencode-tasks task-status"


def lines(store: Store, checkout: Checkout, task_id: str) -> list[str]:
    """What was not told at the last commit of the task; nothing when there is nothing new."""
    found = overlaps.news(store, task_id, overlaps.find(store, checkout, task_id))
    told = [_sentence(one) for one in found.overlaps[:_MOST_LINES]]
    left = len(found.overlaps) - len(told)
    if left:
        told.append(f"and {left} more: {_ALL}")
    if found.cut:
        told.append(f"{found.cut[0]}: {_ALL}")
    return told


def _sentence(overlap: Overlap) -> str:
    same_lines = [_place(file) for file in overlap.files if file.kind == "region"]
    same_file = [_plain(file.path) for file in overlap.files if file.kind == "file"]
    said = [f"the same lines of {_some(same_lines)}"] if same_lines else []
    if same_file:
        said.append(f"the same {'file' if len(same_file) == 1 else 'files'}: {_some(same_file)}")
    return f'task {overlap.task} ("{_plain(overlap.title)}") changed {"; ".join(said)}'


def _place(file: SharedFile) -> str:
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in file.lines[:_MOST_PLACES]]
    more = ",…" if len(file.lines) > _MOST_PLACES else ""
    return f"{_plain(file.path)}:{','.join(spans)}{more}" if spans else _plain(file.path)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_FILES} more" if len(names) > _MOST_FILES else ""
    return ", ".join(names[:_MOST_FILES]) + more


def _plain(text: str) -> str:
    """A title or a path may come from anybody: nothing in it may steer the terminal."""
    short = text if len(text) <= 100 else f"{text[:60]}…{text[-39:]}"
    return printable(short)
