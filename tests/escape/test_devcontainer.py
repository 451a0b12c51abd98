"""An agent, or a repository, that uses `devcontainer.json` to get out. Each attack works in a naive container.


The naive counterpart reads the file of the work tree, as editors do.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import Mount

from opencode_tasks.containers.spec import container_name
from tests.conftest import Repo

FILE = ".devcontainer/devcontainer.json"
_SETTINGS = {".opencode/tasks.toml": "[container]\ndevcontainer = true\n"}


def inside(repo: Repo, script: str) -> tuple[int, str]:
    done = repo.tasks("exec", "--", "sh", "-c", script, check=False)
    return done.code, done.out + done.err


def container_of(repo: Repo, client: docker.DockerClient) -> Container:
    return client.containers.get(container_name(repo.only_id()))


def anew(repo: Repo, client: docker.DockerClient) -> tuple[int, str]:
    """The container made again, as by a reboot or a person."""
    container_of(repo, client).remove(force=True)
    return inside(repo, "true")


def _naively(repo: Repo, client: docker.DockerClient, image: str) -> Container:
    """What an editor makes of the work tree's file."""
    said: dict[str, Any] = json.loads((repo.top / FILE).read_text())
    if command := said.get("initializeCommand"):
        subprocess.run(command, shell=True, check=True, cwd=repo.top)  # noqa: S602
    mounts = [
        Mount(parts["target"], parts["source"], type=parts["type"])
        for parts in (dict(p.split("=") for p in m.split(",")) for m in said.get("mounts", []))
    ]
    variables = said.get("containerEnv", {}).items()
    is_privileged = bool(said.get("privileged")) or "--privileged" in said.get("runArgs", [])
    made = client.containers.create(
        image,
        ["sleep", "60"],
        init=True,
        network_mode="none",
        privileged=is_privileged,
        mounts=mounts,
        environment={name: os.path.expandvars(value.replace("${localEnv:", "${")) for name, value in variables},
    )
    if not is_privileged:  # an engine that is contained itself cannot start one, but it makes it
        made.start()
    return made


def _planted(tmp_path: Path) -> dict[str, tuple[dict[str, Any], Callable[[Container], bool]]]:
    """What an agent writes, and whether it worked, told from the container or the host."""
    secret, owned = tmp_path / "secret", tmp_path / "owned"
    secret.write_text("password")

    def can(script: str) -> Callable[[Container], bool]:
        return lambda container: container.exec_run(["sh", "-c", script]).exit_code == 0

    def is_privileged(container: Container) -> bool:
        return bool(container.attrs["HostConfig"]["Privileged"])

    return {
        "initializeCommand": ({"initializeCommand": f"touch {owned}"}, lambda _: owned.exists()),
        "privileged": ({"privileged": True}, is_privileged),
        "runArgs": ({"runArgs": ["--privileged"]}, is_privileged),
        "host bind": ({"mounts": [f"source={tmp_path},target=/mnt,type=bind"]}, can("grep -q password /mnt/secret")),
        "docker.sock": (
            {"mounts": ["source=SOCKET,target=/mnt/docker.sock,type=bind"]},
            can("test -S /mnt/docker.sock"),
        ),
        "localEnv": ({"containerEnv": {"LEAKED": "${localEnv:HOST_TOKEN}"}}, can('test "$LEAKED" = swordfish')),
    }


_ATTACKS = ("initializeCommand", "privileged", "runArgs", "host bind", "docker.sock", "localEnv")


@pytest.fixture
def attack(
    request: pytest.FixtureRequest, tmp_path: Path, engine_host: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Callable[[Container], bool]]:
    monkeypatch.setenv("HOST_TOKEN", "swordfish")
    said, worked = _planted(tmp_path)[request.param]
    return json.dumps(said).replace("SOCKET", engine_host.removeprefix("unix://")), worked


@pytest.mark.parametrize("attack", _ATTACKS, indirect=True)
def test_what_an_agent_writes_into_the_work_tree_never_becomes_configuration(
    project: Repo, client: docker.DockerClient, base: str, attack: tuple[str, Callable[[Container], bool]]
) -> None:
    text, worked = attack
    project.commit("devcontainer", **{FILE: '{"containerEnv": {"A": "committed"}}'}, **_SETTINGS)
    project.git("checkout", "--quiet", "-b", "task/attack")
    assert inside(project, f"cat > {FILE} <<'X'\n{text}\nX\ncp {FILE} .devcontainer.json")[0] == 0
    # On its branch it can be committed, too: the base stays.
    project.git("-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--all", "--message", "mine")
    assert anew(project, client)[0] == 0
    assert inside(project, "echo $A") == (0, "committed\n")
    assert not worked(container_of(project, client))
    naive = _naively(project, client, base)
    try:
        assert worked(naive)
    finally:
        naive.remove(force=True)


