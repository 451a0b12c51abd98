"""What the host gives to a task: taken by another task, led elsewhere by a link, found where it is written down.

The attacker is whatever runs in the container, and whoever sends a pull request with settings of their own.
"""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.commands.test_exec import inside, python, shell, without_supervisor
from tests.commands.test_secrets import everything_recorded
from tests.conftest import Repo

VALUE = "correct/horse+battery=staple"
PAGE = '[environment]\nWORD = "env://HOST_WORD"\n[secrets]\nkey = "file://~/key"\n'


@pytest.fixture
def hostile(live_repo: Repo, isolated: Path) -> Repo:
    (isolated / "key").write_text(f"{VALUE}-in-a-file\n")
    (isolated / "key").chmod(0o600)
    live_repo.env["HOST_WORD"] = VALUE
    live_repo.env["OPENCODE_TASKS_CONTAINER_AUTOSTART"] = "off"
    settings = live_repo.top / ".opencode" / "tasks.toml"
    settings.write_text(settings.read_text() + PAGE)
    live_repo.commit("settings")
    live_repo.tasks("secrets", "approve", "WORD=env://HOST_WORD", "key=file://~/key")
    live_repo.git("checkout", "--quiet", "-b", "task/hostile")
    inside(live_repo, "true")
    return live_repo


@pytest.fixture(params=["supervisor", "engine"])
def repo(request: pytest.FixtureRequest, hostile: Repo) -> Repo:
    if request.param == "engine":
        without_supervisor(hostile)
    return hostile


def both_ways(repo: Repo) -> Iterator[str]:
    """Into one container: for what leaves it as it was."""
    yield "supervisor"
    without_supervisor(repo)
    yield "engine"


@pytest.fixture
def api(engine_host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(engine_host)
    yield client
    client.close()


def hidden(repo: Repo) -> None:
    recorded_b = everything_recorded(repo)
    assert b"command.finished" in recorded_b
    for value in (VALUE, f"{VALUE}-in-a-file"):
        for form_b in (value.encode(), base64.b64encode(value.encode())[:-4], value.encode().hex().encode()):
            assert form_b not in recorded_b


def test_a_naive_record_holds_what_ours_does_not(repo: Repo) -> None:
    """The same output, written down as it is; then each way to print it by accident."""
    ways = [
        'echo "$WORD"; cat /run/secrets/key',
        'printf %s "$WORD" | base64; base64 -w0 /run/secrets/key',
        'printf %s "user:$WORD" | base64 -w0; printf %s "us:$WORD" | base64 -w0',
        'printf %s "$WORD" | od -An -v -tx1 | tr -d " \\n"',
        'env; set; sh -xc "true $WORD"',
        'for n in 1 2 3 4 5 6 7 8 9; do printf %s "$WORD" | cut -c$((n*3-2))-$((n*3)) | tr -d "\\n"; sleep 0.02; done',
        'no-such-program "$WORD"; ls "/$WORD"; cd "/$WORD"',
        "python3 -c \"import os, json, urllib.parse as u; v = os.environ['WORD']; print(json.dumps(v), u.quote(v))\"",
        'awk "BEGIN { for (n = 0; n < 3000; n++) print ENVIRON[\\"WORD\\"] }"',
    ]
    naive = [shell(repo, way, check=False) for way in ways]
    assert VALUE in naive[0].out
    assert all(ran.out + ran.err for ran in naive)
    assert any(base64.b64encode(VALUE.encode()).decode() in ran.out for ran in naive)
    inside(repo, "true", VALUE, f"--url=https://x:{VALUE}@host/")
    hidden(repo)
    documents = repo.tasks("task-executions", "--json").out + repo.tasks("task-history", "--json").out
    assert VALUE not in documents


def test_another_encoding_gets_through_as_the_documentation_says(repo: Repo) -> None:
    """Masking is a seat belt. This is the test that would fail if it became more."""
    reversed_value = shell(repo, 'printf %s "$WORD" | rev').out.strip()
    assert reversed_value == VALUE[::-1]
    assert reversed_value.encode() in everything_recorded(repo)


def test_the_engine_keeps_nothing_of_it(hostile: Repo, api: docker.APIClient) -> None:
    for _ in both_ways(hostile):
        shell(hostile, "true")
        name = f"opencode-task-{hostile.only_id()}"
        seen: dict[str, Any] = api.inspect_container(name)
        naive = api.create_container(seen["Image"], environment={"WORD": VALUE})
        try:
            assert VALUE in json.dumps(api.inspect_container(naive["Id"]))
        finally:
            api.remove_container(naive["Id"])
        told = json.dumps(seen) + json.dumps(hostile.tasks("task-status", "--container", "--json").json)
        assert VALUE not in told
        assert "HOST_WORD" not in told
        assert "/run/secrets" not in told


def test_a_changed_value_makes_no_new_container(hostile: Repo, api: docker.APIClient) -> None:
    name = f"opencode-task-{hostile.only_id()}"
    before = api.inspect_container(name)["Id"]
    for way in both_ways(hostile):
        hostile.env["HOST_WORD"] = f"{way} {VALUE[::-1]}"
        assert shell(hostile, 'echo "$WORD"').out == f"{way} {VALUE[::-1]}\n"
        assert api.inspect_container(name)["Id"] == before


def test_no_argument_shows_it(hostile: Repo) -> None:
    """To whoever may list processes, while the files are written and while a command runs."""
    look = "import glob; print([open(p, 'rb').read() for p in glob.glob('/proc/[0-9]*/cmdline')])"
    for _ in both_ways(hostile):
        assert VALUE not in python(hostile, look).out
        seen = []
        process = subprocess.Popen(
            ["opencode-tasks", "exec", "--", "sleep", "0.3"], cwd=hostile.top, env={**os.environ, **hostile.env}
        )
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_bytes())
                except OSError:
                    continue
        assert any(b"opencode-tasks" in one for one in seen)
        assert not any(VALUE.encode() in one for one in seen)


