"""What a task reaches, with the real engine: a server in a network that the test makes, the proxy, and `allow`."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers import network, sockets
from opencode_tasks.store import Store
from tests.conftest import Ran, Repo
from tests.containers.mirror import NAME, Mirror, mirror


@pytest.fixture(scope="module")
def server(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    os.environ["DOCKER_HOST"] = engine_host
    with mirror(engine_host, tmp_path_factory.mktemp("certificate")) as made:
        yield made


@pytest.fixture
def repo(live_repo: Repo, server: Mirror, request: pytest.FixtureRequest) -> Repo:
    """`param`: more settings, there before anything is begun in the background."""
    live_repo.env["OPENCODE_TASKS_NETWORK_THROUGH"] = server.network
    live_repo.env.update(getattr(request, "param", {}))
    live_repo.git("checkout", "--quiet", "-b", "task/network")
    (live_repo.top / "cert.pem").write_bytes(server.certificate.read_bytes())
    return live_repo


def curl(repo: Repo, url: str, *more: str, check: bool = False) -> Ran:
    command = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", "cert.pem", *more, url]
    return repo.tasks("exec", "--", *command, check=check)


def sidecar(repo: Repo) -> str:
    return f"opencode-egress-{(repo.common / 'opencode-tasks' / 'clone').read_text().strip()}"


def test_nothing_is_reached_until_it_is_allowed_and_then_at_once(repo: Repo, client: docker.DockerClient) -> None:
    refused = curl(repo, f"http://{NAME}/")
    assert "no host may be reached yet" in refused.out
    assert f"opencode-tasks allow HOST --task {repo.only_id()}" in refused.out
    assert not client.containers.list(filters={"name": sidecar(repo)})
    before = client.containers.get(f"opencode-task-{repo.only_id()}").id
    repo.tasks("allow", NAME, "--task", repo.only_id())
    assert curl(repo, f"http://{NAME}/", check=True).out == f"hello from {NAME}\n"
    assert curl(repo, f"https://{NAME}/", check=True).out == f"hello from {NAME}\n"
    posted = curl(repo, f"http://{NAME}/", "--data-binary", "@cert.pem", check=True).out
    assert posted == str((repo.top / "cert.pem").stat().st_size)
    assert client.containers.get(f"opencode-task-{repo.only_id()}").id == before
    repo.tasks("allow", NAME, "--task", repo.only_id(), "--remove")
    taken_back = curl(repo, f"http://{NAME}/").out
    assert "hello" not in taken_back
    assert "a person may run: opencode-tasks allow" in taken_back


def test_what_was_refused_is_told_with_the_next_step(repo: Repo) -> None:
    task = repo.only_id()
    repo.tasks("allow", "files.example.com")
    ran = curl(repo, "http://other.example.org:8080/")
    assert "other.example.org:8080: not allowed" in ran.out
    assert f"opencode-tasks allow other.example.org:8080 --task {task}" in ran.err
    ran = curl(repo, f"https://{NAME}/")
    assert ran.code != 0
    hint = f"opencode-tasks allow {NAME} --task {task}"
    assert hint in ran.err
    assert hint in repo.tasks("task-status").out
    document = repo.tasks("task-status", "--json").json["network"]
    assert document["allowed"] == [{"host": "files.example.com", "said": "files.example.com", "source": "clone"}]
    assert [(r["host"], r["port"], r["why"], r["count"]) for r in document["refused"]] == [
        ("other.example.org", 8080, "not allowed", 1),
        (NAME, 443, "not allowed", 1),
    ]
    assert hint in repo.tasks("allow").out
    assert repo.tasks("exec", "--", "true").err == ""


@pytest.mark.parametrize("repo", [{"OPENCODE_TASKS_NETWORK_ALLOW": "*.example.com,github"}], indirect=True)
def test_the_settings_and_the_usual_programs(repo: Repo) -> None:
    script = f"""
