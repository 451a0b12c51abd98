"""Attacks from inside a container. Each is shown to work in a naive one first, so that the test can fail.

No attack sends a packet anywhere: the network ones look at what interfaces there are.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import Repo, another

Attack = Callable[[str], tuple[int, str]]


@dataclass(frozen=True)
class Naive:
    """What people run without us: root, default capabilities, everything writable, the repository mounted whole."""

    container: Container
    repository: Path
    copies: Path

    def __call__(self, script: str) -> tuple[int, str]:
        copy = self.copies / uuid.uuid4().hex
        shutil.copytree(self.repository, copy, symlinks=True)
        done = self.container.exec_run(["sh", "-c", script], workdir=str(copy))
        assert isinstance(done.output, bytes)
        return done.exit_code or 0, done.output.decode(errors="replace")


@pytest.fixture
def task_repo(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/attack")
    return live_repo


@pytest.fixture
def ours(task_repo: Repo) -> Attack:
    def run(script: str) -> tuple[int, str]:
        done = task_repo.tasks("exec", "--", "sh", "-c", script, check=False)
        return done.code, done.out + done.err

    return run


@pytest.fixture(scope="module")
def shared(initialised: Path, tmp_path_factory: pytest.TempPathFactory, engine_host: str) -> Iterator[Repo]:
    """One task with its running container, for all attacks that come to nothing there."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.invalid\n")
    another(initialised, home / "repo")
    repo = Repo(home / "repo", {"DOCKER_HOST": engine_host, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"})
    repo.git("checkout", "--quiet", "-b", "task/attack")
    repo.tasks("exec", "--", "true")
    yield repo
    repo.tasks("uninstall")


@pytest.fixture(scope="module")
def naive(shared: Repo, tmp_path_factory: pytest.TempPathFactory, engine_host: str) -> Iterator[Naive]:
    """For all attacks, each with the repository as it was."""
    copies = tmp_path_factory.mktemp("naive")
    client = docker.DockerClient(engine_host)
    image = str(shared.tasks("task-status", "--json").json["container"]["image"])
    container = client.containers.run(
        image,
        ["sleep", "600"],
        name=f"naive-{uuid.uuid4().hex[:8]}",
        detach=True,
        init=True,
        volumes=[f"{copies}:{copies}"],
    )
    try:
        yield Naive(container, shared.top, copies)
    finally:
        container.remove(force=True)
        client.close()


def _succeeds(code: int, _: str) -> bool:
    return code == 0


# Name, what the agent runs, and whether it worked, told from its exit code and output.
ATTACKS: dict[str, tuple[str, Callable[[int, str], bool]]] = {
    "plant a plugin of the host's agent": (
        "mkdir -p .opencode/plugin && echo 'export const Owned = 1' > .opencode/plugin/owned.js",
        _succeeds,
    ),
    "exchange .git for a copy": ("mv .git .git2 && cp -r .git2 .git", _succeeds),
    "mount something else over .git": ("mount -t tmpfs tmpfs .git", _succeeds),
    "rewrite the settings": ("echo 'container.image = \"evil\"' > .opencode/tasks.toml", _succeeds),
    "exchange the settings' folder": ("mv .opencode .o2 && mkdir .opencode", _succeeds),
    "rewrite the task's memory": (
        "for log in .tasks/*/log/*.jsonl; do echo forged >> $log || exit 1; done",
        _succeeds,
    ),
    "change the owner of a file": ("touch f && chown 12345 f", _succeeds),
    "make a device": ("mknod /tmp/disk b 8 0 || mknod disk b 8 0", _succeeds),
    "change the container's own programs": ("echo x > /usr/bin/git-x", _succeeds),
    "listen to the network": ("ls /sys/class/net", lambda _, out: "eth0" in out),
    "fill /tmp": ("head -c 1100m /dev/zero > /tmp/fill; code=$?; rm /tmp/fill; exit $code", _succeeds),
    "fill the home directory": ("head -c 600m /dev/zero > ~/fill; code=$?; rm ~/fill; exit $code", _succeeds),
    "start more processes than one needs": (
        "python3 -c '\nimport os, time\nfor _ in range(1200):\n    os.fork() or (time.sleep(3), os._exit(0))\n'",
        _succeeds,
    ),
    "open a raw socket": (
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
        _succeeds,
    ),
    "have any capability": ("grep CapEff /proc/self/status", lambda _, out: "0000000000000000" not in out),
    "gain privileges by a setuid program": ("grep NoNewPrivs /proc/self/status", lambda _, out: "\t0" in out),
}


# A naive container is stopped from these by nothing but the engine's defaults.
DENIED_TO_ALL = {"mount something else over .git"}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_works_in_a_naive_container_fails_in_ours(name: str, naive: Naive, shared: Repo) -> None:
    script, worked = ATTACKS[name]
    ran = shared.tasks("exec", "--", "sh", "-c", script, check=False)
    assert not worked(ran.code, ran.out + ran.err), ran
    # Not because nothing works there any more; some have started what takes its time to end.
    deadline = time.monotonic() + 30
    while (said := shared.tasks("exec", "--", "sh", "-c", "git log -1 --format=%s", check=False)).out != "settings\n":
        assert time.monotonic() < deadline, said
    if name not in DENIED_TO_ALL:
        # An engine of 20.10 under load now and then loses what an exec says.
        assert any(worked(*naive(script)) for _ in range(3))


def test_the_host_outside_the_workspace_is_not_there(task_repo: Repo, ours: Attack, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    outside = task_repo.top.parent
    assert outside == tmp_path
    for script in (f"cat {secret}", "cat ../secret.txt", f"ln -s {secret} link; cat link"):
        code, out = ours(script)
        assert code != 0
        assert "password" not in out
    ours(f"mkdir -p {tmp_path}/x; echo owned > {tmp_path}/x/planted; echo owned > ../planted")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "planted").exists()


def test_a_link_planted_inside_does_not_bring_host_files_into_a_checkpoint(
    task_repo: Repo, ours: Attack, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("password")
    task_repo.write("data/key", "harmless")
    task_repo.tasks("checkpoint", "-m", "before")
    ours(f"rm -rf data; ln -s {tmp_path}/secrets data")
    task_repo.tasks("checkpoint", "-m", "planted")
    shadow = f"--git-dir={task_repo.common}/opencode-tasks/checkpoints.git"
    objects = task_repo.git(shadow, "cat-file", "--batch", "--batch-all-objects").out
    assert "harmless" in objects
    assert "password" not in objects


def test_a_link_planted_inside_does_not_carry_a_restore_out_of_the_workspace(
    task_repo: Repo, ours: Attack, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    task_repo.write("data/authorized_keys", "attacker's key")
    task_repo.tasks("checkpoint", "-m", "loaded")
    ours(f"rm -rf data; ln -s {tmp_path}/host data")
    task_repo.tasks("restore-checkpoint", "loaded")
    assert list((tmp_path / "host").iterdir()) == []
    assert (task_repo.top / "data" / "authorized_keys").read_text() == "attacker's key"
    assert not (task_repo.top / "data").is_symlink()


def test_output_that_steers_a_terminal_or_forges_records_stays_one_record(task_repo: Repo, ours: Attack) -> None:
    forged = '{"v":1,"w":"x","seq":99,"type":"status.changed","data":{"to":"completed"}}'
    ours(f"printf '\\033]0;owned\\007\\n{forged}\\n'".replace('"', '\\"'))
    task_id = task_repo.only_id()
    assert task_repo.tasks("task-status", task_id, "--json").json["status"] == "running"
    history = task_repo.tasks("task-history", task_id).out
    assert "\033" not in history
    assert len(history.splitlines()) == len(task_repo.events(task_id))


def test_a_gigabyte_of_output_fills_no_log(task_repo: Repo, client: docker.DockerClient) -> None:
    flood = "head -c {} /dev/zero | tr '\\0' x"
    task_repo.tasks("exec", "--", "sh", "-c", f"({flood.format('1g')}) | tee /dev/stderr | wc -c")
    memory = task_repo.common / "opencode-tasks"
    assert sum(p.stat().st_size for p in memory.rglob("*") if p.is_file()) < 1_000_000
    (finished,) = [e["data"] for e in task_repo.events(task_repo.only_id()) if e["type"] == "command.finished"]
    assert finished["exit_code"] == 0
    # What an engine keeps of what a container's first process says.
    image = str(task_repo.tasks("task-status", "--json").json["container"]["image"])
    kept = client.containers.run(image, ["sh", "-c", flood.format("20m")], network_mode="none", detach=True)
    try:
        kept.wait(timeout=60)
        assert len(kept.logs()) == 20 << 20
    finally:
        kept.remove(force=True)


def test_a_fork_bomb_and_a_memory_hog_end_at_their_limits(ours: Attack) -> None:
    forks = (
        "import os\nn = 0\ntry:\n  while n < 5000:\n    os.fork() or os._exit(os.system('sleep 2') and 0)\n    n += 1\n"
    )
    code, _ = ours(f"python3 -c \"{forks}except OSError: print('stopped at', n)\" | grep -q 'stopped at'")
    assert code == 0
    code, _ = ours('python3 -c "x = bytearray(9 << 30)"')
    assert code in (1, 137)
    code, out = ours("echo alive")
    assert (code, out.strip()) == (0, "alive")


NESTED = """
mkdir nested && cd nested && git init -q && echo x > f && echo '* filter=x' > .gitattributes
git config core.fsmonitor "touch {owned}; false" && git config filter.x.clean "touch {owned}; cat"
printf '#!/bin/sh\ntouch {owned}\n' > .git/hooks/post-index-change && chmod +x .git/hooks/post-index-change
git -c core.fsmonitor= -c filter.x.clean= -c core.hooksPath= add . && git -c user.name=a -c user.email=a commit -qm x
rm -f {owned}; touch -d 2001-01-01 f
"""


def test_programs_of_a_nested_repository_are_not_run_on_the_host(task_repo: Repo, ours: Attack) -> None:
    owned = task_repo.top / "owned"
    code, out = ours(NESTED.replace("{owned}", str(owned)))
    assert code == 0, out
    assert not owned.exists()
    commands = (["checkpoint", "-m", "one"], ["task-status"], ["reconcile"], ["doctor"], ["restore-checkpoint", "one"])

    def all_of_ours() -> None:
        for command in commands:
            task_repo.tasks(*command, check=False)
        task_repo.write("more", "x\n")
        task_repo.tasks("cleanup-task", check=False)

    all_of_ours()
    assert not owned.exists()
    # What anybody does: a gitlink, and git looks into it.
    task_repo.git("-c", "advice.addEmbeddedRepo=false", "add", "nested")
    assert not owned.exists()
    all_of_ours()
    assert not owned.exists()
    task_repo.git("status")
    assert owned.exists()


OBEYED = (".envrc", ".vscode/tasks.json", ".mcp.json", "opencode.json", "ci/deploy.sh")


def test_what_programs_on_the_host_obey_can_only_be_read(live_repo: Repo, client: docker.DockerClient) -> None:
    live_repo.commit("tools", **dict.fromkeys(OBEYED, "ours\n"))
    settings = live_repo.top / ".opencode" / "tasks.toml"
    settings.write_text('[container]\nprotected = ["ci"]\n')
    live_repo.git("checkout", "--quiet", "-b", "task/obeyed")
    attacks = [
        attack.format(path) for path in OBEYED for attack in ("echo evil > {}", "rm {}", "mv {0} x; echo evil > {0}")
    ]
    attacks += ["mv .vscode v && mkdir .vscode", "rm -rf ci; mkdir ci && echo evil > ci/deploy.sh"]
    for attack in attacks:
        live_repo.tasks("exec", "--", "sh", "-c", attack, check=False)
    assert {path: (live_repo.top / path).read_text() for path in OBEYED} == dict.fromkeys(OBEYED, "ours\n")
    image = str(live_repo.tasks("task-status", "--json").json["container"]["image"])
    top = str(live_repo.top)
    client.containers.run(image, ["sh", "-c", f"cd {top}; {attacks[0]}"], remove=True, volumes=[f"{top}:{top}"])
    assert (live_repo.top / OBEYED[0]).read_text() == "evil\n"


def test_a_link_above_a_protected_path_does_not_bring_a_host_folder_in(
    live_repo: Repo, client: docker.DockerClient, tmp_path: Path
) -> None:
    """An engine follows it when it mounts."""
    top = live_repo.top
    live_repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{top}", "libs/one")
    live_repo.commit("submodule")
    live_repo.git("checkout", "--quiet", "-b", "task/linked")
    live_repo.tasks("exec", "--", "true")
    (tmp_path / "other" / "one" / ".git").mkdir(parents=True)
    (tmp_path / "other" / "one" / ".git" / "credentials").write_text("password")
    swap = f"mv libs moved && ln -s {tmp_path}/other libs"
    assert live_repo.tasks("exec", "--", "sh", "-c", swap, check=False).code != 0
    # However it came there: it is no place to mount.
    (top / "libs").rename(top / "moved")
    (top / "libs").symlink_to(tmp_path / "other")
    (top / ".opencode" / "tasks.toml").write_text('[container]\nlimits = "small"\n')  # it is made anew
    ran = live_repo.tasks("exec", "--", "sh", "-c", "cat libs/one/.git/credentials", check=False)
    assert (ran.code, ran.out) == (1, "")
    image = str(live_repo.tasks("task-status", "--json").json["container"]["image"])
    followed = f"{top}/libs/one/.git:{top}/libs/one/.git:ro"
    read = ["grep", "-q", "password", f"{top}/libs/one/.git/credentials"]
    client.containers.run(image, read, remove=True, volumes=[followed])  # it raises for another exit code than 0
