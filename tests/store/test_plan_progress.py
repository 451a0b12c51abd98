"""How many steps are done, counted once: the parser is only asked for a plan that changed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencode_tasks.store import Store, plan_progress
from opencode_tasks.task import Task
from tests.store.conftest import ID

PLAN = "- [ ] one\n- [x] two\n  - [ ] three\n"
_ASK = """
import sys
from pathlib import Path
from opencode_tasks.store import Store, plan_progress
print(vars(plan_progress.of_task(Store(Path(sys.argv[1])).layout, "fix-parser-7k3q9m")), "markdown_it" in sys.modules)
"""


@pytest.fixture
def path(store: Store, task: Task) -> Path:
    made = store.layout.plan(ID)
    made.write_text(PLAN)
    return made


def _settle(path: Path) -> None:
    """Until a change would have another time."""
    while time.time_ns() - path.stat().st_ctime_ns < 150_000_000:
        time.sleep(0.01)


def _ask(store: Store) -> str:
    """By a process of its own."""
    argv = [sys.executable, "-c", _ASK, str(store.layout.common_dir)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_counted_once_for_each_change(store: Store, path: Path) -> None:
    _settle(path)
    assert _ask(store) == "{'done': 1, 'total': 3} True"
    assert _ask(store) == "{'done': 1, 'total': 3} False"
    path.write_text(PLAN.replace("[ ] three", "[x] three"))
    assert _ask(store) == "{'done': 2, 'total': 3} True"


def test_what_was_written_just_now_is_not_taken_for_what_it_was(store: Store, path: Path) -> None:
    """Nothing but the box differs: not the size, and perhaps not even the time."""
    for done in (0, 1, 2, 1, 3) * 10:
        path.write_text("".join(f"- [{'x' if n < done else ' '}] {n}\n" for n in range(3)))
        assert plan_progress.of_task(store.layout, ID).done == done


def test_a_new_plan_needs_no_parser(store: Store, task: Task) -> None:
    assert _ask(store) == "{'done': 0, 'total': 0} False"
    assert not store.layout.progress.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"%s": 1}' % ID.encode()])
def test_what_is_remembered_is_only_believed_when_it_fits(store: Store, path: Path, content: bytes) -> None:
    _settle(path)
    store.layout.progress.write_bytes(content)
    assert _ask(store) == "{'done': 1, 'total': 3} True"
    assert _ask(store) == "{'done': 1, 'total': 3} False"


def test_where_nothing_can_be_remembered_it_is_counted_again(store: Store, path: Path) -> None:
    store.layout.progress.mkdir()
    _settle(path)
    assert [_ask(store), _ask(store)] == ["{'done': 1, 'total': 3} True"] * 2


def test_no_more_than_a_thousand_are_remembered(store: Store, path: Path) -> None:
    _settle(path)
    store.layout.progress.write_text("{" + ",".join(f'"t{n}":[1,2,3,4,5,6]' for n in range(1500)) + "}")
    assert _ask(store) == "{'done': 1, 'total': 3} True"
    assert store.layout.progress.read_text().count("[") == 1000
    assert _ask(store) == "{'done': 1, 'total': 3} False"


@pytest.mark.parametrize("kind", ["none", "link", "directory", "pipe", "huge"])
def test_what_is_no_plan_has_no_steps(store: Store, path: Path, kind: str) -> None:
    path.rename(path.with_name("real"))
    match kind:
        case "link":
            path.symlink_to("real")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "huge":
            path.write_text(PLAN + "x" * (256 * 1024))
    assert plan_progress.of_task(store.layout, ID) == plan_progress.Progress(0, 0)