import ssl, urllib.request
context = ssl.create_default_context(cafile="cert.pem")
print(urllib.request.urlopen("https://{NAME}/", context=context).read().decode(), end="")
"""
    assert repo.tasks("exec", "--", "python3", "-c", script).out == f"hello from {NAME}\n"
    git = repo.tasks("exec", "--", "git", "ls-remote", "http://github.com/some/thing", check=False)
    assert "not valid: is this a git repository" in git.err
    assert "github.com" in repo.tasks("task-status").out


def test_every_task_has_its_own_list(repo: Repo) -> None:
    repo.tasks("allow", NAME, "--task", repo.only_id())
    assert curl(repo, f"http://{NAME}/").code == 0
    repo.commit("cert")
    made = repo.tasks("create-task", "Beside", "--worktree", "--json").json
    beside = Path(made["workspace"]["path"])
    ran = repo.tasks("exec", "--", "curl", "--silent", f"http://{NAME}/", cwd=beside, check=False)
    assert "no host may be reached yet" in ran.out
    assert (beside / ".opencode").is_dir()
    planted = repo.tasks("exec", "--", "sh", "-c", "echo > .opencode/tasks.toml", cwd=beside, check=False)
    assert "Read-only file system" in planted.err
    repo.tasks("allow", NAME)
    ran = repo.tasks("exec", "--", "curl", "--silent", f"http://{NAME}/", cwd=beside)
    assert ran.out == f"hello from {NAME}\n"
    repo.tasks("cleanup-task", made["id"], "--discard-ignored", check=False)


def test_the_sidecar_is_hardened_and_comes_back(repo: Repo, client: docker.DockerClient, server: Mirror) -> None:
    repo.tasks("allow", NAME)
    assert curl(repo, f"http://{NAME}/").code == 0
    made = client.containers.get(sidecar(repo))
    host = made.attrs["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["ReadonlyRootfs"], host["AutoRemove"], host["Init"]) == (True, True, True)
    assert (host["Memory"], host["PidsLimit"], host["NetworkMode"]) == (128 << 20, 128, server.network)
    assert made.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    labels = made.labels
    assert labels["opencode-tasks.egress"] == "1"
    assert "opencode-tasks.task" not in labels
    assert repo.tasks("task-status", "--json").json["container"]["state"] == "running"
    repo.tasks("reconcile")
    made.kill()
    assert curl(repo, f"http://{NAME}/").out == f"hello from {NAME}\n"
    assert client.containers.get(sidecar(repo)).id != made.id
    repo.tasks("uninstall")
    assert not client.containers.list(all=True, filters={"name": sidecar(repo)})


def test_a_closed_task_reaches_nothing_and_a_cleaned_one_leaves_nothing(repo: Repo) -> None:
    clone = (repo.common / "opencode-tasks" / "clone").read_text().strip()
    task = repo.only_id()
    repo.tasks("allow", NAME)
    curl(repo, "http://other.example.org/")
    paths = sockets.egress_paths(clone, task)
    assert paths.policy.exists()
    (repo.top / "cert.pem").unlink()
    repo.tasks("complete-task", task)
    assert not paths.policy.exists()
    until = time.monotonic() + 5
    while sockets.is_served(clone, task) and time.monotonic() < until:
        time.sleep(0.05)
    assert not sockets.is_served(clone, task)
    assert network.refused(Store(repo.common), task)[0].host == "other.example.org"
    repo.git("checkout", "--quiet", "main")
    repo.tasks("cleanup-task", task)
    assert not any(path.exists() for path in vars(paths).values())


def test_a_network_that_there_is_not(repo: Repo) -> None:
    repo.env["OPENCODE_TASKS_NETWORK_THROUGH"] = "no-such-network"
    repo.env["OPENCODE_TASKS_NETWORK_ALLOW"] = NAME
    ran = repo.tasks("exec", "--json", "--", "true", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "config")
    assert "no-such-network" in ran.json["error"]["message"]


def test_own_addresses(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "        |-- 198.51.100.7\n           /32 host LOCAL\n"
        "        |-- 198.51.100.255\n           /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text("20010db8000000000000000000000001 02 40 00 80     eth0\n")
    assert network.own_addresses(tmp_path) == ["198.51.100.7", "2001:db8::1"]
    assert network.own_addresses(tmp_path / "none") == []


def test_the_decision_is_in_the_log(repo: Repo) -> None:
    task = repo.only_id()
    repo.tasks("allow", "pypi", NAME, "--task", task)
    repo.tasks("allow", "pypi", "--task", task, "--remove")
    seen = [(e["type"], e["data"], e["actor"].split(":")[0]) for e in repo.events(task) if "network" in e["type"]]
    assert seen == [
        ("network.allowed", {"hosts": ["pypi", NAME]}, "user"),
        ("network.disallowed", {"hosts": ["pypi"]}, "user"),
    ]
    repo.tasks("allow", "npm")
    (line,) = [json.loads(x) for x in (repo.common / "opencode-tasks" / "allowed.jsonl").read_text().splitlines() if x]
    assert (line["hosts"], line["removed"], line["actor"].split(":")[0]) == (["npm"], False, "user")
