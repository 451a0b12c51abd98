"""`exec` through real processes and the real engine."""

import fcntl
import hashlib
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.images import newest
from opencode_tasks.containers.spec import ABSENT, EGRESS
from tests.conftest import Ran, Repo, run

SCRIPTS_ENGINE = Path(__file__).parents[2] / "scripts" / "engine"


@pytest.fixture(scope="module", params=["supervisor", "engine"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine_host: str
) -> Iterator[Repo]:
    """One task with its running container for all tests that leave it as it was; both ways into it."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.invalid\n")
    top = tmp_path_factory.mktemp("shared") / "repo"
    top.mkdir()
    env = {
        "DOCKER_HOST": engine_host,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    repo = Repo(top, env)
    repo.git("init", "--quiet", "--initial-branch=main")
    repo.commit("first", **{"README.md": "hello\n", "sub/deep/file": "x\n"})
    repo.tasks("init")
    repo.commit("settings")
    repo.git("checkout", "--quiet", "-b", "task/shared")
    repo.tasks("exec", "--", "true")
    if request.param == "engine":
        without_supervisor(repo)
    yield repo
    repo.tasks("uninstall", check=False)


def inside(repo: Repo, *argv: str, stdin: str = "", check: bool = True, cwd: Path | None = None) -> Ran:
    return repo.tasks("exec", "--", *argv, stdin=stdin, check=check, cwd=cwd)


def shell(repo: Repo, script: str, *, check: bool = True) -> Ran:
    return inside(repo, "sh", "-c", script, check=check)


def python(repo: Repo, script: str, *, check: bool = True) -> Ran:
    return inside(repo, "python3", "-c", script, check=check)


def start(repo: Repo, *argv: str, **streams: Any) -> subprocess.Popen[bytes]:
    """`exec` in the background."""
    return subprocess.Popen(
        ["opencode-tasks", "exec", "--", *argv], cwd=repo.top, env={**os.environ, **repo.env}, **streams
    )


def eventually(holds: Callable[[], object], what: str, *, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def processes(repo: Repo) -> list[str]:
    """What runs in the only task's container, but for what holds it open and the forwarder."""
    top: Any = docker.APIClient(repo.env["DOCKER_HOST"]).top(f"opencode-task-{repo.only_id()}", "-o pid,args")
    args = [row[1] for row in top["Processes"]]
    running = [a for a in args if not a.startswith(("/sbin/docker-init", "sleep infinity"))]
    running = [a for a in running if f"{EGRESS}/proxy.sock " not in a]
    supervisors = [a for a in running if a.startswith("python3 -I -S -c")]
    # One is always there; one more for each command.
    return [a for a in running if a not in supervisors] + supervisors[1:]


def without_supervisor(repo: Repo) -> None:
    """As in an image that has no python3: the engine's exec is all there is."""
    socket = socket_of(repo)
    socket.unlink()
    socket.with_name(f"{socket.name}{ABSENT}").touch()  # else it may still come


def socket_of(repo: Repo) -> Path:
    clone = (repo.top / ".git" / "opencode-tasks" / "clone").read_text().strip()
    return Path(f"/tmp/opencode-tasks-{os.getuid()}") / clone / repo.only_id() / "supervisor.sock"


def executions(repo: Repo) -> list[dict[str, Any]]:
    return [e["data"] for e in repo.events(repo.only_id()) if e["type"] == "command.finished"]


# Exit codes


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/etc/passwd"], 126),
        (["no-such-program"], 127),
        (["./no-such-file"], 127),
        (["sh", "-c", "exit 126"], 126),
        (["sh", "-c", "echo executable file not found; exit 126"], 126),
    ],
)
def test_exit_code(shared: Repo, argv: list[str], code: int) -> None:
    assert inside(shared, *argv, check=False).code == code
    assert executions(shared)[-1]["exit_code"] == code


