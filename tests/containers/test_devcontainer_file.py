"""What of a `devcontainer.json` is honoured, told, refused."""

import json
from typing import Any

import pytest

from opencode_tasks.containers import devcontainer
from opencode_tasks.containers.devcontainer import Build, Command, DevContainer, Facts
from opencode_tasks.containers.devcontainer_file import LARGEST_BYTES, parse
from opencode_tasks.errors import TaskError

_FACTS = Facts(".devcontainer/devcontainer.json", "/src/repo", "an-id", {("TOKEN", "MY_TOKEN")})


def _read(**said: Any) -> DevContainer:
    return parse(json.dumps(said).encode(), _FACTS)


HONOURED: dict[str, tuple[dict[str, Any], str, Any]] = {
    "image": ({"image": "node:20"}, "image", "node:20"),
    "build": (
        {"build": {"dockerfile": "D", "context": "..", "args": {"A": "${localWorkspaceFolder}"}, "target": "x"}},
        "build",
        Build(".devcontainer/D", "", {"A": "/src/repo"}, "x"),
    ),
    "build, its defaults": ({"build": {"dockerfile": "D"}}, "build", Build(".devcontainer/D", ".devcontainer", {}, "")),
    "environment": (
        {"containerEnv": {"A": "${localWorkspaceFolderBasename}/${containerWorkspaceFolder}/${other}/$B"}},
        "environment",
        {"A": "repo//src/repo/${other}/$B"},
    ),
    "remote": (
        {"remoteEnv": {"PATH": "${containerEnv:PATH}:/x", "GONE": None}},
        "remote",
        {"PATH": "${containerEnv:PATH}:/x", "GONE": None},
    ),
    "the host's variable, approved": (
        {"containerEnv": {"TOKEN": "${localEnv:MY_TOKEN}", "B": "b"}},
        "environment",
        {"B": "b"},
    ),
    "volumes": (
        {
            "mounts": [
                "source=a-${devcontainerId},target=/opt/a,type=volume",
                {"source": "b", "target": "/home/agent/b/", "type": "volume"},
            ]
        },
        "volumes",
        (("a-an-id", "/opt/a"), ("b", "/home/agent/b")),
    ),
    "commands in their order": (
        {"postStartCommand": ["a", "b"], "postCreateCommand": {"x": "c", "y": ["d"]}, "onCreateCommand": "e ${HOME}"},
        "commands",
        (
            Command("onCreateCommand", ("/bin/sh", "-c", "e ${HOME}")),
            Command("postCreateCommand", ("/bin/sh", "-c", "c")),
            Command("postCreateCommand", ("d",)),
            Command("postStartCommand", ("a", "b")),
        ),
    ),
}


@pytest.mark.parametrize("name", HONOURED)
def test_honoured(name: str) -> None:
    said, field, wanted = HONOURED[name]
    read = _read(**said)
    assert getattr(read.required(), field) == wanted
    assert not read.warnings


TOLD: dict[str, Any] = {
    "initializeCommand": "touch /owned",
    "features": {"x": {}},
    "forwardPorts": [80],
    "customizations": {"vscode": {}},
    "waitFor": "postCreateCommand",
    "remoteUser": "vscode",
    "containerUser": "root",
    "workspaceFolder": "/workspaces/x",
    "workspaceMount": "source=/,target=/host,type=bind",
    "hostRequirements": {"cpus": 64, "memory": "512gb"},
    "postAttachCommand": "x",
    "whatIsThis": 1,
    "mounts": ["source=n,target=${containerWorkspaceFolder}/node_modules,type=volume"],
}


@pytest.mark.parametrize("key", TOLD)
def test_told_and_without_effect(key: str) -> None:
    read = _read(**{key: TOLD[key]}).required()
    assert len(read.warnings) == 1
    assert key in read.warnings[0] or "node_modules" in read.warnings[0]
    empty = {**vars(DevContainer(_FACTS.path)), "warnings": read.warnings, "commands": read.commands}
    assert vars(read) == empty


