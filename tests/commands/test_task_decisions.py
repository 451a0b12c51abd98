"""`task-decisions`: recorded by command or by hand, told alike; a stale writer is told what happened since."""

from opencode_tasks.store import Store
from tests.commands.conftest import Ask
from tests.conftest import Repo

KEYS = ["id", "ts", "actor", "text", "because", "alternatives"]


def test_a_decision_with_its_reasons(repo: Repo, task_id: str) -> None:
    args = ("--because", "no dependency", "--instead-of", "a library", "--instead-of", "a regex")
    (made,) = repo.tasks("task-decisions", "--json", "--add", "Parse by hand", *args).json["decisions"]
    assert list(made) == KEYS
    assert (made["text"], made["because"]) == ("Parse by hand", "no dependency")
    assert made["alternatives"] == ["a library", "a regex"]
    assert made["actor"].startswith("user:")
    assert repo.tasks("task-decisions", "--json").json == {"decisions": [made]}
    recorded = repo.events(task_id)[-1]
    assert (recorded["type"], recorded["data"]["id"]) == ("decision.added", made["id"])
    assert "## Parse by hand\n\nBecause: no dependency\n" in (repo.store / task_id / "decisions.md").read_text()
    assert repo.tasks("task-status", "--json").json["decisions"] == 1


def test_what_a_person_reads(ask: Ask, repo: Repo, task_id: str) -> None:
    assert ask("task-decisions").out == "Nothing was decided yet.\n"
    said = ask("task-decisions", "--add", "One").out
    assert said.endswith(f" recorded in {repo.store / task_id / 'decisions.md'}\n")
    ask("task-decisions", task_id, "--add", "Two\nlines", "--because", "why", "--instead-of", "three")
    first, second = ask("task-decisions").out.split("\n\n")
    assert first.splitlines()[1:] == ["  One"]
    assert second.splitlines()[1:] == ["  Two", "  lines", "  because: why", "  instead of: three"]


def test_written_by_hand(ask: Ask, repo: Repo, task_id: str) -> None:
    ask("task-decisions", "--add", "One")
    path = repo.store / task_id / "decisions.md"
    with path.open("a") as f:
        f.write("\nWe ship on Friday.\n\nReally.\n")
    one, two = ask("task-decisions", "--json").json["decisions"]
    assert one["text"] == "One"
    assert two["text"] == "We ship on Friday.\n\nReally.\n"
    assert list(two) == KEYS
    assert "  We ship on Friday.\n" in ask("task-decisions").out
    assert [e["type"] for e in repo.events(task_id)][-2:] == ["decision.added", "decision.added"]
    # Taken in once.
    assert len(ask("task-decisions", "--json").json["decisions"]) == 2
    assert len(repo.events(task_id)) == 4
    path.write_text(path.read_text().replace("## One", "## Uno"))
    assert "## Uno" in ask("task-decisions", "--json").json["decisions"][0]["text"]


def test_a_conflict_shows_both_sides(ask: Ask, repo: Repo, task_id: str) -> None:
    rev = Store(repo.common).get(task_id).rev
    ask("task-decisions", "--add", "One", "--expected-rev", str(rev))
    refused = ask("task-decisions", "--add", "Two", "--expected-rev", str(rev), "--json", check=False)
    error = refused.json["error"]
    assert (refused.code, error["code"]) == (1, "conflict")
    assert f"at revision {rev + 1}, and you go by {rev}" in error["message"]
    assert "decision.added by user:" in error["message"]
    assert "status.changed" not in error["message"]
    assert f"task-history {task_id} --after {rev}" in error["hint"]
    assert [d["text"] for d in ask("task-decisions", "--json").json["decisions"]] == ["One"]
    ahead = ask("task-decisions", "--add", "Two", "--expected-rev", str(10**30), "--json", check=False)
    assert (ahead.code, "ahead of it" in ahead.json["error"]["message"]) == (1, True)


def test_usage(ask: Ask, repo: Repo, task_id: str) -> None:
    bad = (
        ["--because", "x"],
        ["--instead-of", "x"],
        ["--expected-rev", "1"],
        ["--add", ""],
        ["--add", " \n\t"],
        ["--add"],
        ["--add", "x", "--expected-rev", "soon"],
    )
    for args in bad:
        refused = ask("task-decisions", "--json", *args, check=False)
        assert (refused.code, refused.json["error"]["code"]) == (2, "usage"), args
    gone = ask("task-decisions", "gone", "--json", "--add", "x", check=False)
    assert (gone.code, gone.json["error"]["code"]) == (1, "no_task")
    assert len(repo.events(task_id)) == 2


def test_of_a_deleted_task_they_are_read_and_no_more_written(ask: Ask, repo: Repo, task_id: str) -> None:
    ask("task-decisions", "--add", "One")
    Store(repo.common).delete(task_id, reason="test", actor="test")
    assert [d["text"] for d in ask("task-decisions", task_id, "--json").json["decisions"]] == ["One"]
    refused = ask("task-decisions", task_id, "--add", "Two", "--json", check=False)
    assert (refused.code, refused.json["error"]["code"]) == (1, "deleted")


ODD = [
    "```\nfence\n<!-- /decision -->\n<!-- decision x sha256:000000000000 -->\n```",
    "# heading\r\nCRLF\rCR",
    "esc \x1b[31m bell \x07 back \x08 bidi \u202e",
    "lone \udce9 surrogate",
    "日本語 🦓 e\u0301",
    " leading and trailing \n\n",
    "a" * 100_000,
]


def test_odd_text_comes_back_as_it_went_in(ask: Ask, repo: Repo, task_id: str) -> None:
    for text in ODD:
        ask("task-decisions", "--add", text, "--because", text, "--instead-of", text)
    for _ in range(2):
        found = ask("task-decisions", "--json").json["decisions"]
        assert [(d["text"], d["because"], d["alternatives"]) for d in found] == [(text, text, [text]) for text in ODD]
    assert not [c for c in ask("task-decisions").out if not c.isprintable() and c != "\n"]
    (repo.store / task_id / "decisions.md").unlink()
    assert len(ask("task-decisions", "--json").json["decisions"]) == len(ODD)
    assert len(repo.events(task_id)) == 2 + len(ODD)
