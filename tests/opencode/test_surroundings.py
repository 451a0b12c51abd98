"""Beside oh-my-opencode, whichever comes first, and in a network that is loopback only: nobody asks for more."""

import ctypes
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import node
from tests.conftest import Repo, run
from tests.opencode.conftest import of
from tests.opencode.model import Model, Script, bash, calls, says
from tests.opencode.program import OpenCode

OMO = "oh-my-opencode@4.19.4"
LARGE = "@code-yeongyu/comment-checker"  # 256 MB, for comments in edits
NEWNET = 0x40000000
QUIET = {
    "telemetry": False,
    "auto_update": False,
    "disabled_hooks": ["auto-update-checker", "codegraph-bootstrap", "ast-grep-sg-provision", "comment-checker"],
    "disabled_mcps": ["websearch", "context7", "grep_app"],
    "codegraph": {"enabled": False},
}


@pytest.fixture(scope="session")
def omo(pytestconfig: pytest.Config) -> Path:
    return node.installed(pytestconfig, OMO, without=LARGE) / "oh-my-opencode" / "dist" / "index.js"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[int]:
    """A process in a network of its own, which is loopback, and where names are asked of an address that is nowhere."""
    names = tmp_path / "resolv.conf"
    names.write_text("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
    script = f"ip link set lo up && mount --bind {names} /etc/resolv.conf && echo up && exec sleep 600"
    holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"up\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def listener_in(pid: int) -> socket.socket:
    """A socket of the process's network, to be used from here."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path(f"/proc/{pid}/ns/net").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), NEWNET) == 0:
                made.append(socket.create_server(("127.0.0.1", 0)))

    thread = threading.Thread(target=make)  # the namespace is that of one thread
    thread.start()
    thread.join()
    return made[0]


def tried(pid: int) -> int:
    """How often somebody wanted to send something to where no way leads."""
    names, numbers = (
        line.split() for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if line.startswith("Ip:")
    )
    return int(numbers[names.index("OutNoRoutes")])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("order", ["without", "first", "last"])
def test_surroundings(ours: Repo, opencode: OpenCode, omo: Path, alone: int, tmp_path: Path, order: str) -> None:
    top, quiet = ours.top, json.dumps({"[opencode]": QUIET})
    opencode.prefix = ["nsenter", f"--target={alone}", "--net", "--mount", "--"]
    opencode.model.close()
    opencode.model = model = Model(listener_in(alone))
    leave = "import socket; socket.socket().connect_ex(('192.0.2.1', 80))"
    run([*opencode.prefix, "python3", "-c", leave], cwd=tmp_path)
    assert tried(alone) == 1, "it would be seen"
    if order == "first":  # what the settings name comes before what lies in folders
        opencode.config["plugin"] = [omo.as_uri()]
    elif order == "last":  # and this folder after the project's
        opencode.env["OPENCODE_CONFIG_DIR"] = str(tmp_path / "more")
        (tmp_path / "more" / "plugins").mkdir(parents=True)
        reexport = f"export {{ default }} from {json.dumps(str(omo))}\n"
        (tmp_path / "more" / "plugins" / "omo.js").write_text(reexport)
    opencode.env |= {"OMO_SEND_ANONYMOUS_TELEMETRY": "0", "OMO_DISABLE_POSTHOG": "1"}
    ours.commit("settings of another plugin", **{".omo/omo.jsonc": quiet})
    ours.git("checkout", "-q", "-b", "task/one")
    task_id = ours.only_id()
    own = {"description": "x", "prompt": model.learn([bash("hostname; git status --short"), says("Done.")])}
    how = {"subagent_type": "general", "run_in_background": False, "load_skills": []}
    script: Script = [
        bash("hostname; git log -1 --format=%s"),
        calls(*(("write", {"filePath": f"{top}/{name}", "content": "x"}) for name in ("new", ".envrc"))),
        bash("git add new && git commit -qm 'By an agent'"),
        calls(("task", own | how), text="Decision: beside others."),
        says("Fine."),
    ]
    turn = opencode.run("do it" if order == "without" else "ultrawork do it", cwd=top, script=script)
    assert tried(alone) == 1, "nobody wanted to leave"
    assert ("Sisyphus" in model.turns[0].system) == (order != "without")
    assert all(f"You work on task {task_id}" in request.system for request in model.turns)
    assert len(model.turns) == len(script) + 2
    outputs = [c["output_tail"] for c in of(ours, task_id, "command.finished")]
    assert outputs[0] == f"{task_id}\nsettings of another plugin\n"
    assert outputs[1] == ""
    status = ours.git("status", "--short").out
    assert status == ("" if order == "without" else " M .omo/omo.jsonc\n"), "its own notes are no work of the task"
    assert outputs[2] == f"{task_id}\n{status}", "the subagent's"
    (refused,) = [state for state in turn.tools() if state["status"] == "error"]
    assert ".envrc is closed to agents" in refused["error"]
    assert sorted(Path(u["paths"][0]).name for u in of(ours, task_id, "tool.used")) == [".envrc", "new"]
    assert ours.git("log", "--format=%s", "main..").out == "By an agent\n"
    assert [d["text"] for d in of(ours, task_id, "decision.added")] == ["beside others."]
    assert [(c["session"], c["to"]) for c in of(ours, task_id, "session.changed")] == [
        (turn.session, "started"),
        (turn.session, "ended"),
    ]
