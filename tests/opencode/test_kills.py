"""Whatever is killed in the middle of a command: nothing of it goes on, and what comes next finds its way."""

import os
import signal
from typing import Any

import docker
import pytest

from tests.conftest import Repo
from tests.opencode.conftest import of
from tests.opencode.model import bash, says
from tests.opencode.program import OpenCode, Server, wait_for


@pytest.mark.timeout(400)
def test_kills(ours: Repo, opencode: OpenCode, client: docker.DockerClient) -> None:
    top = ours.top
    ours.git("checkout", "-q", "-b", "task/one")
    task_id = ours.only_id()

    def container() -> Any:
        return client.containers.get(f"opencode-task-{task_id}")

    def sleeping() -> list[str]:
        if container().status != "running":
            return []
        lines = [row[-1] for row in container().top(ps_args="-eo pid,args")["Processes"]]
        return [line for line in lines if line.startswith("sleep 432")]

    def begin(server: Server, name: str) -> None:
        long = f"sleep 4321 & touch {name}; sleep 4322; touch never"
        script = [bash(long), bash(f"touch after-{name}"), says("Well.")]
        server.prompt(session, "go", script, directory=top, wait=False)
        wait_for((top / name).exists, f"the command {name}")
        assert len(sleeping()) == 2

    def end(server: Server, name: str, why: str) -> None:
        wait_for((top / f"after-{name}").exists, "the next command")
        wait_for(lambda: server.is_idle(session, top), "the end of the turn")
        assert sleeping() == []
        first, second = server.tools(session, top)[-2:]
        assert why in first["output"]
        assert (first["metadata"]["exit"], second["metadata"]["exit"]) == (1, 0)

    with opencode.serve(top) as server:
        session = server.create(top)
        begin(server, "child")
        (child,) = opencode.children()
        os.kill(child, signal.SIGKILL)
        assert len(sleeping()) == 2, "the command has a process of its own"
        os.killpg(child, signal.SIGKILL)  # as the plugin does it when it hangs
        end(server, "child", "how it ended is not known")
        begin(server, "container")
        assert opencode.children() != [child]
        container().kill()
        end(server, "container", "how it ended is not known")
        begin(server, "aborted")
        server.abort(session, top)
        wait_for(lambda: sleeping() == [], "the end of what was aborted")
        begin(server, "killed")
        server.running.kill()
        wait_for(lambda: opencode.left() == {}, "the end of all that OpenCode has started")
        wait_for(lambda: sleeping() == [], "the end of its command")
    assert [c["to"] for c in of(ours, task_id, "session.changed")][-2:] == ["interrupted", "interrupted"]
    assert len(of(ours, task_id, "lease.taken")) == len(of(ours, task_id, "lease.released"))
    told = len(opencode.model.turns)
    opencode.run("go on", "--session", session, cwd=top, script=[bash("touch again")])
    assert (top / "again").exists()
    assert not (top / "never").exists()
    since = opencode.model.turns[told].system.partition("Since you were last here:\n")[2].partition("\n\n")[0]
    assert "a session interrupted" in since
    assert "touch killed; sleep 4322" in since, "and what was cut off"
    assert "touch aborted" not in since, "that it knows"
