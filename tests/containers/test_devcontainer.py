"""`devcontainer.json` of the base commit, from the file to the running container: real git, the real engine."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import docker
import pytest

from tests.commands.conftest import on_a_terminal
from tests.commands.test_exec import eventually
from tests.conftest import Ran, Repo

FILE = ".devcontainer/devcontainer.json"


def commit(repo: Repo, said: dict[str, Any], **more: str) -> str:
    return repo.commit("devcontainer", **{FILE: json.dumps(said), **more})


def create(repo: Repo, *flags: str) -> str:
    return str(repo.tasks("create-task", "one", "--devcontainer", *flags, "--json").json["id"])


def inside(repo: Repo, script: str, *, check: bool = True) -> Ran:
    return repo.tasks("exec", "--", "sh", "-c", script, check=check)


def test_environment_image_and_volume(project: Repo, base: str, client: docker.DockerClient) -> None:
    client.images.get(base).tag("localhost/opencode-test-user", "1")
    try:
        said = {
            "image": "localhost/opencode-test-user:1",
            "containerEnv": {"A": "${localWorkspaceFolderBasename}", "HOME": "/nowhere", "GONE": "x"},
            "remoteEnv": {"PATH": "/more:${containerEnv:PATH}", "GONE": None, "B": "${containerEnv:A}!"},
            "mounts": ["source=data,target=/opt/data,type=volume"],
            "remoteUser": "vscode",
        }
        commit(project, said)
        task = create(project)
        ran = inside(project, 'echo "$A $B ${GONE-none} $HOME $PATH"; id -u; echo kept > /opt/data/f')
        assert ran.out == "repo repo! none /home/agent /more:" + ran.out.partition("/more:")[2]
        assert "/usr/bin" in ran.out
        told = project.tasks("task-status", "--container", "--json").json
        assert told["container"]["image"] == "localhost/opencode-test-user:1"
        assert told["devcontainer"]["path"] == FILE
        assert told["devcontainer"]["used"] is True
        assert any("vscode" in sentence for sentence in told["devcontainer"]["said"])
        client.containers.get(f"opencode-task-{task}").remove(force=True)
        assert inside(project, "cat /opt/data/f").out == "kept\n"
    finally:
        client.images.remove("localhost/opencode-test-user:1")


def test_it_is_not_used_unless_somebody_says_so_and_that_is_told(project: Repo) -> None:
    commit(project, {"containerEnv": {"A": "x"}})
    made = project.tasks("create-task", "one").out
    assert f"there is a {FILE}: create-task --devcontainer would use it" in made
    assert inside(project, "echo ${A-none}").out == "none\n"
    assert f"{FILE}, not used: container.devcontainer = true" in project.tasks("task-status").out
    # The setting is read from the work tree on the host, where it is protected from the container.
    (project.top / ".opencode" / "tasks.toml").write_text("[container]\ndevcontainer = true\n")
    assert inside(project, "echo ${A-none}").out == "x\n"
    assert f"{FILE}, used" in project.tasks("task-status").out


def test_an_image_that_the_task_names_goes_before_the_setting(project: Repo) -> None:
    commit(project, {"containerEnv": {"A": "x"}}, **{".opencode/tasks.toml": "[container]\ndevcontainer = true\n"})
    project.tasks("create-task", "one", "--image", "base")
    assert inside(project, "echo ${A-none}").out == "none\n"


def test_without_the_file_the_flag_is_refused_and_the_setting_means_nothing(project: Repo) -> None:
    done = project.tasks("create-task", "one", "--devcontainer", "--json", check=False)
    assert (done.code, done.json["error"]["code"], project.ids()) == (1, "devcontainer", [])
    (project.top / ".opencode" / "tasks.toml").write_text("[container]\ndevcontainer = true\n")
    project.tasks("create-task", "one")
    assert inside(project, "true").code == 0


def test_the_other_place_of_the_file_and_comments_in_it(project: Repo) -> None:
    project.commit("devcontainer", **{".devcontainer.json": '// hi\n{"containerEnv": {"A": "x",},}\n'})
    create(project)
    assert inside(project, "echo $A").out == "x\n"


def _ran(repo: Repo) -> list[tuple[str, int]]:
    """The commands of the task that ended, and how."""
    found = repo.tasks("task-executions", "--json").json["executions"]
    return [(e["command"][-1], e["exit_code"]) for e in reversed(found)]


def test_commands_run_inside_once_before_the_first_one_and_are_recorded(
    project: Repo, client: docker.DockerClient
) -> None:
    log = str(project.top / "log")
    said = {
        "onCreateCommand": f"echo create >> {log}; cat; id -u > /dev/null",
        "updateContentCommand": ["sh", "-c", f"echo update >> {log}"],
        "postCreateCommand": {"a": f"echo a >> {log}", "b": f"echo b >> {log}"},
        "postStartCommand": f"echo start >> {log}",
        "postAttachCommand": f"echo attach >> {log}",
    }
    commit(project, said)
    task = create(project)
    ran = project.tasks("exec", "--", "sh", "-c", "echo mine; cat", stdin="typed\n")
    assert ran.out == "mine\ntyped\n"  # what is typed is the command's, and stdout is
    assert "postCreateCommand" in ran.err
    every = ["create", "update", "a", "b", "start", "attach"]
    assert (project.top / "log").read_text().split() == every
    assert len(_ran(project)) == len(every) + 1
    inside(project, "true")
    assert (project.top / "log").read_text().split() == every
    container = client.containers.get(f"opencode-task-{task}")
    container.restart(timeout=1)  # by somebody else: nobody told us
    inside(project, "true")
    assert (project.top / "log").read_text().split() == [*every, "start", "attach"]
    container.remove(force=True)
    inside(project, "true")
    assert (project.top / "log").read_text().split() == [*every, "start", "attach", *every]


def test_one_that_fails_is_told_and_ends_the_rest_but_not_the_container(project: Repo) -> None:
    commit(project, {"onCreateCommand": "echo broken; exit 7", "postCreateCommand": "touch never"})
    create(project)
    ran = inside(project, "echo works")
    assert ran.out == "works\n"
    assert "onCreateCommand failed (exit code 7)" in ran.err
    assert not (project.top / "never").exists()
    assert "failed" not in inside(project, "true").err
    assert ("echo broken; exit 7", 7) in _ran(project)


def test_two_first_commands_at_once_run_them_once(project: Repo) -> None:
    commit(project, {"onCreateCommand": "sleep 1; echo once >> log"})
    create(project)
    ran: list[Ran] = []
    threads = [threading.Thread(target=lambda: ran.append(inside(project, "cat log"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.out for r in ran] == ["once\n", "once\n"]


def test_interrupted_it_runs_again(project: Repo) -> None:
    commit(project, {"onCreateCommand": "touch began; test -e go || sleep 60"})
    create(project)
    process = subprocess.Popen(
        ["opencode-tasks", "exec", "--", "touch", "mine"], cwd=project.top, env={**os.environ, **project.env}
    )
    eventually((project.top / "began").exists, "the command runs", within_s=30)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert not (project.top / "mine").exists()
    (project.top / "began").unlink()
    (project.top / "go").touch()
    inside(project, "true")
    assert (project.top / "began").exists()


def test_a_dockerfile_is_built_when_asked_from_the_base_commit(
    project: Repo, base: str, client: docker.DockerClient
) -> None:
    dockerfile = "ARG B=none\nFROM $B AS one\nRUN echo layer > /layer\nFROM one\nCOPY file sub /in/\n"
    said = {"build": {"dockerfile": "Dockerfile", "context": "..", "args": {"B": base}}}
    more = {".devcontainer/Dockerfile": dockerfile, "file": "committed\n", "sub/x": "x\n", "sub/y": "y\n"}
    commit(project, said, **more, **{".dockerignore": "# hi\nsub/*\n!sub/x\n"})
    project.write("sub/x", "not committed\n")
    create(project)
    project.write("file", "changed\n")
    refused = project.tasks("exec", "--json", "--", "true", check=False).json["error"]
    assert (refused["code"], refused["hint"]) == ("image_missing", "opencode-tasks images build project")
    built = project.tasks("images", "build", "project", "--json")
    assert built.json["built"] is True
    assert built.json["tag"].startswith("localhost/opencode-sandbox-project:")
    assert "Step 3/" in built.err
    assert " MB" in built.err
    assert inside(project, "cat /layer /in/*").out == "layer\ncommitted\nx\n"
    assert project.tasks("images", "build", "project", "--json").json["built"] is False
    listed = project.tasks("images", "list", "--json").json["images"]
    assert built.json["tag"] in [i["tag"] for i in listed if i["kind"] == "project"]
    assert built.json["tag"] not in project.tasks("images", "prune", "--dry-run", "--json").json["removed"]


def test_a_changed_dockerfile_is_another_image_and_the_old_one_is_superfluous(project: Repo, base: str) -> None:
    said = {"build": {"dockerfile": "Dockerfile"}}
    commit(project, said, **{".devcontainer/Dockerfile": f"FROM {base}\nRUN echo 1 > /n\n"})
    first = project.tasks("images", "build", "project", "--json").json["tag"]
    project.commit("unrelated", file="changed\n")
    assert project.tasks("images", "build", "project", "--json").json["tag"] == first
    commit(project, said, **{".devcontainer/Dockerfile": f"FROM {base}\nRUN echo 2 > /n\n"})
    second = project.tasks("images", "build", "project", "--json").json["tag"]
    assert second != first
    removed = project.tasks("images", "prune", "--dry-run", "--json").json["removed"]
    assert first in removed
    assert second not in removed


def test_what_a_build_begins_from_is_never_pulled(project: Repo) -> None:
    missing = "localhost:1/no-such-image:1"
    commit(project, {"build": {"dockerfile": "D"}}, **{".devcontainer/D": f"FROM {missing}\n"})
    done = project.tasks("images", "build", "project", "--json", check=False).json["error"]
    assert (done["code"], missing in done["message"]) == ("image_missing", True)
    assert done["hint"].startswith(f"docker pull {missing}")
    commit(project, {"image": missing})
    create(project)
    done = project.tasks("exec", "--json", "--", "true", check=False).json["error"]
    assert (done["code"], done["hint"]) == ("image_missing", f"docker pull {missing}")


def test_a_build_that_fails_says_where(project: Repo, base: str) -> None:
    commit(project, {"build": {"dockerfile": "D"}}, **{".devcontainer/D": f"FROM {base}\nRUN echo about; exit 9\n"})
    done = project.tasks("images", "build", "project", "--json", check=False).json["error"]
    assert (done["code"], "about" in done["message"]) == ("build_failed", True)


def test_a_dockerfile_outside_its_context_and_one_that_is_ignored(project: Repo, base: str) -> None:
    text = f"FROM {base}\nCOPY . /in/\n"
    said = {"build": {"dockerfile": "Dockerfile", "context": "../app"}}
    more = {
        ".devcontainer/Dockerfile": text,
        "app/a": "a\n",
        "app/Dockerfile": "wrong\n",
        "app/.dockerignore": "Docker*\n",
    }
    commit(project, said, **more)
    create(project)
    project.tasks("images", "build", "project")
    assert sorted(inside(project, "ls -A /in").out.split())[-1] == "a"
    assert "wrong" not in inside(project, "cat /in/*", check=False).out


def test_on_a_terminal_a_build_shows_its_layers_and_their_sizes(project: Repo, base: str) -> None:
    text = f"FROM {base}\nRUN head -c 3000000 /dev/zero > /big; sleep 0.5\n"
    commit(project, {"build": {"dockerfile": "D"}}, **{".devcontainer/D": text})
    seen = on_a_terminal(project, "opencode-tasks", "images", "build", "project")
    assert "━" in seen
    assert "Step 2/" in seen
    assert "3.0 MB" in seen
    assert "built" in seen


@pytest.fixture
def secret(project: Repo) -> Callable[..., Ran]:
    """`exec` on a machine that has a secret."""

    def run(*argv: str, check: bool = True) -> Ran:
        return Repo(project.top, {**project.env, "HOST_TOKEN": "swordfish-swordfish"}).tasks(*argv, check=check)

    return run


def test_a_variable_of_the_host_is_given_when_a_person_approved_it(
    project: Repo, secret: Callable[..., Ran], client: docker.DockerClient
) -> None:
    settings = '[environment]\nTOKEN = "env://HOST_TOKEN"\n'
    said = {"remoteEnv": {"TOKEN": "${localEnv:HOST_TOKEN}"}, "onCreateCommand": "echo $TOKEN; test -n $TOKEN"}
    commit(project, said, **{".opencode/tasks.toml": settings})
    refused = secret("create-task", "one", "--devcontainer", "--json", check=False).json["error"]
    assert "secrets approve" in refused["message"]
    secret("secrets", "approve", "TOKEN=env://HOST_TOKEN")
    task = secret("create-task", "one", "--devcontainer", "--json").json["id"]
    assert secret("exec", "--", "sh", "-c", "echo $TOKEN").out == "swordfish-swordfish\n"
    assert "swordfish" not in json.dumps(client.api.inspect_container(f"opencode-task-{task}"))
    assert "swordfish" not in json.dumps(project.events(task))
