"""A task from beginning to end in the real OpenCode. Asserted from `.tasks/`, git, and the requests to the model."""

import re
from pathlib import Path

import docker
import pytest

from tests.conftest import Repo
from tests.opencode.conftest import ROOT, of
from tests.opencode.model import Script, bash, calls, says
from tests.opencode.program import OpenCode, wait_for

ADDING = "def add(a, b):\n    return a - b\n"
TESTS = """import unittest

from adding import add


class Adding(unittest.TestCase):
    def test_two_and_two(self):
        self.assertEqual(add(2, 2), 4)
"""


@pytest.mark.timeout(300)
def test_a_task_from_beginning_to_end(ours: Repo, opencode: OpenCode, client: docker.DockerClient) -> None:
    ours.commit("a project", **{"adding.py": ADDING, "test_adding.py": TESTS, ".gitignore": "__pycache__/\n"})
    model, top = opencode.model, ours.top
    notes = {"filePath": f"{top}/NOTES.md", "content": "adds\n"}
    todos = [
        {"content": "Find what is wrong", "status": "completed", "priority": "high"},
        {"content": "Tell of the sums", "status": "pending", "priority": "low"},
    ]
    script: Script = [
        bash("hostname; pwd; python3 -m unittest -q 2>&1 | tail -1"),
        calls(("todowrite", {"todos": todos})),
        calls(("read", {"filePath": f"{top}/adding.py"})),
        calls(("edit", {"filePath": f"{top}/adding.py", "oldString": "a - b", "newString": "a + b"})),
        calls(("write", notes), text="- **Decision:** sums stay integers, because floats round."),
        bash("python3 -m unittest -q 2>&1 | tail -1; git add -A && git commit -qm 'Add, and do not subtract'"),
        bash("echo more >>NOTES.md; rm -rf ./*.py"),
        bash("opencode-tasks checkpoint --list"),
        lambda request: bash(f"opencode-tasks restore-checkpoint {risky(request.result)}"),
        calls(("edit", {"filePath": f"{top}/.envrc", "oldString": "", "newString": "export X=1"})),
        says("It adds now."),
    ]
    turn = opencode.run("Fix the adding", cwd=top, command="create-task", script=script)
    task_id = ours.only_id()
    first, last = model.turns[0], model.turns[-1]
    assert "create-task" in first.user
    assert task_id in first.user
    assert "- sums stay integers, because floats round." in last.system
    container = client.containers.get(f"opencode-task-{task_id}")
    hostname = container.attrs["Config"]["Hostname"]
    assert turn.tools("bash")[0]["output"].split("\n") == [hostname, str(top), "FAILED (failures=1)", ""]
    finished = of(ours, task_id, "command.finished")
    assert [c["output_tail"] for c in finished[1:]] == ["OK\n", ""]
    (refused,) = [s for s in turn.tools() if s["status"] == "error"]
    assert ".envrc is closed to agents" in refused["error"]
    assert not (top / ".envrc").exists()
    assert [(Path(u["paths"][0]).name, bool(u["error"])) for u in of(ours, task_id, "tool.used")] == [
        ("adding.py", False),
        ("NOTES.md", False),
        (".envrc", True),
    ]
    # What the dangerous command did is undone, and what was committed inside is on the branch.
    assert (top / "adding.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert (top / "NOTES.md").read_text() == "adds\n"
    assert ours.git("status", "--short").out == ""
    assert (
        ours.git("log", "--format=%an|%s|%b", "main..").out.strip()
        == f"Test|Add, and do not subtract|Task-Id: {task_id}"
    )
    assert [d["text"] for d in of(ours, task_id, "decision.added")] == ["sums stay integers"]
    assert [c["to"] for c in of(ours, task_id, "session.changed")] == ["started", "ended"]

    ours.commit("By a person", **{"more.txt": "x\n"})
    with opencode.serve(top) as server:
        one, told = server.create(top), len(model.turns)
        server.prompt(one, "go on", [says("Well.")], directory=top)
        server.prompt(turn.session, "go on", [says("Well.")], directory=top)
        fresh, resumed = model.turns[told:]
        for text in ("Fix the adding", "1 of 2 steps done", "2. Tell of the sums", "- sums stay integers"):
            assert text in fresh.system
            assert text in resumed.system
        assert "By a person" not in fresh.system
        assert "commit" in resumed.system.partition("Since you were last here:\n")[2].partition("By a person")[0]
        script = [bash("touch late"), calls(("write", notes))]
        server.command(turn.session, "complete-task", "", script, directory=top)
        late = server.tools(turn.session, top)[-2]
        assert late["metadata"]["exit"] == 126
        assert f"Task {task_id} is completed" in late["output"]
        assert not (top / "late").exists()
        offered = {c["name"]: c["description"] for c in server.call("GET", "/command", directory=top)}
    container.reload()
    assert container.status == "exited"
    assert task_id in model.turns[-1].user
    assert of(ours, task_id, "status.changed")[-1]["to"] == "completed"
    told_of = [c["to"] for c in of(ours, task_id, "session.changed") if c["session"] == turn.session]
    assert told_of[:3] == ["started", "ended", "resumed"]
    for command in (ROOT / "commands").iterdir():
        assert f"description: {offered[command.stem]}" in command.read_text(), "OpenCode understands the front matter"
    wait_for(lambda: opencode.left() == {}, "the end of all that OpenCode has started")


def risky(listed: str) -> str:
    """The newest checkpoint before a dangerous command."""
    return str(re.findall(r"^(c\d+) .*\[rm-recursive\]", listed, re.MULTILINE)[-1])
