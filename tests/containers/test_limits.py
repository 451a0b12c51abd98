"""Limits: where they come from, what is proposed, and what happens when memory or disk comes to an end."""

import json
import os
import pty
import select
import subprocess
import time

import docker
import pytest

from opencode_tasks.config_sections import Config, ContainerConfig, LimitsConfig
from opencode_tasks.containers import limits, sizes
from opencode_tasks.errors import TaskError
from opencode_tasks.task import Choice, Use
from tests.commands.test_exec import eventually, executions, inside, processes, start
from tests.conftest import Repo

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("written", "n"),
    [("4g", 4 * GIB), ("512m", 512 * MIB), ("1.5G", 3 * GIB // 2), ("64k", 65536), ("7", 7), ("2GiB", 2 * GIB)],
)
def test_sizes(written: str, n: int) -> None:
    assert sizes.parse(written, what="x") == n
    assert sizes.parse(sizes.written(n), what="x") == n


@pytest.mark.parametrize("written", ["", "g", "-1g", "0", "4 g g", "1e9", "4t", "nan", "99999999999g"])
def test_no_sizes(written: str) -> None:
    with pytest.raises(TaskError, match=r"limits\.memory") as e:
        sizes.parse(written, what="limits.memory")
    assert e.value.hint


def test_the_tasks_choice_before_the_settings_before_the_set() -> None:
    config = Config(container=ContainerConfig(limits="small"), limits=LimitsConfig(pids="300", cpus="1.5"))
    made = limits.of(config, Choice(memory="1536m", pids=400))
    assert (made.memory, made.pids, made.cpus, made.tmp) == ("1536m", 400, 1.5, "256m")
    assert limits.of(config, Choice(set="default")).memory == "4g"


def test_more_memory_in_the_settings_is_more_at_most_too() -> None:
    made = limits.of(Config(limits=LimitsConfig(memory="32g")), Choice())
    assert (made.memory, made.memory_max) == ("32g", "32g")


@pytest.mark.parametrize(
    ("config", "choice", "said"),
    [
        (Config(container=ContainerConfig(limits="huge")), Choice(), "'huge'"),
        (Config(), Choice(set="huge"), "'huge'"),
        (Config(), Choice(memory="64g"), "memory_max"),
        (Config(), Choice(memory="lots"), "limits.memory"),
        (Config(), Choice(memory="1m"), "too little"),
        (Config(), Choice(pids=1), "limits.pids"),
        (Config(), Choice(cpus=0.0), "limits.cpus"),
        (Config(), Choice(cpus=float("nan")), "limits.cpus"),
        (Config(limits=LimitsConfig(cpus="many")), Choice(), "limits.cpus"),
        (Config(limits=LimitsConfig(soft="0")), Choice(), "limits.soft"),
    ],
)
def test_what_cannot_be_is_named(config: Config, choice: Choice, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        limits.of(config, choice)


@pytest.mark.parametrize(
    ("use", "commands", "memory"),
    [
        (Use(), 0, None),
        (Use(memory_bytes=3 * GIB), 100, None),
        (Use(memory_bytes=4 * GIB, oom_kills=1), 1, "8g"),
        (Use(memory_bytes=3 * GIB, memory_held=2), 1, "8g"),
        (Use(memory_bytes=100 * MIB), 5, None),
        (Use(memory_bytes=100 * MIB), 20, "256m"),
        (Use(disk_held=3), 3, None),
    ],
)
def test_what_history_proposes(use: Use, commands: int, memory: str | None) -> None:
    made = limits.proposed(limits.of(Config(), Choice()), use, commands)
    assert (None if made is None else made.memory) == memory


def test_nothing_above_what_policy_allows_is_proposed() -> None:
    at_most = limits.of(Config(), Choice(memory="8g"))
    assert limits.proposed(at_most, Use(memory_bytes=8 * GIB, oom_kills=9), 3) is None


# Slower than it could: on a machine where all cores are busy the supervisor is not always there in time.
_EAT = """
import sys, time
held = []
for n in range(int(sys.argv[1])):
    held.append(bytearray(b"x") * (1 << 20))
    time.sleep(0.003)
print("ate", len(held), flush=True)
"""


def small(live_repo: Repo, **settings: str) -> Repo:
    chosen = {"MEMORY": "192m", "MEMORY_MAX": "384m", **settings}
    env = {f"OPENCODE_TASKS_LIMITS_{k}": v for k, v in chosen.items()}
    repo = Repo(live_repo.top, {**live_repo.env, **env, "OPENCODE_TASKS_CHECKPOINT_IGNORED": "*.db"})
    repo.git("checkout", "--quiet", "-b", "task/eats")
    repo.write("file", "kept\n")
    inside(repo, "true")
    return repo


def of_type(repo: Repo, type_: str) -> list[dict[str, object]]:
    return [e["data"] for e in repo.events(repo.only_id()) if e["type"] == type_]


def eat(repo: Repo, mib: int) -> tuple[int, str, str]:
    ran = inside(repo, "python3", "-c", _EAT, str(mib), check=False)
    return ran.code, ran.out, ran.err


def test_memory_grows_within_the_policy_and_files_are_kept(live_repo: Repo, client: docker.DockerClient) -> None:
    repo = small(live_repo)
    repo.write(".gitignore", "*.db\n")
    repo.write("ignored.db", "x\n")
    assert eat(repo, 250)[:2] == (0, "ate 250\n")
    (reached,), (decided,) = of_type(repo, "limit.reached"), of_type(repo, "limit.decided")
    assert 0.8 * 192 * MIB < int(str(reached["used_bytes"])) <= reached["limit_bytes"] == 192 * MIB  # type: ignore[operator]
    assert (decided["decision"], decided["to_bytes"]) == ("extended", 384 * MIB)
    kept = repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]
    assert [c["id"] for c in kept] == [decided["checkpoint"]]
    (made,) = of_type(repo, "checkpoint.created")
    shadow = f"--git-dir={repo.common}/opencode-tasks/checkpoints.git"
    assert "ignored.db" in repo.git(shadow, "ls-tree", "--name-only", str(made["tree"])).out.split()
    container = client.containers.get(f"opencode-task-{repo.only_id()}")
    assert container.attrs["HostConfig"]["Memory"] == 384 * MIB
    last = executions(repo)[-1]
    assert last["use"]["memory"] > 250 * MIB
    assert last["use"]["oom_kills"] == 0


def test_beyond_the_policy_everything_is_stopped_before_the_kernel_does(
    live_repo: Repo, client: docker.DockerClient
) -> None:
    repo = small(live_repo, MEMORY_MAX="192m")
    neighbour = start(repo, "sleep", "1004", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    eventually(lambda: "sleep 1004" in processes(repo), "a neighbour runs")
    code, out, err = eat(repo, 1000)
    assert (code, out) == (137, "")
    err += neighbour.communicate(timeout=20)[1].decode()  # one of the two decides
    assert neighbour.returncode == 137
    assert "stopped" in err
    assert f"opencode-tasks limits {repo.only_id()} --memory" in err
    assert [d["decision"] for d in of_type(repo, "limit.decided")] == ["stopped"]
    eventually(lambda: processes(repo) == [], "nothing is left")
    assert executions(repo)[-1]["use"]["oom_kills"] == 0
    assert inside(repo, "cat", "file").out == "kept\n"
    image = client.containers.get(f"opencode-task-{repo.only_id()}").attrs["Config"]["Image"]
    naive = client.containers.run(image, ["python3", "-c", _EAT, "1000"], network_mode="none", remove=True)
    assert naive == b"ate 1000\n"


def test_pages_of_files_are_not_memory_in_use(live_repo: Repo) -> None:
    repo = small(live_repo)
    write_and_read = "head -c 400m /dev/zero > big && cat big big > /dev/null && rm big && echo read"
    assert inside(repo, "sh", "-c", write_and_read).out == "read\n"
    assert of_type(repo, "limit.reached") == []


def test_what_the_kernel_ended_is_known_and_more_is_proposed(live_repo: Repo) -> None:
    repo = small(live_repo, SOFT="1")
    code, _, err = eat(repo, 1000)
    assert code == 137
    assert "the kernel ended 1 of its processes" in err
    assert executions(repo)[-1]["use"]["oom_kills"] == 1
    assert "--accept" in repo.tasks("task-status").out
    document = repo.tasks("limits", "--json").json
    assert document["proposed"]["memory"] == "384m"
    assert repo.tasks("limits", "--accept", "--json").json["limits"]["memory"] == "384m"
    assert eat(repo, 250)[:2] == (0, "ate 250\n")
    assert repo.tasks("limits", "--accept", check=False).code == 1
    stats = repo.tasks("task-stats", repo.only_id(), "--json").json
    assert stats["oom_kills"] == 1
    assert stats["memory_bytes"] > 150 * MIB
    assert stats["now"]["memory_limit_bytes"] == 384 * MIB


def test_a_disk_that_becomes_full_stops_what_fills_it(live_repo: Repo) -> None:
    # The floor is a little below what is free now, so that nobody's disk is filled for it.
    found = os.statvfs(live_repo.top)
    floor = (found.f_bavail * found.f_frsize // MIB) - 300
    repo = small(live_repo, DISK_FREE=f"{floor}m")
    fill = "trap '' TERM INT HUP; while :; do head -c 8m /dev/zero >> fill || exit; sleep 0.02; done"
    began = time.monotonic()
    ran = inside(repo, "timeout", "50", "sh", "-c", fill, check=False)
    size = (repo.top / "fill").stat().st_size
    (repo.top / "fill").unlink()
    assert ran.code == 137, (ran, time.monotonic() - began)
    assert "disk" in ran.err
    assert [d["kind"] for d in of_type(repo, "limit.reached")] == ["disk"]
    assert size < 3000 * MIB
    assert inside(repo, "true").code == 0


def test_a_person_is_asked_and_may_let_it_go_on(live_repo: Repo) -> None:
    repo = small(live_repo, MEMORY_MAX="192m")
    slowly = _EAT.replace("print(", "time.sleep(1); print(")
    for key, decision, code in ((b"y", "continued", 0), (b"n", "stopped", 137)):
        said, exit_code = at_a_terminal(repo, ["python3", "-c", slowly, "160"], b"[y/n]", key)
        assert exit_code == code, said
        assert of_type(repo, "limit.decided")[-1]["decision"] == decision
        assert ("ate 160" in said) == (code == 0)


def at_a_terminal(repo: Repo, argv: list[str], question: bytes, answer: bytes) -> tuple[str, int]:
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(repo.top)
        os.environ.update(repo.env)
        os.execvp("opencode-tasks", ["opencode-tasks", "exec", "--", *argv])  # noqa: S606
    said, is_answered, until = b"", False, time.monotonic() + 50
    while time.monotonic() < until and select.select([fd], [], [], 50)[0]:
        try:
            content_b = os.read(fd, 4096)
        except OSError:
            break
        if not content_b:
            break
        said += content_b
        if question in said and not is_answered:
            os.write(fd, answer)
            is_answered = True
    os.close(fd)
    return said.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_two_commands_are_told_and_one_decides(live_repo: Repo) -> None:
    repo = small(live_repo)
    other = start(repo, "sh", "-c", "sleep 2; echo went on", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    eventually(lambda: "sleep 2" in processes(repo), "a neighbour runs")
    assert eat(repo, 250)[0] == 0
    assert other.communicate(timeout=30)[0] == b"went on\n"
    assert len(of_type(repo, "limit.decided")) == 1


def test_when_nobody_listened_the_next_command_decides(live_repo: Repo) -> None:
    repo = small(live_repo, MEMORY_MAX="192m")
    # Left in the background by a command that is over: nobody of the host listens when it happens.
    program = f"import time; time.sleep(1)\n{_EAT}\ntime.sleep(1000)"
    repo.write("eat.py", program)
    inside(repo, "sh", "-c", "python3 eat.py 170 >/dev/null 2>&1 &")
    time.sleep(2.5)
    assert of_type(repo, "limit.reached") == []
    ran = inside(repo, "echo", "next", check=False)
    assert ran.out == "next\n"
    assert "held still" in ran.err
    assert [d["decision"] for d in of_type(repo, "limit.decided")] == ["stopped"]
    assert processes(repo) == []


def test_limits_of_one_task(live_repo: Repo, client: docker.DockerClient) -> None:
    made = live_repo.tasks("create-task", "Small", "--memory", "300m", "--pids", "99", "--cpus", "0.5", "--json").json
    live_repo.tasks("exec", "--", "true")
    host = client.containers.get(f"opencode-task-{made['id']}").attrs["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (300 * MIB, 99, 500_000_000)
    live_repo.tasks("limits", "--memory", "400m")
    assert client.containers.get(f"opencode-task-{made['id']}").attrs["HostConfig"]["Memory"] == 400 * MIB
    live_repo.tasks("limits", "--pids", "120")
    live_repo.tasks("exec", "--", "true")
    host = client.containers.get(f"opencode-task-{made['id']}").attrs["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (400 * MIB, 120)
    assert "(chosen for this task)" in live_repo.tasks("limits").out
    live_repo.tasks("limits", "--reset")
    assert json.loads(live_repo.tasks("limits", "--json").out)["chosen"]["memory"] is None
    assert live_repo.tasks("limits", "--memory", "1000g", check=False).code == 1
    assert live_repo.tasks("limits", "--memory", "1g", "--reset", check=False).code == 2
    assert live_repo.tasks("create-task", "Other", "--memory", "x", check=False).code == 1
    assert len(live_repo.tasks("list-tasks", "--json").json["tasks"]) == 1
