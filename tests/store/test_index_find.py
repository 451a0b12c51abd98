"""Full text: which tasks are found, in which order, and the line that is shown."""

import pytest

from opencode_tasks.errors import UsageError
from opencode_tasks.store import Store
from opencode_tasks.store.index import Query
from opencode_tasks.store.index_find import Match
from opencode_tasks.task import Task
from tests.store.conftest import ID, new


def _find(store: Store, text: str, **more: object) -> list[str]:
    return [match.task.id for match in store.index.find(text, limit=20, **more)]  # type: ignore[arg-type]


def _only(store: Store, text: str) -> Match:
    (match,) = store.index.find(text, limit=20)
    return match


def _write_plan(store: Store, text: str) -> None:
    path = store.layout.plan(ID)
    path.write_text(path.read_text() + text)


def _run(store: Store, *argv: str, task_id: str = ID) -> None:
    store.record(task_id, ("command.started", {"run": "r", "argv": list(argv), "cwd": "/"}), actor="test")


@pytest.fixture
def everywhere(store: Store, task: Task) -> Store:
    _write_plan(store, "\n- [ ] write the tokenizer\n- [ ] then the Grammar of the shell\n")
    store.decide(ID, "Use recursive descent", because="errors are readable", alternatives=["lark"], actor="ana")
    _run(store, "pytest", "-x", "tests/test_max_size.py")
    return store


@pytest.mark.parametrize(
    ("text", "part", "line"),
    [
        ("parser", "title", "Fix the parser"),
        ("task parser", "branch", "task/fix-parser"),
        ("tokenizer", "plan", "- [ ] write the tokenizer"),
        ("the grammar", "plan", "- [ ] then the Grammar of the shell"),
        ("descent", "decisions", "## Use recursive descent"),
        ("readable", "decisions", "Because: errors are readable"),
        ("lark", "decisions", "- lark"),
        ("pytest", "commands", "pytest -x tests/test_max_size.py"),
        ("max_size", "commands", "pytest -x tests/test_max_size.py"),
        ("tokenizer lark write", "plan", "- [ ] write the tokenizer"),
    ],
)
def test_the_part_and_the_line(everywhere: Store, text: str, part: str, line: str) -> None:
    match = _only(everywhere, text)
    assert (match.task, match.part, match.line) == (everywhere.get(ID), part, line)


@pytest.mark.parametrize("text", ["absent", "parser absent", "size_max", "arser", "par", "fix the parsers"])
def test_what_is_not_there(store: Store, task: Task, text: str) -> None:
    assert _find(store, text) == (["fix-parser-7k3q9m"] if text == "par" else [])


def test_the_last_word_may_be_a_beginning_and_comes_after_whole_ones(store: Store) -> None:
    store.create(new("one-000000", title="Parse the plan"), actor="test")
    store.create(new("two-000000", title="Parsers"), actor="test")
    assert _find(store, "parse") == ["one-000000", "two-000000"]
    assert _find(store, "pars") == ["two-000000", "one-000000"]
    assert _find(store, "parse pla") == ["one-000000"]
    assert _find(store, "pars plan") == []
    assert _find(store, "pa") == [], "of three letters at least"
    assert _only(store, "plan").line == "Parse the plan"


def test_better_parts_come_first(store: Store) -> None:
    for name in ("run", "plan", "decided", "branch", "title"):
        title = "about lexers" if name == "title" else name
        branch = "task/lexers" if name == "branch" else name
        store.create(new(f"{name}-000000", title=title, branch=branch), actor="test")
    store.layout.plan("plan-000000").write_text("the lexers")
    store.decide("decided-000000", "lexers", actor="test")
    _run(store, "lexers", task_id="run-000000")
    found = store.index.find("lexers", limit=20)
    assert [m.task.title for m in found] == ["about lexers", "branch", "decided", "plan", "run"]
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert [m.task.title for m in store.index.find("lexers", limit=2)] == ["about lexers", "branch"]


def test_the_newest_comes_first_among_equals(store: Store) -> None:
    for n in range(5):
        store.create(new(f"same-00000{n}", title="Same"), actor="test")
    newest_first = [t.id for t in store.index.page(Query(), limit=9)[0]]
    assert _find(store, "same") == newest_first


