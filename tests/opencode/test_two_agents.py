"""Several agents at once: two directories of one server, and two OpenCodes on one task."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Repo
from tests.opencode.conftest import of
from tests.opencode.model import Request, Script, Step, bash, calls, says
from tests.opencode.program import OpenCode, Server, wait_for

ROUNDS = 4


@pytest.mark.timeout(400)
def test_two_agents(ours: Repo, opencode: OpenCode) -> None:
    top, model = ours.top, opencode.model
    ours.git("checkout", "-q", "-b", "task/one")
    one = ours.only_id()
    made = ours.tasks("create-task", "Two", "--worktree", "--json").json
    two, other = str(made["id"]), Path(made["workspace"]["path"])

    def go(server: Server, task_id: str, script: Script) -> None:
        session, directory = sessions[task_id]
        server.prompt(session, "go", script, directory=directory)

    with opencode.serve(top) as server, ThreadPoolExecutor() as at_once:
        sessions = {one: (server.create(top), top), two: (server.create(other), other)}
        scripts = {t: [bash("hostname >who; pwd >>who; sleep 1"), says(f"Decision: only of {t}")] for t in (one, two)}
        list(at_once.map(lambda t: go(server, t, scripts[t]), scripts))
        for task_id, (_, directory) in sessions.items():
            assert (directory / "who").read_text() == f"{task_id}\n{directory}\n", "each in its own container"
            assert [d["text"] for d in of(ours, task_id, "decision.added")] == [f"only of {task_id}"]
        told, write = len(model.turns), ("write", {"filePath": f"{top}/refused", "content": "x"})
        script = [bash("touch refused"), calls(write), says("Decision: of the second")]
        turn = opencode.run("go", cwd=top, script=script)
        held = f"Task {one} is held by agent opencode-{server.running.process.pid} (exclusive"
        assert held in model.turns[told].system
        assert [held in str(state.get("error") or state["output"]) for state in turn.tools()] == [True, True]
        assert turn.tools("bash")[0]["metadata"]["exit"] == 126
        assert not (top / "refused").exists()
        assert len(of(ours, one, "decision.added")) == len(of(ours, one, "lease.taken")) == 1

    opencode.env["OPENCODE_TASKS_OPENCODE_MODE"] = "collaborative"
    together = threading.Barrier(2, timeout=60)

    def rounds(name: str) -> Script:
        def meet(_: Request) -> Step:
            together.wait()
            return bash("true")

        def work(n: int) -> Step:
            one = f"{name}{n}"  # git has one index for both: what is added is not to be in the other's commit
            command = (
                f"echo {one} >>both; touch {one}; until git add {one} && git commit -qm {one} {one}; do sleep .1; done"
            )
            return calls(("bash", {"command": command, "description": "x"}), text=f"Decision: {name}{n}")

        return [meet, *map(work, range(ROUNDS))]

    with ThreadPoolExecutor() as at_once:
        list(at_once.map(lambda name: opencode.run("go", cwd=top, script=rounds(name)), "ab"))
    wanted = sorted(f"{name}{n}" for name in "ab" for n in range(ROUNDS))
    assert sorted((top / "both").read_text().split()) == wanted
    assert sorted(ours.git("log", "--format=%s", "main..").out.split()) == wanted
    assert ours.git("status", "--short").out == "?? both\n?? who\n"
    assert sorted(d["text"] for d in of(ours, one, "decision.added")[1:]) == wanted
    by = {e["data"]["text"][0]: e["actor"] for e in ours.events(one) if e["type"] == "decision.added"}
    assert len({by["a"], by["b"]}) == 2, "it is known who decided what"
    taken = [lease["mode"] for lease in of(ours, one, "lease.taken")]
    assert taken == ["exclusive", "collaborative", "collaborative"]
    assert len(of(ours, one, "lease.released")) == len(taken)
    wait_for(lambda: opencode.left() == {}, "the end of all that OpenCode has started")
