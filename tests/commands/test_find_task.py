"""`find-task`: every part of a task is searched, the best match comes first, and words are only words."""

from collections.abc import Callable

import pytest

from opencode_tasks.store import Store
from tests.commands.conftest import Ask, bare_task
from tests.commands.test_list_status_history import TASK_KEYS
from tests.conftest import Repo

Found = Callable[..., list[str]]


@pytest.fixture
def parts(repo: Repo) -> dict[str, str]:
    """A task for each place where a word can be; place to id."""
    store = Store(repo.common)
    titles = {"title": "Zebra crossing", "plan": "One", "decisions": "Two", "commands": "Three", "branch": "Four"}
    made = {part: bare_task(repo, title) for part, title in titles.items()}
    store.record(made["branch"], ("branch.renamed", {"from": "task/fix-parser", "to": "task/zebra-farm"}), actor="test")
    store.layout.plan(made["plan"]).write_text("# Plan\n- [ ] first\n- [ ] feed the zebra\n")
    store.decide(made["decisions"], "No zebra in the tests", actor="test", because="they bite")
    started = {"run": "r1", "argv": ["make", "zebra"], "cwd": "/x"}
    store.record(made["commands"], ("command.started", started), actor="test")
    return made


@pytest.fixture
def found(ask: Ask) -> Found:
    """The ids that `find-task` gives."""
    return lambda *args: [task["id"] for task in ask("find-task", "--json", *args).json["tasks"]]


def test_each_part_is_searched_and_the_line_is_shown(repo: Repo, parts: dict[str, str]) -> None:
    document = repo.tasks("find-task", "--json", "zebra").json
    assert list(document) == ["tasks", "next"]
    assert document["next"] is None
    assert all(list(task) == [*TASK_KEYS, "match"] for task in document["tasks"])
    matches = {task["id"]: task["match"] for task in document["tasks"]}
    assert matches == {
        parts["title"]: {"part": "title", "line": "Zebra crossing"},
        parts["branch"]: {"part": "branch", "line": "task/zebra-farm"},
        parts["plan"]: {"part": "plan", "line": "- [ ] feed the zebra"},
        parts["decisions"]: {"part": "decisions", "line": "## No zebra in the tests"},
        parts["commands"]: {"part": "commands", "line": "make zebra"},
    }
    # A title says more than a branch, and anything more than a command.
    assert next(iter(matches)) == parts["title"]
    assert list(matches)[-1] == parts["commands"]


def test_a_task_is_found_by_what_was_just_changed(repo: Repo, parts: dict[str, str], found: Found) -> None:
    assert found("quagga") == []
    Store(repo.common).update(parts["plan"], {"title": "A quagga"}, actor="test")
    plan = Store(repo.common).layout.plan(parts["title"])
    plan.write_text("- [ ] a quagga, too\n")
    assert sorted(found("quagga")) == sorted([parts["plan"], parts["title"]])
    plan.write_text("- [ ] none\n")
    Store(repo.common).delete(parts["plan"], reason="test", actor="test")
    assert found("quagga") == []


def test_all_words_and_the_beginning_of_the_last(parts: dict[str, str], found: Found) -> None:
    assert found("ZEBRA", "cross") == [parts["title"]]
    assert found("zebra cross") == [parts["title"]]
    assert found("zeb", "crossing") == []
    assert found("zebra", "lion") == []


def test_words_of_any_script(repo: Repo, found: Found) -> None:
    changed, repaired = bare_task(repo, "Größe ändern"), bare_task(repo, "修正 解析器")
    assert found("grösse") == []
    assert found("GRÖßE") == found("große", "andern") == [changed]
    assert found("解析器") == found("修正", "解析器") == [repaired]


def test_words_are_no_query_language(parts: dict[str, str], found: Found) -> None:
    for words in ("title:zebra", "commands:zebra", "NEAR(zebra)", "zebra OR lion", "zebra NOT lion"):
        assert found(words) == [], words
    # What is no letter divides words, and means nothing.
    for words in ('"zebra', "zebra*", "^zebra", "-zebra", "(zebra)"):
        assert len(found("--", words)) == 5, words


def test_filters(repo: Repo, parts: dict[str, str], found: Found) -> None:
    running = parts["branch"]
    Store(repo.common).ensure_status(running, "running", reason="test", actor="test")
    assert found("zebra", "--status", "running") == [running]
    both = found("zebra", "--status", "running", "--status", "pending")
    assert sorted(both) == sorted(parts.values())
    assert found("zebra", "--branch", "task/zebra-farm") == [running]
    assert found("zebra", "--owner", "nobody-here") == []
    assert found("zebra", "--older-than", "1h") == []
    assert len(found("zebra", "--newer-than", "1h")) == 5
    child = bare_task(repo, "A young zebra", parent=parts["title"])
    assert found("zebra", "--parent", parts["title"]) == [child]
    assert found("zebra", "--limit", "1") == [child]  # of equals, the newest
    assert len(found("zebra", "--limit", str(10**30))) == 6


def test_a_pipe_gets_one_line_a_task(repo: Repo) -> None:
    task_id = bare_task(repo, "Odd\ttitle\x1b[31m zebra")
    (line,) = repo.tasks("find-task", "zebra").out.splitlines()
    assert line.split("\t") == [task_id, "pending", "title", "Odd\\ttitle\\x1b[31m zebra"]
    assert repo.tasks("find-task", "lion").out == "No task has these words.\n"


USAGE = [
    [],
    ["..."],
    [""],
    ["zebra", "--limit", "0"],
    ["zebra", "--limit", "-1"],
    ["zebra", "--limit", "x"],
    ["zebra", "--status", "odd"],
    ["zebra", "--newer-than", "soon"],
    ["zebra", "--newer-than", "-1d"],
    ["zebra", "--older-than", "999999w"],
]


def test_usage(ask: Ask) -> None:
    for args in USAGE:
        refused = ask("find-task", "--json", *args, check=False)
        assert (refused.code, refused.json["error"]["code"]) == (2, "usage"), args
    refused = ask("find-task", "zebra", "--parent", "gone", "--json", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "no_task")


def test_very_many_and_very_long_words(parts: dict[str, str], found: Found) -> None:
    assert found(*(str(n) for n in range(5000))) == []
    assert found(*("x" * 100_000 for _ in range(10))) == []
    assert len(found("." * 100_000 + "zebra")) == 5
