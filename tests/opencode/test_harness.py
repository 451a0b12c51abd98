"""OpenCode without us: what the tests here build upon."""

import signal
import threading
from pathlib import Path

from tests.conftest import Repo
from tests.opencode.model import Request, Script, Step, bash, calls, says
from tests.opencode.program import VERSION, OpenCode, wait_for


def plain(tmp_path: Path) -> Repo:
    top = tmp_path / "plain"
    top.mkdir()
    repo = Repo(top)
    repo.git("init", "--quiet")
    repo.commit("first", **{"a.txt": "one\n"})
    return repo


def test_a_run_follows_its_script(opencode: OpenCode, tmp_path: Path) -> None:
    repo = plain(tmp_path)

    def copies(request: Request) -> Step:
        first, *_ = request.results.values()
        return bash(f"printf %s '{first.strip()}' >copied; exit 3")

    script: Script = [
        calls(
            ("bash", {"command": "pwd", "description": "x"}), ("write", {"filePath": f"{repo.top}/w", "content": "w"})
        ),
        calls(("read", {"filePath": f"{repo.top}/w"}), ("glob", {"pattern": "a.*"}), text="Looking.\nTwice."),
        calls(("edit", {"filePath": f"{repo.top}/w", "oldString": "w", "newString": "edited"})),
        copies,
        says("All done."),
    ]
    turn = opencode.run("do it", cwd=repo.top, script=script)
    assert (repo.top / "w").read_text() == "edited"
    assert (repo.top / "copied").read_text() == str(repo.top)
    assert [s["status"] for s in turn.tools()] == ["completed"] * 6
    assert [s["metadata"]["exit"] for s in turn.tools("bash")] == [0, 3]
    assert "a.txt" in turn.tools("glob")[0]["output"]
    assert turn.texts == ["Looking.\nTwice.", "All done."]
    first, *_, last = opencode.model.turns
    assert {"bash", "edit", "read", "write", "task", "todowrite"} <= first.tools
    assert "do it SCRIPT:s0" in first.user
    assert str(repo.top) in first.system
    assert last.results["call_s0_0_0"].strip() == str(repo.top)
    assert len(opencode.model.requests) == len(opencode.model.turns) + 1, "one for the title"
    assert opencode.left() == {}


def test_a_server_and_a_kill(opencode: OpenCode, tmp_path: Path) -> None:
    """Also what research says of abort, undo and signals: should a newer OpenCode differ, this tells."""
    repo, go = plain(tmp_path), threading.Event()
    opencode.config["permission"] = {"bash": {"*": "allow", "rm *": "ask"}}
    with opencode.serve(tmp_path) as server:
        assert server.call("GET", "/global/health")["version"] == VERSION
        one = server.create(repo.top)
        script = [bash("rm a.txt"), calls(("write", {"filePath": f"{repo.top}/new", "content": "x"})), says("ok")]
        server.prompt(one, "remove it", script, directory=repo.top, wait=False)
        wait_for(lambda: server.asked(repo.top), "a question")
        server.permit(server.asked(repo.top)[0], "reject", repo.top)
        wait_for(lambda: [s["status"] for s in server.tools(one, repo.top)] == ["error"], "the answer")
        wait_for(lambda: server.is_idle(one, repo.top), "the end of the turn")
        server.prompt(one, "write it", script[1:], directory=repo.top)
        assert (repo.top / "new").exists()
        server.undo(one, repo.top)
        assert not (repo.top / "new").exists()
        two = server.create(repo.top)
        server.prompt(two, "wait", [bash("echo $$ >pid; sleep 60")], directory=repo.top, wait=False)
        wait_for((repo.top / "pid").exists, "the command")
        server.abort(two, repo.top)
        wait_for(lambda: not any("sleep 60" in line for line in opencode.left().values()), "the command's end")
        server.delete(two, repo.top)
    script = [Step(calls=bash("touch early").calls, until=go), bash("echo >late; exec sleep 61")]
    with opencode.start("wait", cwd=repo.top, script=script) as running:
        wait_for(lambda: len(opencode.model.turns) >= 5, "the request")
        assert not (repo.top / "early").exists()
        go.set()
        wait_for((repo.top / "late").exists, "the command")
        assert running.kill().code == -signal.SIGKILL
    wait_for(lambda: list(opencode.left().values()) == ["sleep 61"], "what is left")
    opencode.close()
    wait_for(lambda: opencode.left() == {}, "the end of all")
