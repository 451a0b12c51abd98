"""What each hook does to the task, asked as the plugin asks; without an engine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_tasks import plans
from opencode_tasks.commands import MODULES as COMMANDS
from opencode_tasks.opencode_hooks import MODULES, command, text
from opencode_tasks.store import Store
from tests.conftest import Repo
from tests.opencode_hooks.conftest import Children

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = (ROOT / "opencode_hooks" / "opencode-tasks.js").read_text()


def test_what_the_plugin_asks_for_is_there_and_every_slash_command_has_its_file() -> None:
    asked = set(re.findall(r'(?:ask|tell|once)\("([a-z.]+)"', PLUGIN))
    assert asked == set(MODULES)
    for module in MODULES.values():
        assert (ROOT / "src" / "opencode_tasks" / "opencode_hooks" / f"{module}.py").is_file()
    named = re.search(r"const COMMANDS = new Set\(\s*\(([^;]*?)\)\.split", PLUGIN)
    assert named is not None
    assert "".join(re.findall(r'"([^"]*)"', named[1])).split() == list(command.NAMES)
    assert {path.stem for path in (ROOT / "commands").glob("*.md")} == set(command.NAMES) <= set(COMMANDS)
    documented = (ROOT / "docs" / "sessions.md").read_text()
    assert [name for name in command.NAMES if f"`/{name}" not in documented] == []
    for path in (ROOT / "commands").glob("*.md"):
        said = path.read_text()
        assert "agent:" not in said.split("---")[1], "oh-my-opencode would make a child session of it"
        assert "!`" not in said, "nothing of what a person typed comes near a shell"
        assert len(said.splitlines()) < 40, "one screen"


@pytest.fixture
def task(repo: Repo) -> str:
    repo.git("checkout", "--quiet", "-b", "task/hooks")
    return repo.only_id()


def types(repo: Repo, task: str) -> list[str]:
    return [event["type"] for event in repo.events(task)]


def test_a_session_takes_the_lease_is_told_and_comes_back(repo: Repo, task: str, children: Children) -> None:
    (repo.store / task / "plan.md").write_text(
        "# Hooks\n\n## Goal\n\nAll of them\nwork.\n\n## Steps\n\n- [x] One\n- [ ] Two\n"
    )
    first = children(repo)
    assert first.ask("started", plugin="1")["env"]["OPENCODE_TASKS_TASK"] == ""
    said = first.ask("chat.message")
    assert (said["task"], said["refused"]) == (task, "")
    assert set(said["env"]) == {"OPENCODE_TASKS_BRIDGE", "OPENCODE_TASKS_TASK", "OPENCODE_TASKS_LEASE"}
    for part in (task, "Goal: All of them work.", "Plan: 1 of 2 steps done", "- [ ] 2. Two", "Decision: what, because"):
        assert part in said["memory"]
    assert "Since you were" not in said["memory"]
    noted = first.ask(
        "text", text="Well.\n- **Decision:** use sh, because it is there\nDecision: no tabs\nno Decision: x"
    )
    assert "use sh, because it is there" in noted["memory"]
    assert first.ask("text", text="Decision: no tabs")["memory"].count("no tabs") == 1
    decided = Store(repo.common).decisions(task).items
    assert [(d.text, d.because) for d in decided] == [("use sh", "it is there"), ("no tabs", "")]
    first.ask("session.idle")
    first.leave()
    assert types(repo, task)[-2:] == ["session.changed", "lease.released"]
    repo.commit("Meanwhile", file="x\n")

    again = children(repo)
    said = again.ask("chat.message")
    assert "Since you were last here:" in said["memory"]
    assert "Meanwhile" in said["memory"].partition("Since you were last here:")[2]
    assert "use sh, because it is there" in said["memory"]
    changed = [e["data"]["to"] for e in repo.events(task) if e["type"] == "session.changed"]
    assert changed == ["started", "interrupted", "resumed"]
    again.ask("session.error", name="MessageAbortedError")
    again.ask("session.error", name="ProviderError", message="no\nmore")
    again.ask("session.compacted")
    assert task in again.ask("session.compacting")["context"][0]
    again.ask("permission.asked", permission="bash", patterns=["rm *"])
    again.ask("disposed")
    told = [e["data"] for e in repo.events(task) if e["type"] in ("session.changed", "permission.asked")][3:]
    assert [d.get("to") for d in told] == ["interrupted", "failed", "compacted", None, "ended"]
    assert told[1]["detail"] == "ProviderError: no\nmore"


def test_one_opencode_at_a_time_unless_the_settings_say_otherwise(repo: Repo, task: str, children: Children) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        first, second = children(repo), children(repo, other.pid)
        first.ask("chat.message")
        said = second.ask("chat.message", "ses_two")
        assert "is held by agent opencode-" in said["refused"]
        assert said["refused"] in said["memory"]
        assert said["env"]["OPENCODE_TASKS_REFUSED"] == said["refused"]
        args = {"filePath": str(repo.top / "x")}
        assert second.ask("tool.before", "ses_two", tool="write", args=args)["deny"] == said["refused"]
        assert "deny" not in first.ask("tool.before", tool="write", args=args)
        first.leave()
        assert second.ask("chat.message", "ses_two")["refused"] == ""
        # An OpenCode that died without a word, child and all: proof of death.
        second.process.kill()
        other.kill()
    assert children(repo).ask("chat.message")["refused"] == ""


def test_several_where_the_settings_say_so(repo: Repo, task: str, children: Children) -> None:
    repo.env["OPENCODE_TASKS_OPENCODE_MODE"] = "collaborative"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        first, second = children(repo), children(repo, other.pid)
        assert first.ask("chat.message")["refused"] == second.ask("chat.message", "ses_two")["refused"] == ""
        first.ask("text", text="Decision: first")
        second.ask("text", "ses_two", text="Decision: second")
        assert [d.text for d in Store(repo.common).decisions(task).items] == ["first", "second"]
        other.kill()


def test_file_tools_write_what_is_the_tasks(repo: Repo, task: str, children: Children, tmp_path: Path) -> None:
    child = children(repo)
    repo.env["OPENCODE_TASKS_CHECKPOINT_AUTOMATIC"] = "commands"
    child = children(repo)
    child.ask("chat.message")

    def denied(tool: str, **args: str) -> str:
        return str(child.ask("tool.before", tool=tool, args=args).get("deny", ""))

    (repo.top / "folder").mkdir()
    (repo.top / "out").symlink_to(tmp_path)
    (repo.top / "rc").symlink_to(tmp_path / "bashrc")
    (repo.top / "inner").symlink_to(repo.top / ".git")
    assert denied("write", filePath=str(repo.top / "folder" / "new.txt")) == ""
    assert "checkpoint.created" in types(repo, task)
    assert denied("edit", filePath="file") == ""
    for path in ("out/x", "rc", "../x", "/etc/passwd", "folder/../../x", str(tmp_path / "x")):
        assert "leads out of" in denied("write", filePath=path), path
    for path in (".git/hooks/pre-commit", ".git", ".opencode/tasks.toml", ".tasks/x/plan.md", "inner/config", ".envrc"):
        assert "closed to agents" in denied("write", filePath=path), path
    assert "closed to agents" in denied("write", filePath=str(repo.common / "config"))
    assert "closed to agents" in denied("write", filePath=".GIT/config") + " is one that is closed to agents"
    patch = (
        "*** Begin Patch\n*** Update File: file\n@@\n-a\n+b\n*** Add File: .opencode/plugins/x.js\n+x\n*** End Patch"
    )
    assert ".opencode is closed" in denied("apply_patch", patchText=patch)
    moved = "*** Begin Patch\n*** Update File: file\n*** Move to: ../file\n*** End Patch"
    assert "leads out of" in denied("apply_patch", patchText=moved)
    assert "cannot be told" in denied("apply_patch", patchText="nothing")
    assert "cannot be told" in denied("write")
    child.ask("tool.after", tool="write", args={"filePath": "file"})
    child.ask("tool.error", tool="edit", args={"filePath": "file"}, error="not found")
    used = [e["data"] for e in repo.events(task) if e["type"] == "tool.used"]
    assert [(u["tool"], u["paths"], u["error"]) for u in used] == [
        ("write", ["file"], ""),
        ("edit", ["file"], "not found"),
    ]
    repo.tasks("complete-task")
    assert "completed" in denied("write", filePath="file")
    repo.git("checkout", "--quiet", "main")
    assert denied("write", filePath="/anywhere") == ""
    assert child.ask("branch.updated")["task"] == ""


def test_the_agents_list_is_the_plans(repo: Repo, task: str, children: Children) -> None:
    path = repo.store / task / "plan.md"
    path.write_text("# T\n\n## Steps\n\n- [ ] Read the  code\n- [ ] Mine\n\n## Notes\n\nkept\n")
    child = children(repo)
    todos = [
        {"content": "read the code", "status": "completed"},
        {"content": "Write [tests]\nand docs", "status": "in_progress"},
        {"content": "dropped", "status": "cancelled"},
        "nonsense",
    ]
    child.ask("todo.updated", todos=todos)
    wanted = "# T\n\n## Steps\n\n- [x] Read the  code\n- [ ] Mine\n- [ ] Write [tests] and docs\n\n## Notes\n\nkept\n"
    assert path.read_text() == wanted
    child.ask("todo.updated", todos=todos)
    assert path.read_text() == wanted
    assert [e["data"]["steps"] for e in repo.events(task) if e["type"] == "plan.updated"] == [[1]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\n- [x] A\n"),
        ("# T", "# T\n\n- [x] A\n"),
        ("# T\n\n## Steps\n\n## Notes\n", "# T\n\n## Steps\n\n- [x] A\n\n## Notes\n"),
        ("```\n## Steps\n```\n", "```\n## Steps\n```\n\n- [x] A\n"),
        ("## Steps\n* [ ] b\n", "## Steps\n* [ ] b\n- [x] A\n"),
    ],
)
def test_where_a_new_step_goes(before: str, after: str) -> None:
    assert plans.with_list(before, [(" A ", True), ("a", False), ("", True)]) == (after, [])


def test_which_lines_are_decisions() -> None:
    said = "Decision: a because b because c\n  * Decision: d;\n> Decision: e\nDecision:\nDecision:   \n**Decision:** f"
    assert text.decisions(said) == [("a", "b because c"), ("d", ""), ("f", "")]
    assert len(text.decisions("Decision: x\n" * 50)) == 10
    assert text.decisions("Decision: " + "x" * 9999)[0][0] == "x" * 500


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("create-task", "Fix the parser", ["Fix the parser"]),
        ("create-task", "Don't break $(rm -rf /) `x`", ["Don't break $(rm -rf /) `x`"]),
        ("create-task", '"Fix the parser --worktree"', ["Fix the parser", "--worktree"]),
        ("create-task", "'Fix it' --from main", ["Fix it", "--from", "main"]),
        ("restore-checkpoint", "c3 --dry-run", ["c3", "--dry-run"]),
        ("restore-checkpoint", '"c3 --dry-run"', ["c3", "--dry-run"]),
        ("checkpoint", "-m 'before it'", ["-m", "before it"]),
        ("task-status", "", []),
    ],
)
def test_what_was_typed_becomes_words_and_nothing_else(name: str, typed: str, words: list[str]) -> None:
    assert command.words_of(name, typed) == [name, *words]


def test_a_slash_command_runs_on_the_host(repo: Repo, children: Children) -> None:
    child = children(repo)
    made = child.ask("command", command="create-task", arguments="Say $(touch owned) it's done")
    assert (made["code"], repo.branch) == (0, "task/say-touch-owned-it-s-done")
    assert made["task"] == repo.only_id()
    assert made["memory"].count(made["task"]) == 1
    aside = child.ask("command", command="create-task", arguments="aside --worktree")
    assert aside["directory"] == Store(repo.common).get(aside["output"].split()[1]).workspace.path
    assert child.ask("command", command="resume-task", arguments="nobody")["output"].startswith("There is no task")
    refused = child.ask("command", command="task-decisions", arguments="--nonsense")
    assert (refused["code"], "nonsense" in refused["output"]) == (2, True)
    assert not (repo.top / "owned").exists()
    assert child.ask("command", command="uninstall", arguments="")["task"] == made["task"]
    assert (repo.common / "opencode-tasks" / "installed.json").exists()
    done = child.ask("command", command="complete-task", arguments="")
    assert (done["code"], Store(repo.common).get(made["task"]).status) == (0, "completed")


def test_a_childs_bug_is_told_and_it_goes_on(repo: Repo, task: str, children: Children) -> None:
    child = children(repo)
    child.ask("chat.message")
    assert "error" in child.ask("tool.before", tool="write", args={"filePath": "\0"})
    log = next((repo.store / task / "log").glob("*.jsonl"))
    log.write_bytes(b"\0" * 10 + log.read_bytes()[10:])
    assert child.ask("session.idle").keys() >= {"task"}
    assert child.process.stdin is not None
    child.process.stdin.write(b"not json\n[]\n{}\n" + b'{"id": 1, "hook": "os.system"}\n')
    assert "env" in child.ask("session.created")