REFUSED: dict[str, Any] = {
    "privileged": {"privileged": True},
    "privileged, in words": {"privileged": "true"},
    "capabilities": {"capAdd": ["SYS_ADMIN"]},
    "seccomp": {"securityOpt": ["seccomp=unconfined"]},
    "flags of the engine": {"runArgs": ["--network=host"]},
    "ports": {"appPort": 3000},
    "compose": {"dockerComposeFile": "compose.yml", "service": "x"},
    "a folder of the host": {"mounts": ["source=/etc,target=/host,type=bind"]},
    "a folder of the host, as object": {"mounts": [{"source": "/", "target": "/host", "type": "bind"}]},
    "the engine's socket": {"mounts": ["source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind"]},
    "the engine's socket as volume": {"mounts": ["source=/var/run/docker.sock,target=/x,type=volume"]},
    "a folder of the host without a type": {"mounts": ["source=/etc,target=/host"]},
    "our home": {"mounts": [{"source": "${localEnv:HOME}", "target": "/host", "type": "bind"}]},
    "a type that nobody knows": {"mounts": ["source=x,target=/x,type=npipe"]},
    "no words at all": {"mounts": [7]},
    "over the system": {"mounts": ["source=x,target=/usr,type=volume"]},
    "over the system, roundabout": {"mounts": ["source=x,target=/opt/../usr/,type=volume"]},
    "over our socket": {"mounts": ["source=x,target=/run/opencode-tasks,type=volume"]},
    "over the home": {"mounts": ["source=x,target=/home/agent,type=volume"]},
    "above the workspace": {"mounts": ["source=x,target=/src,type=volume"]},
    "without a path": {"mounts": ["source=x,target=opt,type=volume"]},
    "twice": {"mounts": ["source=x,target=/x,type=volume", "source=y,target=/x,type=volume"]},
    "the host's variable": {"containerEnv": {"X": "${localEnv:MY_TOKEN}"}},
    "the host's other variable": {"remoteEnv": {"TOKEN": "${localEnv:HOME}"}},
    "the host's variable under its old name": {"remoteEnv": {"X": "${env:HOME}"}},
    "the host's variable within another": {"containerEnv": {"TOKEN": "a${localEnv:MY_TOKEN}"}},
    "the host's variable in a command": {"postCreateCommand": "echo ${localEnv:MY_TOKEN}"},
    "the host's variable in an argument": {"build": {"args": {"TOKEN": "${localEnv:MY_TOKEN}"}}},
    "a Dockerfile above": {"build": {"dockerfile": "../../Dockerfile"}},
    "a Dockerfile of the host": {"build": {"dockerfile": "/etc/passwd"}},
    "a context above": {"build": {"context": "../.."}},
    "options of the build": {"build": {"options": ["--network=host"]}},
    "image and build": {"image": "x", "build": {"target": "y"}},
    "a flag for an image": {"image": "--privileged"},
    "no image": {"image": 5},
    "a NUL": {"containerEnv": {"A": "\0"}},
    "no variable": {"containerEnv": {"A=B": "x"}},
    "no string": {"containerEnv": {"A": 1}},
    "no command": {"postCreateCommand": [["x"]]},
    "a command with a NUL": {"postCreateCommand": "a\0b"},
    "too many mounts": {"mounts": ["source=x,target=/x,type=volume"] * 1000},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(TaskError) as refused:
        _read(**REFUSED[name]).required()
    assert refused.value.code == "devcontainer"
    assert _FACTS.path in refused.value.message
    assert refused.value.hint


def test_what_is_refused_opens_nothing_even_when_nobody_asks() -> None:
    for said in REFUSED.values():
        read = _read(**said)
        shown = json.dumps([read.environment, read.remote, [c.argv for c in read.commands]])
        assert all(not source.startswith("/") for source, _ in read.volumes)
        assert "MY_TOKEN" not in shown


def test_harmless_spellings_of_nothing() -> None:
    read = _read(privileged=False, capAdd=[], runArgs=[], mounts=[], containerEnv={}, image="x", name="n")
    assert (read.required().image, read.warnings) == ("x", ())


@pytest.mark.parametrize(
    "text_b", [b"", b"[]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b" " * (LARGEST_BYTES + 1), b'{"a":1,"a":2}']
)
def test_what_is_no_such_file(text_b: bytes) -> None:
    with pytest.raises(TaskError) as refused:
        parse(text_b, _FACTS)
    assert refused.value.code == "devcontainer"


def test_a_byte_order_mark_is_no_harm() -> None:
    assert parse(b'\xef\xbb\xbf{"image": "x"}', _FACTS).image == "x"


def test_references_to_the_containers_own_variables() -> None:
    known = {"PATH": "/bin", "EMPTY": ""}
    assert devcontainer.resolved("${containerEnv:PATH}:${containerEnv:NO:x}:${containerEnv:EMPTY}", known) == "/bin:x:"


def test_a_file_that_says_too_much_is_told_in_part() -> None:
    read = _read(**{f"key{i}": 1 for i in range(5000)})
    assert len(read.warnings) <= 200
    assert all(len(sentence) < 400 for sentence in read.warnings)