def test_no_command_is_a_usage_error(shared: Repo) -> None:
    before = len(shared.events(shared.only_id()))
    ran = shared.tasks("exec", "--json", "--", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage")
    assert "exec -- COMMAND" in ran.json["error"]["hint"]
    assert len(shared.events(shared.only_id())) == before


# Streams


def test_streams_stay_apart(shared: Repo) -> None:
    ran = shell(shared, "printf out; printf err >&2")
    assert (ran.out, ran.err) == ("out", "err")


def test_arguments_arrive_as_they_are(shared: Repo) -> None:
    argv = ["a b", "", "$HOME", "--json", "é\n", "*", "--"]
    ran = python(shared, "import sys, json; print(json.dumps(sys.argv[1:]))")
    ran = inside(shared, "python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *argv)
    assert ran.json == argv


@pytest.fixture
def three_mb(tmp_path: Path) -> Path:
    path = tmp_path / "three-mb"
    path.write_bytes(os.urandom(3_000_000))
    return path


def test_stdin_from_a_file_comes_back_byte_identical(shared: Repo, three_mb: Path) -> None:
    with three_mb.open("rb") as f:
        process = start(shared, "cat", stdin=f, stdout=subprocess.PIPE)
        out_b, _ = process.communicate(timeout=60)
    assert hashlib.sha256(out_b).digest() == hashlib.sha256(three_mb.read_bytes()).digest()
    assert process.returncode == 0


def test_stdin_from_a_pipe_comes_back_byte_identical(shared: Repo, three_mb: Path) -> None:
    process = start(shared, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out_b, _ = process.communicate(three_mb.read_bytes(), timeout=60)
    assert hashlib.sha256(out_b).digest() == hashlib.sha256(three_mb.read_bytes()).digest()
    assert process.returncode == 0


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null"])
def test_without_stdin_the_command_sees_the_end_of_input(shared: Repo, redirection: str) -> None:
    ran = run(
        ["sh", "-c", f"opencode-tasks exec -- sh -c 'cat; echo end' {redirection}"],
        cwd=shared.top,
        env=shared.env,
        timeout_s=20,
    )
    assert ran.out == "end\n"


def test_a_command_that_does_not_read_is_not_waited_for(shared: Repo) -> None:
    with Path("/dev/zero").open("rb") as zero:
        assert start(shared, "true", stdin=zero).wait(timeout=20) == 0


def test_a_quiet_open_stdin_does_not_hold_the_command_up(shared: Repo) -> None:
    process = start(shared, "echo", "done", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read() == b"done\n"
    assert process.wait(timeout=20) == 0
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize(
    "argv",
    [["sh", "-c", "yes"], ["python3", "-c", "while True: print(1)"]],
    ids=["dies of SIGPIPE", "ignores SIGPIPE"],
)
def test_a_reader_that_has_seen_enough_leaves_nothing_running(shared: Repo, argv: list[str]) -> None:
    process = start(shared, *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(3)
    process.stdout.close()
    assert process.wait(timeout=20) != 0
    eventually(lambda: not processes(shared), "the container is quiet")


def test_a_signal_gets_through_a_flood_of_output(shared: Repo) -> None:
    """The engine ends no exec while another one's output is unread; a wait for the signal would never end."""
    process = start(shared, "yes", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(100_000)
    process.send_signal(signal.SIGTERM)
    while process.stdout.read(1 << 20):
        pass
    process.stdout.close()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    eventually(lambda: not processes(shared), "the container is quiet")


# Where


def test_runs_in_the_same_directory(shared: Repo) -> None:
    deep = shared.top / "sub" / "deep"
    assert inside(shared, "pwd", cwd=deep).out == f"{deep}\n"


def test_from_outside_it_runs_at_the_top(shared: Repo) -> None:
    shared.git("worktree", "add", "--quiet", "--detach", str(shared.top.parent / "elsewhere"))
    ran = shared.tasks("exec", "--task", shared.only_id(), "--", "pwd", cwd=shared.top.parent / "elsewhere")
    assert ran.out == f"{shared.top}\n"


@pytest.mark.parametrize("name", ["-two words:naïve 日本'\"$%", "line\nbreak\\\t"])
def test_odd_repository_paths(name: str, make_repo: Callable[..., Repo], engine_host: str) -> None:
    made = make_repo(name)
    repo = Repo(made.top, {"DOCKER_HOST": engine_host})
    repo.tasks("init")
    repo.git("checkout", "--quiet", "-b", "task/odd")
    try:
        ran = shell(repo, "printf '%s' \"$PWD\"; echo made > new")
        assert ran.out == str(repo.top)
        assert (repo.top / "new").read_text() == "made\n"
    finally:
        repo.tasks("uninstall")


# Who


def test_runs_as_the_invoking_user(shared: Repo) -> None:
    assert shell(shared, "id -u; id -g").out.split() == [str(os.getuid()), str(os.getgid())]


def test_files_made_inside_belong_to_the_invoking_user(shared: Repo) -> None:
    shell(shared, "echo made > owned")
    made = (shared.top / "owned").stat()
    (shared.top / "owned").unlink()
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())


# Isolation


@pytest.mark.parametrize(
    "attack",
    [
        "mv .git .git2",
        "rmdir .opencode",
        "echo x >> .opencode/tasks.toml",
        "mv .opencode o2",
        "rm -rf .opencode",
        "mkdir .opencode/plugin",
        "echo x >> .tasks/*/state.json",
    ],
)
def test_settings_and_memory_cannot_be_written(shared: Repo, attack: str) -> None:
    guarded = {p: p.read_bytes() for d in (".git", ".opencode") for p in _files(shared.top / d)}
    ran = shell(shared, attack, check=False)
    assert ran.code != 0
    assert {p: p.read_bytes() for d in (".git", ".opencode") for p in _files(shared.top / d)} == guarded


def _files(folder: Path) -> list[Path]:
    """Our own store changes with every command."""
    return [p for p in folder.rglob("*") if p.is_file() and "opencode-tasks" not in p.parts]


def test_reading_git_works(shared: Repo) -> None:
    shared.write("README.md", "changed\n")
    try:
        ran = shell(shared, "git status --short && git log --format=%s -1 && git diff")
    finally:
        shared.git("checkout", "--quiet", "README.md")
    assert " M README.md\nsettings\n" in ran.out
    assert "+changed" in ran.out
    assert "fatal" not in ran.err


def test_no_capability_no_new_privilege_and_a_filter(shared: Repo) -> None:
    status = dict(
        line.split(":\t") for line in inside(shared, "cat", "/proc/self/status").out.splitlines() if ":\t" in line
    )
    zero = "0" * 16
    assert [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [zero] * 5
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_no_network_but_loopback(shared: Repo) -> None:
    assert inside(shared, "ls", "/sys/class/net").out == "lo\n"
    assert inside(shared, "cat", "/proc/net/route").out.count("\n") <= 1


def test_root_is_read_only_and_tmp_and_home_are_writable(shared: Repo) -> None:
    refused = shell(shared, "for d in / /usr /etc /var /opt; do touch $d/x && echo $d; done", check=False)
    assert refused.out == ""
    ran = shell(shared, "echo a > /tmp/x && echo b > ~/x && cat /tmp/x ~/x && echo $HOME && rm /tmp/x ~/x")
    assert ran.out == "a\nb\n/home/agent\n"


def test_limits_are_in_force(shared: Repo) -> None:
    seen = docker.APIClient(shared.env["DOCKER_HOST"]).inspect_container(f"opencode-task-{shared.only_id()}")
    host = seen["HostConfig"]
    assert host["PidsLimit"] == 1024
    assert host["Memory"] == host["MemorySwap"] == 4 << 30
    assert host["NanoCpus"] == 2_000_000_000
    assert host["Privileged"] is False
    assert not [b for b in host["Mounts"] if b["Source"].endswith("docker.sock")]


def test_no_more_processes_than_allowed(shared: Repo) -> None:
    script = """
import os, signal, sys
made = []
try:
    for _ in range(1200):
        pid = os.fork()
        if not pid:
            signal.pause()
        made.append(pid)
except OSError as e:
    print(e.errno == 11 and 900 < len(made) < 1024)
finally:
    for pid in made:
        os.kill(pid, 9)
"""
    assert python(shared, script).out == "True\n"


# Git directories outside the workspace


def test_git_works_in_a_task_with_its_own_worktree(live_repo: Repo) -> None:
    made = live_repo.tasks("create-task", "Side by side", "--worktree", "--json").json
    worktree = Repo(Path(made["workspace"]["path"]), live_repo.env)
    ran = shell(worktree, "pwd; git status --short; git log --format=%s -1; git rev-parse --abbrev-ref HEAD")
    assert ran.out.splitlines() == [str(worktree.top), "settings", made["branch"]]
    for attack in ("echo gitdir: /tmp > .git", "rm .git"):
        assert shell(worktree, attack, check=False).code != 0, attack
    # The main checkout's directory is there as the mount point's parent: not the host's.
    shell(worktree, f"touch {live_repo.top}/x", check=False)
    assert not (live_repo.top / "x").exists()
    live_repo.git("status")
    worktree.git("status")


def test_git_works_in_a_submodule(live_repo: Repo, make_repo: Callable[..., Repo]) -> None:
    library = make_repo("library")
    live_repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.top), "lib")
    live_repo.commit("with a submodule")
    inner = Repo(live_repo.top / "lib", live_repo.env)
    inner.tasks("init")
    inner.git("checkout", "--quiet", "-b", "task/inner")
    try:
        ran = shell(inner, "git log --format=%s -1 && git diff && git status --short")
        assert ran.out.splitlines()[0] == "first"
        shell(inner, "git update-ref refs/heads/x HEAD; git commit --quiet --allow-empty -m inside")
        assert inner.git("log", "-1", "--format=%s").out == "inside\n"
        assert inner.git("branch", "--list", "x").out == ""
        assert shell(inner, "rm .git", check=False).code != 0
    finally:
        inner.tasks("uninstall")


def test_git_works_in_a_clone_that_borrows_objects(live_repo: Repo, tmp_path: Path, engine_host: str) -> None:
    live_repo.git("clone", "--quiet", "--shared", str(live_repo.top), str(tmp_path / "borrower"))
    borrower = Repo(tmp_path / "borrower", live_repo.env)
    borrower.tasks("init")
    borrower.git("checkout", "--quiet", "-b", "task/borrower")
    try:
        ran = shell(borrower, "git log --format=%s && git cat-file -p HEAD:README.md")
        assert ran.out == "settings\nfirst\nhello\n"
        assert shell(borrower, f"touch {live_repo.top}/.git/objects/x", check=False).code != 0
    finally:
        borrower.tasks("uninstall")


# Records


def test_start_and_end_are_recorded(shared: Repo) -> None:
    shell(shared, "echo said; sleep 0.2; exit 3", check=False)
    *_, started, output, finished = (e for e in shared.events(shared.only_id()) if e["type"].startswith("command."))
    assert output["data"] == {"run": started["data"]["run"], "text": "said\n"}
    assert started["type"] == "command.started"
    assert started["data"]["argv"] == ["sh", "-c", "echo said; sleep 0.2; exit 3"]
    assert started["data"]["cwd"] == str(shared.top)
    assert finished["type"] == "command.finished"
    assert finished["data"]["run"] == started["data"]["run"]
    assert finished["data"]["exit_code"] == 3
    assert finished["data"]["output_tail"] == "said\n"
    assert 200 <= finished["data"]["duration_ms"] < 10_000
    assert finished["data"]["signals"] == []


def test_what_was_printed_is_recorded_though_the_host_process_is_killed(live_repo: Repo) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/killed")
    shell(live_repo, "true")
    argv = ["opencode-tasks", "exec", "--", "sh", "-c", "echo printed; sleep 60"]
    with subprocess.Popen(argv, cwd=live_repo.top, env={**os.environ, **live_repo.env}, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"printed\n"
        until = time.monotonic() + 20
        while not any(e["type"] == "command.output" for e in live_repo.events(live_repo.only_id())):
            assert time.monotonic() < until, "the output was not recorded while the command ran"
            time.sleep(0.02)
        host.kill()
    told = live_repo.tasks("task-executions", "--json").json["executions"][0]
    assert (told["output_tail"], told["exit_code"]) == ("printed\n", None)


def test_only_the_end_of_long_output_is_recorded(shared: Repo) -> None:
    shell(shared, "seq 1 20000")
    tail = executions(shared)[-1]["output_tail"]
    assert tail.endswith("19999\n20000\n")
    assert len(tail) <= 4096


def test_json_is_alone_on_stdout(shared: Repo) -> None:
    ran = shared.tasks("exec", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 4", check=False)
    assert ran.code == 4
    assert {key: ran.json[key] for key in ("command", "cwd", "exit_code", "agent")} == {
        "command": ["sh", "-c", "echo out; echo err >&2; exit 4"],
        "cwd": str(shared.top),
        "exit_code": 4,
        "agent": None,
    }
    assert sorted(ran.json["output_tail"].split()) == ["err", "out"]
    assert set(ran.json) == {"command", "cwd", "exit_code", "started_at", "duration_ms", "agent", "output_tail"}
    assert "out" in ran.err


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_every_process_of_the_command(shared: Repo, number: signal.Signals) -> None:
    script = """
import subprocess, time
subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(1, flush=True)
time.sleep(1000)
"""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(shared, "python3", "-c", script, **streams)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    eventually(lambda: not processes(shared), "the container is quiet")
    assert executions(shared)[-1]["signals"] == [number.name]


def test_the_command_decides_how_a_signal_ends_it(shared: Repo) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    process = start(shared, "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    out_b, _ = process.communicate(timeout=20)
    assert b"caught\n" in out_b
    assert process.returncode == 9


def test_the_third_signal_cannot_be_ignored(shared: Repo) -> None:
    script = "trap '' INT TERM; echo up; while :; do sleep 0.05; done"
    process = start(shared, "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # two that came before it had a turn are one: only now it is the third
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 137


def test_other_commands_are_not_signalled(shared: Repo) -> None:
    other = start(
        shared, "sh", "-c", "echo up; sleep 2; echo survived", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    ended = start(shared, "sh", "-c", "echo up; sleep 100", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert other.stdout is not None
    assert ended.stdout is not None
    assert other.stdout.readline() == ended.stdout.readline() == b"up\n"
    ended.send_signal(signal.SIGTERM)
    ended.communicate(timeout=20)
    assert other.communicate(timeout=20)[0] == b"survived\n"
    assert other.returncode == 0


def test_after_the_time_all_of_it_is_ended(shared: Repo) -> None:
    deaf = "trap '' TERM; setsid --fork sleep 1000; sleep 1000; echo never"
    for script in ("setsid --fork sleep 1000; sleep 1000", deaf):
        ran = shared.tasks("exec", "--timeout", "0.5", "--", "sh", "-c", script, check=False)
        assert (ran.code, ran.out) == (124, "")
        eventually(lambda: not processes(shared), "the container is quiet")
    assert shared.tasks("exec", "--timeout", "30", "--", "sh", "-c", "exit 3", check=False).code == 3
    assert shared.tasks("exec", "--timeout", "0", "--", "true", check=False).code == 2


# A terminal


@dataclass
class Terminal:
    """A person's terminal with `opencode-tasks ARGV` in it."""

    process: subprocess.Popen[bytes]
    fd: int
    seen: str = ""
    is_open: bool = True

    def hang_up(self) -> None:
        os.close(self.fd)
        self.is_open = False

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, *, within_s: float = 20) -> re.Match[str]:
        deadline = time.monotonic() + within_s
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    time.sleep(0.05)
        self.seen = self.seen[found.end() :]
        return found


def open_terminal(repo: Repo, *argv: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "opencode-tasks", *argv],
        cwd=repo.top,
        env={**os.environ, **repo.env, "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        process.kill()
        process.wait(timeout=10)
        if terminal.is_open:
            terminal.hang_up()


def test_a_terminal_is_a_terminal_inside(shared: Repo) -> None:
    script = "sleep 0.3; test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM && echo all"
    for terminal in open_terminal(shared, "exec", "--", "sh", "-c", script):
        terminal.expect(r"33 101\r\nxterm-256color\r\nall")
        assert terminal.process.wait(timeout=20) == 0


def test_a_resized_terminal_is_resized_inside(shared: Repo) -> None:
    script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done"
    for terminal in open_terminal(shared, "exec", "--", "sh", "-c", script):
        terminal.expect("up")
        terminal.resize(40, 120)
        terminal.expect("40 120")
        terminal.type("\x03")
        assert terminal.process.wait(timeout=20) == 130
    eventually(lambda: not processes(shared), "the container is quiet")


def test_typing_reaches_the_command_and_the_terminal_is_given_back(shared: Repo) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = start(shared, "sh", "-c", "read line; echo got=$line", stdin=slave, stdout=slave, stderr=slave)
    terminal = Terminal(process, master)
    terminal.type("hello\r")
    terminal.expect("got=hello")
    assert process.wait(timeout=20) == 0
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


# When things are missing or go away


def test_without_an_engine_it_says_so_and_runs_nothing(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "task/none")
    ran = repo.tasks("exec", "--json", "--", "touch", "made", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_engine")
    assert "start Docker" in ran.json["error"]["hint"]
    assert not (repo.top / "made").exists()
    assert [e for e in repo.events(repo.only_id()) if e["type"].startswith("command.")] == []


def test_without_the_image_it_says_how_to_get_it(live_repo: Repo) -> None:
    live_repo.tasks("create-task", "No image", "--image", "localhost/no-such-image:1")
    ran = live_repo.tasks("exec", "--json", "--", "true", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "image_missing")
    assert ran.json["error"]["hint"] == "docker pull localhost/no-such-image:1"
    assert [e for e in live_repo.events(live_repo.only_id()) if e["type"].startswith("command.")] == []


def test_on_another_branch_it_refuses(live_repo: Repo) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/left")
    live_repo.git("checkout", "--quiet", "main")
    ran = live_repo.tasks("exec", "--json", "--task", "task/left", "--", "touch", "made", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "conflict")
    assert ran.json["error"]["hint"] == "git checkout task/left"
    assert not (live_repo.top / "made").exists()
    assert live_repo.tasks("exec", "--json", "--", "true", check=False).json["error"]["code"] == "no_task"


def test_a_container_removed_meanwhile_is_an_unknown_outcome(live_repo: Repo) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/removed")
    process = start(live_repo, "sh", "-c", "echo up; sleep 100", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    name = f"opencode-task-{live_repo.only_id()}"
    docker.APIClient(live_repo.env["DOCKER_HOST"]).remove_container(name, force=True)
    process.communicate(timeout=20)
    assert process.returncode in (1, 137)
    assert executions(live_repo)[-1]["exit_code"] in (None, 137)
    assert inside(live_repo, "echo", "again").out == "again\n"


def test_leaving_the_task_freezes_its_command_and_interrupting_that_ends_ours(live_repo: Repo) -> None:
    live_repo.git("checkout", "--quiet", "-b", "task/frozen")
    script = "echo up; while :; do date +%s%N > beat; sleep 0.05; done"
    process = start(live_repo, "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    live_repo.git("checkout", "--quiet", "main")
    (live_repo.top / "beat").unlink(missing_ok=True)
    time.sleep(0.4)
    assert not (live_repo.top / "beat").exists()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err_b = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"paused" in err_b
    assert b"Traceback" not in err_b
    assert executions(live_repo)[-1]["exit_code"] is None
    assert executions(live_repo)[-1]["signals"] == ["SIGINT"]


# An engine of our own, which may be killed and opened to another user


@dataclass(frozen=True)
class OwnEngine:
    dir: Path

    @property
    def host(self) -> str:
        return f"unix://{self.dir}/docker.sock"

    def start(self) -> None:
        env = {"OPENCODE_TASKS_ENGINE_DIR": str(self.dir), "DOCKER_HOST": ""}
        ran = run(["unshare", "--net", SCRIPTS_ENGINE], cwd=self.dir, env=env, timeout_s=90)
        assert ran.out.strip() == f"DOCKER_HOST={self.host}", "another engine of this machine answers first"

    def kill(self) -> None:
        os.kill(int((self.dir / "dockerd.pid").read_text()), signal.SIGKILL)

    def stop(self) -> None:
        run([SCRIPTS_ENGINE, "stop"], cwd=Path("/"), env={"OPENCODE_TASKS_ENGINE_DIR": str(self.dir)}, timeout_s=90)


@pytest.fixture(scope="module")
def own_engine(engine_host: str) -> Iterator[OwnEngine]:
    engine = OwnEngine(Path(tempfile.mkdtemp(prefix="oe.", dir="/tmp")))
    try:
        engine.start()
        tag = newest(Engine(), "base").tag
        source, target = docker.DockerClient(engine_host), docker.DockerClient(engine.host, timeout=120)
        with closing(source), closing(target):
            target.images.load(b"".join(source.images.get(tag).save(chunk_size=1 << 22, named=tag)))
        yield engine
    finally:
        engine.stop()
        # A daemon that was killed leaves its bind mount of the data root behind.
        subprocess.run(["umount", engine.dir / "data"], check=False, capture_output=True)
        shutil.rmtree(engine.dir)


@pytest.fixture
def dying(make_repo: Callable[..., Repo], own_engine: OwnEngine) -> Iterator[Repo]:
    """A task on an engine that may be killed."""
    repo = Repo(make_repo().top, {"DOCKER_HOST": own_engine.host})
    repo.tasks("init")
    repo.commit("settings")
    repo.git("checkout", "--quiet", "-b", "task/dying")
    repo.tasks("exec", "--", "true")
    yield repo
    repo.tasks("uninstall")


def test_a_command_outlives_its_engine(dying: Repo, own_engine: OwnEngine) -> None:
    process = start(dying, "sh", "-c", "echo up; read line; echo $line", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    own_engine.kill()
    try:
        out_b, _ = process.communicate(b"on\n", timeout=30)
        assert (process.returncode, out_b) == (0, b"on\n")
        assert executions(dying)[-1]["exit_code"] == 0
    finally:
        own_engine.start()


def test_an_engine_that_dies_leaves_an_unknown_outcome_and_sound_memory(dying: Repo, own_engine: OwnEngine) -> None:
    repo = dying
    without_supervisor(repo)
    process = start(repo, "sh", "-c", "echo up; sleep 100", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    own_engine.kill()
    try:
        _, err_b = process.communicate(timeout=30)
        assert process.returncode == 1
        assert b"not known" in err_b
        assert b"task-status" in err_b
        assert b"Traceback" not in err_b
        assert executions(repo)[-1]["exit_code"] is None
        shown = repo.tasks("task-status", "--json").json
        assert shown["status"] == "running"
        refused = repo.tasks("exec", "--json", "--", "true", check=False)
        assert (refused.code, refused.json["error"]["code"]) == (1, "no_engine")
    finally:
        own_engine.start()
    assert inside(repo, "echo", "again").out == "again\n"
    history = repo.tasks("task-history", "--json").json["events"]
    assert [e["seq"] for e in history] == list(range(1, len(history) + 1))


def as_user_1000(repo: Repo, *argv: str, check: bool = True) -> Ran:
    """May read what root may (our interpreter can lie in root's home), and writes and connects as the user."""
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *may_read]
    return run([*user, *argv], cwd=repo.top, env=repo.env, check=check)


@pytest.fixture
def theirs(own_engine: OwnEngine) -> Iterator[Repo]:
    """User 1000's repository, where they can reach it: pytest closes its own directories to others."""
    with tempfile.TemporaryDirectory(prefix="theirs.", dir="/tmp") as folder:
        home, top = Path(folder, "home"), Path(folder, "repo")
        home.mkdir()
        top.mkdir()
        (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.invalid\n")
        for path in (Path(folder), home, home / ".gitconfig", top):
            os.chown(path, 1000, 1000)
        own_engine.dir.chmod(0o755)
        repo = Repo(top, {"DOCKER_HOST": own_engine.host, "HOME": str(home)})
        as_user_1000(repo, "git", "init", "--quiet")
        as_user_1000(repo, "git", "commit", "--quiet", "--allow-empty", "--message", "first")
        as_user_1000(repo, "opencode-tasks", "init")
        yield repo
        repo.tasks("uninstall", check=False)


def test_as_another_user(theirs: Repo, own_engine: OwnEngine) -> None:
    """The container runs as them, and so do the files; what is root's inside stays so."""
    (own_engine.dir / "docker.sock").chmod(0o666)
    as_user_1000(theirs, "git", "checkout", "--quiet", "-b", "task/theirs")
    script = "id -u; id -g; echo x > made; git log --format=%s -1"
    ran = as_user_1000(theirs, "opencode-tasks", "exec", "--", "sh", "-c", script)
    assert ran.out.splitlines() == ["1000", "1000", "first"]
    assert ((theirs.top / "made").stat().st_uid, (theirs.top / "made").stat().st_gid) == (1000, 1000)
    for attack in ("touch /etc/x", "mv .git x", "cat /etc/shadow", "su -c id"):
        ran = as_user_1000(theirs, "opencode-tasks", "exec", "--", "sh", "-c", attack, check=False)
        assert ran.code != 0, attack
    as_user_1000(theirs, "opencode-tasks", "exec", "--", "git", "commit", "--quiet", "--allow-empty", "-m", "inside")
    assert as_user_1000(theirs, "git", "log", "-1", "--format=%s").out == "inside\n"


def test_without_permission_to_the_socket_it_says_so(theirs: Repo, own_engine: OwnEngine) -> None:
    (own_engine.dir / "docker.sock").chmod(0o600)
    as_user_1000(theirs, "git", "checkout", "--quiet", "-b", "task/out")
    ran = as_user_1000(theirs, "opencode-tasks", "exec", "--json", "--", "true", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "no_engine")
    assert "permission" in ran.json["error"]["message"]
    assert "group" in ran.json["error"]["hint"]
