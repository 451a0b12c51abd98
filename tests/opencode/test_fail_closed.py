"""A task whose container cannot run: nothing of the agent runs on the host, or is written where it may not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Repo
from tests.opencode.conftest import of
from tests.opencode.model import Request, Script, Step, bash, calls, says
from tests.opencode.program import OpenCode

# `M` is the file that proves that something ran.
LINES = [
    "touch M",
    "touch M &",
    "exec touch M",
    "nohup touch M >/dev/null 2>&1 &",
    "setsid -f touch M",
    "sh <<'E'\ntouch M\nE",
    "cat <<E\n$(touch M)\nE",
    "echo `touch M` $(touch M)",
    'eval "touch M"',
    "(touch M) || { touch M; }",
    "trap 'touch M' EXIT; trap 'touch M' DEBUG; :",
    "env -i PATH=/usr/bin:/bin /bin/sh -c 'touch M'",
    "unset OPENCODE_TASKS_TASK OPENCODE_TASKS_BRIDGE OPENCODE_TASKS_REFUSED; touch M",
    "OPENCODE_TASKS_TASK= OPENCODE_TASKS_BRIDGE=/nowhere $SHELL -c 'touch M'",
    "\"to\"'uc'h M; $'\\x74ouch' M; to\\uch M",
    ">M",
    "opencode-tasks exec -- touch M",
    "opencode-tasks task-status; touch M",
    "opencode-tasks list-tasks $(touch M)",
    "opencode-tasks list-tasks\ntouch M",
    "opencode-tasks task-status >M",
    "opencode-tasks shell -c 'touch M'",
    "opencode-tasks task-decisions --add x --export M",
    "git -c alias.x='!touch M' x; git -c core.fsmonitor='touch M' status",
    "python3 -c \"open('M','w')\"",
    "coproc touch M; wait",
    "exit 0; touch M",
    "touch M #\\\n",
    "-c 'touch M'",
    "\ttouch M\n\n",
]
ELSEWHERE = ["/", "/tmp", "OUTSIDE", "TOP/.git", "TOP/.git/hooks", "TOP/..", "TOP/.tasks", "/proc/self/cwd"]


@pytest.mark.timeout(300)
def test_nothing_runs_on_the_host(repo: Repo, opencode: OpenCode, tmp_path: Path) -> None:
    """There is no engine. Also of subagents, of the person in OpenCode, and with our child killed, or hanging."""
    opencode.env.update(repo.env)
    opencode.config["permission"] = {"external_directory": "allow"}  # only we are left to refuse
    top, outside, proof = repo.top, tmp_path / "outside", tmp_path / "proof"
    for folder in (outside, proof):
        folder.mkdir()
    repo.git("checkout", "-q", "-b", "task/one")
    task_id = repo.only_id()
    (top / "way-out").symlink_to(outside)
    (top / "way-in").symlink_to(top / ".git")
    before = {path: path.read_bytes() for path in (top / ".git" / "config", top / ".opencode" / "opencode.jsonc")}
    hooks = sorted((top / ".git" / "hooks").iterdir())

    commands = [line.replace("M", str(proof / f"line-{n}")) for n, line in enumerate(LINES)]
    at = [place.replace("TOP", str(top)).replace("OUTSIDE", str(outside)) for place in ELSEWHERE]
    places = [
        ("bash", {"command": f"touch {proof}/place-{n}", "workdir": place, "description": "x"})
        for n, place in enumerate(at)
    ]
    written = [
        *(
            ".git/hooks/pre-commit",
            ".git/hooks/../config",
            ".git/opencode-tasks/bin/tasksh",
            f".tasks/{task_id}/plan.md",
        ),
        *(".opencode/plugins/more.js", ".opencode/opencode.jsonc", ".opencode/tasks.toml", "opencode.json", ".envrc"),
        *("way-in/hooks/pre-commit", "way-out/file", "../outside/file", f"{outside}/file", ".GIT/hooks/pre-push"),
    ]
    files = [("write", {"filePath": f"{top}/{name}" if name[0] != "/" else name, "content": "x"}) for name in written]
    child = opencode.model.learn([bash(f"touch {proof}/subagent"), calls(files[0]), says("no")])
    allowed = ("write", {"filePath": f"{top}/allowed", "content": "x"})

    def with_child(number: int, name: str) -> Callable[[Request], Step]:
        def step(_: Request) -> Step:
            for pid in opencode.children():
                os.kill(pid, number)
            written = ("write", {"filePath": f"{top}/{name}", "content": "x"})
            return calls(("bash", {"command": f"touch {proof}/{name}", "description": "x"}), written)

        return step

    script: Script = [
        calls(*(("bash", {"command": command, "description": "x"}) for command in commands)),
        calls(*places, *files),
        calls(("task", {"description": "x", "prompt": child, "subagent_type": "general"})),
        with_child(signal.SIGKILL, "killed"),
        with_child(signal.SIGSTOP, "stopped"),
        calls(allowed),
    ]
    with opencode.serve(top) as server:
        session = server.create(top)
        server.prompt(session, "try", script, directory=top)
        states = server.tools(session, top)
        (subagent,) = server.call("GET", f"/session/{session}/children", directory=top)
        states += server.tools(subagent["id"], top)
        patch = "*** Begin Patch\n*** Add File: {}\n+x\n*** End Patch"
        patches = [("apply_patch", {"patchText": patch.format(name)}) for name in (".envrc", f"{outside}/file", "fine")]
        gpt = server.create(top)
        server.prompt(gpt, "patch", [calls(*patches)], directory=top, model="gpt-5")
        states += server.tools(gpt, top)
        by_person = {"agent": "build", "command": f"touch {proof}/person"}
        server.call("POST", f"/session/{session}/shell", by_person, directory=top)
        states.append(server.tools(session, top)[-1])
    assert list(proof.iterdir()) == list(outside.iterdir()) == []
    assert of(repo, task_id, "command.started") == []
    ran = [state for state in states if "command" in state["input"]]
    assert len(ran) == len(LINES) + len(ELSEWHERE) + 4
    for state in ran:
        assert "opencode-tasks: " in state["output"], state
        assert state["metadata"].get("exit") != 0, state
    asked = [state for state in states if "filePath" in state["input"] or "patchText" in state["input"]]
    refused = [state["error"] for state in asked if state["status"] == "error"]
    assert len(refused) == len(files) + 1 + 1 + 2, "the subagent's, with the child stopped, and two patches"
    assert all("closed to agents" in why or "leads out" in why for why in refused if "gave no answer" not in why)
    assert sum("gave no answer" in why for why in refused) == 1
    made = {"way-in", "way-out", "allowed", "killed", "fine"}
    assert {line[3:] for line in repo.git("status", "--porcelain").out.splitlines()} == made
    assert {path: path.read_bytes() for path in before} == before
    assert sorted((top / ".git" / "hooks").iterdir()) == hooks