def test_another_tasks_container_does_not_have_it(repo: Repo) -> None:
    made = repo.tasks("create-task", "other", "--worktree", "--json").json
    other = Repo(Path(made["workspace"]["path"]), repo.env)
    settings = other.top / ".opencode" / "tasks.toml"
    settings.write_text(settings.read_text().replace(PAGE, ""))
    script = "cat /run/secrets/key; ls -A /run/secrets; env; cat /proc/*/environ | tr '\\0' '\\n'"
    own = shell(repo, script, check=False)
    assert own.out.count(VALUE) >= 2
    theirs = shell(other, script, check=False)
    assert VALUE not in theirs.out + theirs.err
    assert "/run/secrets" in theirs.err


def test_it_is_never_on_the_hosts_disk(repo: Repo, tmp_path: Path) -> None:
    """A link in place of the folder, into the workspace that the host keeps: nothing is put through it."""
    shell(repo, "rm -r /run/secrets; mkdir leak; ln -s $PWD/leak /run/secrets")
    ran = repo.tasks("exec", "--json", "--", "true", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "secrets_not_given")
    assert "is a link" in ran.json["error"]["message"]
    assert list((repo.top / "leak").iterdir()) == []
    done = subprocess.run(["grep", "-rlF", VALUE, repo.top, tmp_path], capture_output=True, check=False)
    assert done.stdout == b""


@pytest.mark.parametrize("obstacle", ["touch /run/secrets", "mkdir /run/secrets; chmod 0 /run/secrets"])
def test_an_obstacle_is_an_error_and_no_command_runs_without_its_secrets(repo: Repo, obstacle: str) -> None:
    shell(repo, f"rm -r /run/secrets; {obstacle}")
    ran = repo.tasks("exec", "--json", "--", "touch", "ran", check=False)
    assert (ran.code, ran.json["error"]["code"]) == (1, "secrets_not_given")
    assert not (repo.top / "ran").exists()


# References


def error(repo: Repo) -> dict[str, str]:
    ran = repo.tasks("exec", "--json", "--", "true", check=False)
    assert ran.code == 1, ran
    found: dict[str, str] = ran.json["error"]
    return found


@pytest.fixture
def linked(hostile: Repo, isolated: Path, tmp_path: Path) -> Callable[[], None]:
    """The approved file's place taken by a link to what was never approved."""
    (tmp_path / "private").write_text("private to the person")

    def swap() -> None:
        (isolated / "key").unlink()
        (isolated / "key").symlink_to(tmp_path / "private")

    return swap


def test_a_link_in_place_of_the_approved_file_is_not_followed(
    hostile: Repo, linked: Callable[[], None], isolated: Path
) -> None:
    linked()
    assert (isolated / "key").read_text() == "private to the person"
    for _ in both_ways(hostile):
        found = error(hostile)
        assert (found["code"], "is a link" in found["message"]) == ("secret_missing", True)
        assert "private" not in json.dumps(found).replace("/private", "")


def test_a_pull_requests_settings_are_not_obeyed(hostile: Repo, isolated: Path) -> None:
    """More of the host; another source under an approved name; an approved source by another way."""
    (isolated / ".ssh").mkdir()
    (isolated / ".ssh" / "id").write_text("private")
    settings = hostile.top / ".opencode" / "tasks.toml"
    approved = settings.read_text()
    for _ in both_ways(hostile):
        for ours, theirs in (
            ("[secrets]", '[secrets]\nid = "file://~/.ssh/id"'),
            ("file://~/key", "file://~/.ssh/id"),
            ("file://~/key", "file://~/.ssh/../key"),
            ("file://~/key", "env://HOST_WORD"),
            ("env://HOST_WORD", "env://PATH"),
            ("env://HOST_WORD", "file://~/key"),
        ):
            settings.write_text(approved.replace(ours, theirs))
            assert error(hostile)["code"] == "not_approved", theirs
        settings.write_text(approved)
        assert inside(hostile, "true").code == 0


def test_the_agent_cannot_write_the_approvals_or_the_settings(hostile: Repo) -> None:
    for _ in both_ways(hostile):
        for path in (".git/opencode-tasks/approved.json", ".opencode/tasks.toml"):
            before = (hostile.top / path).read_bytes()
            ran = shell(hostile, f"cat {path}; echo x >> {path}; rm -f {path}; mv {path} x", check=False)
            # The former is not even there: the git directory inside is another one.
            assert ("Read-only file system" in ran.err) == (not path.startswith(".git/"))
            assert (hostile.top / path).read_bytes() == before