def test_of_very_many_those_that_have_it_in_the_title_come_first(store: Store) -> None:
    made = [new(f"many-{n:06d}", title=f"Number {n}", branch=f"task/common-{n}") for n in range(300)]
    made[7] = new("many-000007", title="The common one", branch="task/7")
    store.create_many(made, actor="test")
    found = store.index.find("common", limit=20)
    assert found[0].task.id == "many-000007"
    assert len({m.task.id for m in found}) == 20
    assert {m.part for m in found[1:]} == {"branch"}
    assert len(store.index.find("common", limit=500)) == 300
    assert len(_find(store, "common numb")) == 20


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Café crème", "cafe creme"),
        ("Cafe creme", "CAFÉ"),
        ("cafe\u0301", "café"),
        ("Straße und Öl", "öl"),
        ("ΑΘΗΝΑ", "αθηνα"),
        ("задача", "ЗАДАЧА"),
        ("日本語 テスト", "日本語"),
        ("हिन्दी", "हिन्दी"),
        ("naïve_bayes", "naive"),
        ("C++ and C#", "c"),
        ("über-cool", "uber cool"),
        ("x\u0301\u0302y", "xy"),
    ],
)
def test_letters(store: Store, title: str, text: str) -> None:
    store.create(new(title=title, branch="b"), actor="test")
    match = _only(store, text)
    assert (match.part, match.line) == ("title", title)


@pytest.mark.parametrize("text", ["", " ", "...", "*", '"', "\0", "_", "-- ;", "\N{PILE OF POO}", "\udcff"])
def test_without_a_word_it_is_a_usage_error(store: Store, task: Task, text: str) -> None:
    with pytest.raises(UsageError, match="no word"):
        store.index.find(text, limit=5)


@pytest.mark.parametrize(
    "text",
    [
        'fix "the" parser',
        "parser*",
        "(parser)",
        "title:parser",
        "{title}: parser",
        "^fix parser",
        "-parser",
        "+parser'",
        'par"ser parser"; drop table tasks; --',
        "parser\0fix",
        "the + parser",
        "parser\\",
        "fix,the;parser!?",
        "\udcffparser\udcff",
    ],
)
def test_punctuation_means_nothing(store: Store, task: Task, text: str) -> None:
    """None of it is SQLite's."""
    words = [w for w in ("title", "par", "ser", "drop", "table", "tasks") if f"{w}" in text.replace("parser", "")]
    assert _find(store, text) == ([] if words else [ID])


@pytest.mark.parametrize("word", ["NEAR", "AND", "OR", "NOT", "near"])
def test_the_words_of_sqlite_are_words(store: Store, task: Task, word: str) -> None:
    assert _find(store, f"parser {word} fix") == []
    store.update(ID, {"title": f"Fix the parser {word}"}, actor="test")
    assert _find(store, f"parser {word} fix") == [ID]
    assert _find(store, word) == [ID]


def test_very_many_words(store: Store, task: Task) -> None:
    assert _find(store, "parser " * 10_000) == [ID]
    assert _find(store, " ".join(f"word{n}" for n in range(5000))) == []
    assert _find(store, "x" * 100_000) == []


def test_filters(store: Store, task: Task) -> None:
    store.create(new("other-000000", owner="ana"), actor="test")
    store.ensure_status("other-000000", "running", reason="x", actor="test")
    assert set(_find(store, "parser")) == {ID, "other-000000"}
    assert _find(store, "parser", query=Query(owner="ana")) == ["other-000000"]
    assert _find(store, "parser", query=Query(status=("pending",))) == [ID]
    store.delete(ID, reason="x", actor="test")
    assert _find(store, "parser") == ["other-000000"]
    assert _find(store, "parser", query=Query(deleted=True)) == [ID]


def test_what_stands_in_every_new_plan_is_not_found(store: Store, task: Task) -> None:
    assert _find(store, "acceptance") == []
    _write_plan(store, "mine\n")
    assert _find(store, "acceptance") == [ID]


def test_a_plan_that_was_edited_by_hand_is_found_as_it_is_now(store: Store, task: Task) -> None:
    assert _find(store, "bananas") == []
    _write_plan(store, "\nbananas\n")
    assert _only(store, "bananas").part == "plan"
    store.layout.plan(ID).write_bytes(b"\xff no more of them\n")
    assert _find(store, "bananas") == []
    assert _only(store, "no more").line == "\N{REPLACEMENT CHARACTER} no more of them"
    store.layout.plan(ID).unlink()
    assert _find(store, "more") == []


def test_a_decision_is_found_at_once_and_as_it_is_now(store: Store, task: Task) -> None:
    made = store.decide(ID, "bananas", actor="test")
    assert _only(store, "bananas").line == "## bananas"
    path = store.layout.decisions(ID)
    path.write_text(path.read_text().replace("## bananas", "## apples\nand pears"))
    _ = store.decisions(ID)
    assert _find(store, "bananas") == []
    assert _only(store, "pears").line == "and pears"
    assert _find(store, made.id) == [], "marks are no words"


def test_every_command_is_found_once(store: Store, task: Task) -> None:
    for n in range(5):
        _run(store, "make", f"target{n}")
        assert _only(store, f"target{n}").line == f"make target{n}"
    _run(store, "x" * 70_000, "last")
    assert _only(store, "last").part == "commands"
    assert _find(store, "target1") == [], "of very much only the end is kept"


def test_a_long_line_is_cut(store: Store, task: Task) -> None:
    _write_plan(store, "long " * 1000)
    assert _only(store, "long").line == ("long " * 1000)[:200]
