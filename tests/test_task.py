"""The states of a task, its id and its names."""

from itertools import product

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.task import (
    OPEN,
    STATUSES,
    TRANSITIONS,
    Base,
    Status,
    Task,
    Workspace,
    check_transition,
    is_id,
    new_id,
    slug,
    title_of_branch,
)
from opencode_tasks.values import replace

_ALLOWED = {
    ("pending", "running"),
    ("pending", "cancelled"),
    ("running", "paused"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "running"),
    ("paused", "completed"),
    ("paused", "failed"),
    ("paused", "cancelled"),
}


def _task(status: Status) -> Task:
    return Task(
        id="fix-parser-7k3q9m",
        title="Fix parser",
        branch="task/fix-parser",
        base=Base("main", "a" * 40),
        status=status,
        workspace=Workspace("in-place", "/src/repo"),
        created_at="2026-01-01T00:00:00.000Z",
        updated_at="2026-01-01T00:00:00.000Z",
        rev=1,
    )


@pytest.mark.parametrize(("before", "to"), list(product(STATUSES, STATUSES)))
def test_only_the_transitions_of_the_design_are_possible(before: Status, to: Status) -> None:
    if (before, to) in _ALLOWED:
        check_transition(_task(before), to)
        return
    with pytest.raises(TaskError) as refused:
        check_transition(_task(before), to)
    assert refused.value.code == "transition"
    assert f"is {before} and cannot become {to}" in refused.value.message
    for way in TRANSITIONS[before]:
        assert way in refused.value.hint
    if not TRANSITIONS[before]:
        assert "closed" in refused.value.hint


def test_open_is_what_has_a_way_on() -> None:
    assert {"pending", "running", "paused"} == OPEN
    assert [s for s in STATUSES if _task(s).is_open] == ["pending", "running", "paused"]
    assert not any(replace(_task(s), deleted_at="2026-01-01T00:00:00.000Z").is_open for s in STATUSES)


def test_a_transition_goes_by_the_status_that_it_is_given() -> None:
    check_transition(_task("pending"), "completed", now="running")
    with pytest.raises(TaskError, match="is running and cannot become running"):
        check_transition(_task("pending"), "running", now="running")


@pytest.mark.parametrize(
    ("title", "made"),
    [
        ("Fix the parser", "fix-the-parser"),
        ("  Fix\tthe\nparser!! ", "fix-the-parser"),
        ("Größe ändern: café", "groe-andern-cafe"),
        ("修复解析器", "task"),
        ("", "task"),
        ("---", "task"),
        ("../../etc/passwd", "etc-passwd"),
        ("$(rm -rf /)", "rm-rf"),
        ("-rf", "rf"),
        ("UPPER lower 123", "upper-lower-123"),
        ("a" * 100, "a" * 40),
        ("one two three four five six seven eight nine ten", "one-two-three-four-five-six-seven-eight"),
        ("x " + "y" * 100, "x"),
    ],
)
def test_slug(title: str, made: str) -> None:
    assert slug(title) == made
    assert len(made) <= 40


@pytest.mark.parametrize("title", ["Fix the parser", "", "修复", "a" * 300, "a b " * 100, "-x-", "é"])
def test_what_new_id_makes_is_an_id(title: str) -> None:
    made = new_id(title)
    assert is_id(made)
    assert made.startswith(slug(title) + "-")
    assert len(made.removeprefix(slug(title) + "-")) == 6


def test_new_ids_of_one_title_differ() -> None:
    assert len({new_id("same") for _ in range(200)}) == 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fix",
        "fix-",
        "fix-12345",
        "-123456",
        "fix-12345i",
        "fix-12345l",
        "fix-12345o",
        "fix-12345u",
        "Fix-123456",
        "fix-123456\n",
        "../fix-123456",
        "fix/x-123456",
        ".new-fix-123456",
        "fix-123456.tmp",
        "fïx-123456",
        "a" * 41 + "-123456",
    ],
)
def test_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("branch", "title"),
    [
        ("task/fix-the_parser", "Fix the parser"),
        ("task/team/fix.it", "Team fix it"),
        ("other/x", "Other x"),
        ("task/---", "task/---"),
        ("task/éclair", "Éclair"),
    ],
)
def test_title_of_branch(branch: str, title: str) -> None:
    assert title_of_branch(branch, "task/") == title
