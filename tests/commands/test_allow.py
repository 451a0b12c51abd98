"""`allow` and the settings of the network, without an engine: what is recorded, refused and shown."""

import json
from pathlib import Path

import pytest

from opencode_tasks import config
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store, allowed
from tests.commands.conftest import Ask
from tests.conftest import Repo


def settings(repo: Repo, text: str) -> None:
    (repo.top / ".opencode" / "tasks.toml").write_text(f"[network]\n{text}\n")


def test_from_settings_clone_and_task(repo: Repo, task_id: str, ask: Ask) -> None:
    settings(repo, 'allow = ["pypi", "*.Example.com."]')
    assert ask("allow", "github.com:22", "npm").code == 0
    ask("allow", "192.0.2.7", "--task", task_id)
    shown = {(one["host"], one["said"], one["source"]) for one in ask("allow", "--json").json["allowed"]}
    assert shown == {
        ("pypi.org", "pypi", "settings"),
        ("files.pythonhosted.org", "pypi", "settings"),
        ("*.example.com", "*.Example.com.", "settings"),
        ("github.com:22", "github.com:22", "clone"),
        ("registry.npmjs.org", "npm", "clone"),
        ("192.0.2.7", "192.0.2.7", task_id),
    }
    ask("allow", "npm", "--remove")
    assert "registry.npmjs.org" not in ask("allow").out
    status = ask("task-status", task_id)
    assert "192.0.2.7" in status.out
    assert "github.com:22" in status.out
    assert {one["source"] for one in ask("task-status", task_id, "--json").json["network"]["allowed"]} == {
        "settings",
        "clone",
        task_id,
    }


def test_twice_is_once(repo: Repo, task_id: str, ask: Ask) -> None:
    for _ in range(2):
        ask("allow", "pypi.org", "PyPI.org.", "--task", task_id)
        ask("allow", "pypi.org")
    assert [e["type"] for e in repo.events(task_id)].count("network.allowed") == 1
    assert (
        len([line for line in (repo.common / "opencode-tasks" / "allowed.jsonl").read_text().splitlines() if line]) == 1
    )
    assert Store(repo.common).get(task_id).allowed == ("pypi.org",)


_WRONG = [
    "localhost:80",
    "http://pypi.org",
    "a b.example",
    "*.com",
    "*.1.2.3.4",
    "pypi.org:0",
    "pypi.org:99999",
    "[::1]",
]
_WRONG += [
    "1.2.3",
    "0x7f.0.0.1",
    "ex\u00e4mple.com",
    "a@b.example",
    "a%b.example",
    "-a.example",
    "example.com/x",
    "pypl",
]


@pytest.mark.parametrize("word", _WRONG)
def test_what_is_no_host(repo: Repo, task_id: str, ask: Ask, word: str) -> None:
    ran = ask("allow", "--json", "--", word, check=False)
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage")
    assert ran.json["error"]["hint"]
    assert allowed.hosts(Store(repo.common).layout) == ()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('allow = ["not a host"]', "network.allow"),
        ('allow = ["pypl"]', "network.allow"),
        ('allow = "pypi"', "network.allow"),
        ('private = ["10.0.0.0/99"]', "network.private"),
        ('private = ["10.0.0.1/8"]', "network.private"),
        ('through = "host"', "network.through"),
        ('through = "none"', "network.through"),
        ('through = "container:other"', "network.through"),
        ('alow = ["pypi"]', "network.alow"),
    ],
)
def test_settings_that_are_wrong(repo: Repo, task_id: str, ask: Ask, line: str, names: str) -> None:
    settings(repo, line)
    ran = ask("allow", "--json", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "config")
    assert ".opencode/tasks.toml" in ran.json["error"]["message"]
    assert names in ran.json["error"]["message"]


def test_settings_through_a_link(repo: Repo, tmp_path: Path) -> None:
    settings(repo, 'allow = ["pypi"]')
    assert config.load(repo.top, {}).network.allow == ("pypi",)
    (repo.top / ".opencode").rename(tmp_path / "elsewhere")
    (repo.top / ".opencode").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TaskError, match="is a link"):
        config.load(repo.top, {})


def test_an_agent_does_not_decide(repo: Repo, task_id: str, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    token = ask("attach", task_id, "--agent", "robot", "--json").json["lease"]["token"]
    for name, said in (("OPENCODE_TASKS_LEASE", token), ("OPENCODE_TASK_ID", task_id), ("OPENCODE_PID", "1")):
        with monkeypatch.context() as patched:
            patched.setenv(name, said)
            for more in ([], ["--task", task_id], ["--remove"]):
                ran = ask("allow", "pypi.org", *more, "--json", check=False)
                assert (ran.code, ran.json["error"]["code"]) == (1, "persons_decision"), (name, more)
            assert ask("allow").code == 0  # looking is free
    store = Store(repo.common)
    assert (allowed.hosts(store.layout), store.get(task_id).allowed) == ((), ())


def test_what_is_not_there_is_not_removed(repo: Repo, task_id: str, ask: Ask) -> None:
    settings(repo, 'allow = ["pypi"]')
    ask("allow", "npm")
    for word, more, hint in (
        ("debian", [], "opencode-tasks allow tells"),
        ("pypi", [], "network.allow of .opencode/tasks.toml"),
        ("npm", ["--task", task_id], "opencode-tasks allow --remove npm"),
    ):
        ran = ask("allow", word, *more, "--remove", "--json", check=False)
        assert (ran.code, ran.json["error"]["code"]) == (1, "not_allowed")
        assert hint in ran.json["error"]["hint"]
    assert ask("allow", "--remove", check=False).code == 2


def test_a_line_that_was_cut_short(repo: Repo, task_id: str, ask: Ask) -> None:
    path = repo.common / "opencode-tasks" / "allowed.jsonl"
    path.write_text('[1]\nnull\n{"hosts": 1}\n{"hosts": ["a.example"], "removed": 3}\n{"ts":"t","actor":"user:x","hos')
    assert ask("allow", "--json").json["allowed"] == []
    ask("allow", "pypi.org")
    assert [one["host"] for one in ask("allow", "--json").json["allowed"]] == ["pypi.org"]
    assert json.loads(path.read_text().splitlines()[-1])["hosts"] == ["pypi.org"]


def test_a_preset_that_went_away(repo: Repo, task_id: str, ask: Ask) -> None:
    Store(repo.common).record(task_id, ("network.allowed", {"hosts": ["gone"]}), actor="test")
    ran = ask("task-status", task_id, check=False)
    assert (ran.code, "'gone'" in ran.err) == (1, True)
    assert "'gone'" in ask("allow", "--task", task_id, check=False).err
    ask("allow", "gone", "--remove", "--task", task_id)
    assert ask("task-status", task_id).code == 0