@pytest.mark.parametrize("attack", _ATTACKS, indirect=True)
def test_what_a_repository_brings_along_is_refused_before_anything_starts(
    project: Repo, client: docker.DockerClient, base: str, attack: tuple[str, Callable[[Container], bool]]
) -> None:
    text, worked = attack
    project.commit("devcontainer", **{FILE: text}, **_SETTINGS)
    project.git("checkout", "--quiet", "-b", "task/attack")
    code, out = inside(project, "true")
    if "initializeCommand" in text:
        assert (code, worked(container_of(project, client))) == (0, False)
    else:
        assert (code, "is refused" in out) == (1, True)
        with pytest.raises(docker.errors.NotFound):
            container_of(project, client)
    naive = _naively(project, client, base)
    try:
        assert worked(naive)
    finally:
        naive.remove(force=True)


def test_an_agent_does_not_have_a_dockerfile_built(project: Repo) -> None:
    project.env["OPENCODE_PID"] = "1"
    refused = project.tasks("images", "build", "project", "--json", check=False)
    assert refused.json["error"]["code"] == "persons_decision"
    project.env.pop("OPENCODE_PID")
    assert project.tasks("images", "build", "project", "--json", check=False).json["error"]["code"] == "devcontainer"


def test_the_settings_that_turn_it_on_are_not_the_agents_to_write(project: Repo) -> None:
    project.commit("devcontainer", **{FILE: '{"containerEnv": {"A": "x"}}'})
    project.git("checkout", "--quiet", "-b", "task/attack")
    attack = "printf '[container]\\ndevcontainer = true\\n' > .opencode/tasks.toml"
    assert inside(project, attack)[0] != 0
    assert inside(project, "echo ${A-none}") == (0, "none\n")
    subprocess.run(attack, shell=True, check=True, cwd=project.top)  # noqa: S602 (on the host it works)
    assert inside(project, "echo ${A-none}") == (0, "x\n")


@pytest.mark.parametrize("bomb", ["[" * 200_000, '{"a":' * 50_000, '"\\' * 120_000, " " * 300_000, '{"a":1,"a":2}'])
def test_a_bomb_is_an_error_and_not_a_container(project: Repo, client: docker.DockerClient, bomb: str) -> None:
    project.commit("bomb", **{FILE: bomb}, **_SETTINGS)
    project.git("checkout", "--quiet", "-b", "task/attack")
    for command in (("exec", "--", "true"), ("images", "build", "project")):
        done = project.tasks(command[0], "--json", *command[1:], check=False)
        assert (done.code, done.json["error"]["code"]) == (1, "devcontainer")
    assert project.tasks("task-status").code == 0
    with pytest.raises(docker.errors.NotFound):
        container_of(project, client)


def _link_as_file(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text('{"containerEnv": {"A": "host"}}')
    (repo.top / ".devcontainer").mkdir()
    (repo.top / FILE).symlink_to(tmp_path / "outside.json")


def _link_as_dockerfile(repo: Repo, tmp_path: Path) -> None:
    repo.write(FILE, '{"build": {"dockerfile": "Dockerfile"}}')
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (repo.top / ".devcontainer" / "Dockerfile").symlink_to(tmp_path / "Dockerfile")


def _link_above_dockerfile(repo: Repo, tmp_path: Path) -> None:
    repo.write(FILE, '{"build": {"dockerfile": "linked/Dockerfile"}}')
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (repo.top / ".devcontainer" / "linked").symlink_to(tmp_path)


def _link_as_context(repo: Repo, tmp_path: Path) -> None:
    repo.write(FILE, '{"build": {"dockerfile": "Dockerfile", "context": "linked"}}')
    repo.write(".devcontainer/Dockerfile", "FROM scratch\nCOPY . /\n")
    (repo.top / ".devcontainer" / "linked").symlink_to(tmp_path)


def _link_in_context(repo: Repo, tmp_path: Path) -> None:
    repo.write(FILE, '{"build": {"dockerfile": "Dockerfile"}}')
    repo.write(".devcontainer/Dockerfile", "FROM scratch\nCOPY . /\n")
    (repo.top / ".devcontainer" / "linked").symlink_to(tmp_path / "secret")


def _link_that_climbs_through_another(repo: Repo, tmp_path: Path) -> None:
    repo.write(FILE, '{"build": {"dockerfile": "Dockerfile"}}')
    repo.write(".devcontainer/Dockerfile", "FROM scratch\nCOPY . /\n")
    (repo.top / ".devcontainer" / "here").symlink_to(".")
    (repo.top / ".devcontainer" / "linked").symlink_to("here/../README.md")


def _no_file_at_all(repo: Repo, tmp_path: Path) -> None:
    (repo.top / FILE).mkdir(parents=True)
    (repo.top / FILE / "x").write_text("x")


_LINKS = [
    _link_as_file,
    _link_as_dockerfile,
    _link_above_dockerfile,
    _link_as_context,
    _link_in_context,
    _link_that_climbs_through_another,
    _no_file_at_all,
]


@pytest.mark.parametrize("plant", _LINKS)
def test_a_link_does_not_bring_the_hosts_files_in(
    project: Repo, tmp_path: Path, plant: Callable[[Repo, Path], None]
) -> None:
    (tmp_path / "secret").write_text("password")
    plant(project, tmp_path)
    project.commit("links", **_SETTINGS)
    project.git("checkout", "--quiet", "-b", "task/attack")
    for command in (("exec", "--", "cat", "/secret"), ("images", "build", "project")):
        done = project.tasks(command[0], "--json", *command[1:], check=False)
        assert (done.code, done.json["error"]["code"]) in ((1, "devcontainer"), (1, "no_revision"))


def test_a_build_sees_the_commit_and_not_what_an_agent_left_in_the_work_tree(project: Repo, base: str) -> None:
    project.write(".devcontainer/Dockerfile", f"FROM {base}\nCOPY . /in/\n")
    project.commit("build", **{FILE: '{"build": {"dockerfile": "Dockerfile"}}'}, **_SETTINGS)
    project.git("checkout", "--quiet", "-b", "task/attack")
    project.write(".devcontainer/Dockerfile", f"FROM {base}\nRUN touch /planted\nCOPY . /in/\n")
    project.write(".devcontainer/planted", "x")
    # Attributes of the work tree and filters of the user's have no say in it either.
    project.write(".gitattributes", "* export-ignore\n")
    (project.common / "info" / "attributes").write_text("* filter=evil export-subst\n")
    project.git("config", "filter.evil.smudge", f"touch {project.top}/ran; cat")
    project.git("replace", project.git("rev-parse", "HEAD").out.strip(), project.git("rev-parse", "HEAD~1").out.strip())
    project.tasks("images", "build", "project")
    assert not (project.top / "ran").exists()
    assert inside(project, "ls -A /in; test ! -e /planted") == (0, "Dockerfile\ndevcontainer.json\n")


def test_a_volume_of_another_project_is_out_of_reach(project: Repo, client: docker.DockerClient, base: str) -> None:
    """The name in the file is not the engine's."""
    theirs = client.volumes.create("opencode-test-of-another-project")
    mount = Mount("/v", theirs.name, type="volume")
    client.containers.run(base, ["sh", "-c", "echo password > /v/f"], mounts=[mount], remove=True)
    try:
        said = {"mounts": [f"source={theirs.name},target=/v,type=volume"]}
        project.commit("volume", **{FILE: json.dumps(said)}, **_SETTINGS)
        project.git("checkout", "--quiet", "-b", "task/attack")
        assert inside(project, "touch /v/mine; ls /v") == (0, "mine\n")
        read = client.containers.run(base, ["cat", "/v/f"], mounts=[mount], remove=True)
        assert read == b"password\n"
    finally:
        theirs.remove(force=True)


def test_a_cache_that_is_shared_can_be_poisoned_and_one_of_the_task_cannot(project: Repo) -> None:
    """Why sharing is a decision: what one task plants, the next one's pip would install."""
    for scope, seen in (("project", 0), ("task", 1)):
        settings = f'[container]\ncaches = ["pip"]\ncache_scope = "{scope}"\n'
        (project.top / ".opencode" / "tasks.toml").write_text(settings)
        project.commit(scope)
        one, two = (project.tasks("create-task", scope, "--worktree", "--json").json["id"] for _ in range(2))
        project.tasks("exec", "--task", one, "--", "sh", "-c", "echo evil > $PIP_CACHE_DIR/wheel")
        code = project.tasks("exec", "--task", two, "--", "sh", "-c", "cat $PIP_CACHE_DIR/wheel", check=False).code
        assert code == seen
