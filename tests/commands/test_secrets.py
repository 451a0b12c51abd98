"""`secrets`, and what `exec` gives to a command and keeps out of the records; both ways into the container."""

import base64
import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.test_exec import inside, python, shell, start, without_supervisor
from tests.conftest import Ran, Repo

VALUE = "s3cr3t/va+lue=& 42"
KEY = "-----BEGIN\nline one of the key\0\xff%s\\n\n"
SETTINGS = """
[environment]
PLAIN = "as it is"
TOKEN = "env://HOST_WORD"
FROM_FILE = "file://~/token"
[secrets]
key = "file://~/key"
"env.txt" = "env://HOST_WORD"
"""


def settle(repo: Repo, content: str = SETTINGS) -> None:
    path = repo.top / ".opencode" / "tasks.toml"
    path.write_text(path.read_text() + content)
    repo.commit("settings")


def approve(repo: Repo, *wanted: str) -> Ran:
    return repo.tasks("secrets", "approve", *wanted)


ALL = ("TOKEN=env://HOST_WORD", "FROM_FILE=file://~/token", "key=file://~/key", "env.txt=env://HOST_WORD")


def everything_recorded(repo: Repo) -> bytes:
    """Each file below our directory, what git compressed there, too."""
    found = []
    for path in sorted((repo.common / "opencode-tasks").rglob("*")):
        if path.is_file():
            content_b = path.read_bytes()
            found.append(gzip.decompress(content_b) if path.suffix == ".gz" else content_b)
    memory = repo.common / "opencode-tasks" / "memory.git"
    found.append(repo.git("-C", str(memory), "log", "-p", "--all").out.encode(errors="surrogateescape"))
    return b"\n".join(found)


@pytest.fixture
def host(live_repo: Repo, isolated: Path) -> Repo:
    (isolated / "token").write_text(f"{VALUE}-of-file\n")
    (isolated / "key").write_bytes(KEY.encode("latin-1"))
    for name in ("token", "key"):
        (isolated / name).chmod(0o600)
    live_repo.env["HOST_WORD"] = VALUE
    settle(live_repo)
    return live_repo


@pytest.fixture(params=["supervisor", "engine"])
def repo(request: pytest.FixtureRequest, host: Repo) -> Repo:
    approve(host, *ALL)
    host.git("checkout", "--quiet", "-b", "task/secret")
    inside(host, "true")
    if request.param == "engine":
        without_supervisor(host)
    return host


def test_a_command_gets_variables_and_files_and_nobody_records_them(repo: Repo) -> None:
    script = 'printf "%s|%s|%s" "$PLAIN" "$TOKEN" "$FROM_FILE"'
    assert shell(repo, script).out == f"as it is|{VALUE}|{VALUE}-of-file"
    assert inside(repo, "base64", "-w0", "/run/secrets/key").out == base64.b64encode(KEY.encode("latin-1")).decode()
    assert inside(repo, "cat", "/run/secrets/env.txt").out == VALUE
    shown = shell(repo, "stat -c %a-%U-%n /run/secrets /run/secrets/*; stat -f -c %T /run/secrets").out.splitlines()
    assert [line.split("-")[0] for line in shown[:3]] == ["700", "400", "400"]
    assert shown[-1] == "tmpfs"
    recorded_b = everything_recorded(repo)
    assert b"***TOKEN***" in recorded_b
    assert b"as it is|" in recorded_b
    for hidden in (VALUE, "line one of the key", base64.b64encode(KEY.encode("latin-1")).decode()):
        assert hidden.encode() not in recorded_b
    told = repo.tasks("task-executions", "--json").out + repo.tasks("task-executions", "--output").out
    assert "***TOKEN***" in told
    assert VALUE not in told


def test_values_of_the_moment_are_used(repo: Repo, isolated: Path) -> None:
    repo.env.update(HOST_WORD="another value")
    (isolated / "key").write_text("short")
    assert (
        shell(repo, 'echo "$TOKEN"; cat /run/secrets/key /run/secrets/env.txt').out
        == "another value\nshortanother value"
    )
    shell(repo, "rm -f /run/secrets/key; echo forged > /run/secrets/forged; echo hidden > /run/secrets/.hidden")
    assert shell(repo, "ls -A /run/secrets; cat /run/secrets/key").out == "env.txt\nkey\nshort"


def test_a_secret_in_the_command_line_in_pieces_and_at_the_edges_of_what_is_kept(repo: Repo) -> None:
    ran = repo.tasks("exec", "--json", "--", "sh", "-c", "true", f"--token={VALUE}")
    assert ran.json["command"] == ["sh", "-c", "true", "--token=***TOKEN***"]
    pieces = (
        "import os, sys, time\nfor c in os.environ['TOKEN']: sys.stdout.write(c); sys.stdout.flush(); time.sleep(0.01)"
    )
    assert python(repo, pieces).out == VALUE
    # Around byte 32768, where the log of the beginning ends, and 4096 before the end.
    for before, after in ((32 * 1024 - 5, 10000), (10000, 4096 - 5)):
        edge = f"import os; print('x' * {before} + os.environ['TOKEN'] + 'y' * {after}, end='')"
        assert len(python(repo, edge).out) == before + len(VALUE) + after
    # So many that the masked tail is much shorter than what was kept of it, which begins inside of one.
    for after in (0, 6, 12):
        many = f"import os; print(os.environ['TOKEN'] * 2000 + 'y' * {after}, end='')"
        assert python(repo, many).out.startswith(VALUE)
    recorded_b = everything_recorded(repo)
    for piece in (VALUE, VALUE[:5], VALUE[-5:]):
        assert recorded_b.count(piece.encode()) == 0, piece


def test_json_documents_are_masked_and_the_live_stream_is_not(repo: Repo) -> None:
    ran = repo.tasks("exec", "--json", "--", "sh", "-c", 'echo "$TOKEN"')
    assert ran.json["output_tail"] == "***TOKEN***\n"
    assert ran.err == f"{VALUE}\n"


def test_a_killed_exec_has_recorded_no_beginning_of_a_secret(repo: Repo) -> None:
    process = start(repo, "sh", "-c", 'printf %s "beginning $TOKEN" | head -c 20; sleep 100')
    try:
        inside(repo, "sleep", "0.5")
    finally:
        process.kill()
        process.wait()
    assert VALUE[:10].encode() not in everything_recorded(repo)


def test_a_task_of_its_own_worktree_reads_the_main_checkouts_file(host: Repo) -> None:
    settle(host, 'near = "file://conf/near"\n')
    host.write("conf/near", "of the main checkout").chmod(0o600)
    approve(host, *ALL, "near=file://conf/near")
    made = host.tasks("create-task", "beside", "--worktree", "--json").json
    beside = Repo(Path(made["workspace"]["path"]), host.env)
    assert inside(beside, "cat", "/run/secrets/near").out == "of the main checkout"


# Approval


def error(ran: Ran) -> dict[str, str]:
    assert ran.code == 1, ran
    found: dict[str, str] = ran.json["error"]
    return found


def refused(repo: Repo) -> dict[str, str]:
    """Before anything of the command is recorded."""
    before = [e for i in repo.ids() for e in repo.events(i) if e["type"].startswith("command.")]
    found = error(repo.tasks("exec", "--json", "--", "true", check=False))
    assert [e for i in repo.ids() for e in repo.events(i) if e["type"].startswith("command.")] == before
    return found


@pytest.fixture
def asking(repo_without_engine: Repo, isolated: Path) -> Repo:
    (isolated / "key").write_text("a key of the host\n")
    (isolated / "key").chmod(0o600)
    repo_without_engine.env["HOST_WORD"] = VALUE
    settle(repo_without_engine, '[environment]\nTOKEN = "env://HOST_WORD"\n[secrets]\nkey = "file://~/key"\n')
    repo_without_engine.git("checkout", "--quiet", "-b", "task/asking")
    return repo_without_engine


@pytest.fixture
def repo_without_engine(make_repo: object) -> Repo:
    assert callable(make_repo)
    made: Repo = make_repo()
    made.tasks("init")
    return made


def test_nothing_is_given_before_a_person_says_so(asking: Repo, isolated: Path) -> None:
    found = refused(asking)
    assert found["code"] == "not_approved"
    assert "[environment] TOKEN = env://HOST_WORD" in found["message"]
    assert "[secrets] key = file://~/key" in found["message"]
    words = "opencode-tasks secrets approve TOKEN=env://HOST_WORD 'key=file://~/key'"
    assert found["hint"].endswith(words)
    listed = asking.tasks("secrets", "list", "--json").json["secrets"]
    assert [(e["name"], e["approved_at"], e["problem"]) for e in listed] == [("TOKEN", None, ""), ("key", None, "")]
    approve(asking, "TOKEN=env://HOST_WORD")
    assert "TOKEN" not in refused(asking)["message"]
    approve(asking, "key=file://~/key")
    assert refused(asking)["code"] == "no_engine"
    listed = asking.tasks("secrets", "list", "--json").json["secrets"]
    assert all(e["approved_at"] and e["by"].startswith("user:") for e in listed)
    assert (
        VALUE not in json.dumps(listed) + asking.tasks("secrets", "list").out + asking.tasks("doctor", check=False).out
    )


def test_an_approval_is_of_one_name_and_one_reference(asking: Repo) -> None:
    approve(asking, "TOKEN=env://OTHER", "OTHER=env://HOST_WORD", "key=file://key")
    assert refused(asking)["code"] == "not_approved"
    approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/key")
    assert refused(asking)["code"] == "no_engine"
    asking.tasks("secrets", "revoke", "key")
    assert "key = file://~/key" in refused(asking)["message"]
    assert error(asking.tasks("secrets", "revoke", "--json", "nothing", check=False))["code"] == "failed"


@pytest.mark.parametrize("name", ["OPENCODE_TASKS_LEASE", "OPENCODE_PID", "OPENCODE_TASK_ID"])
def test_an_agent_may_not_approve(asking: Repo, name: str) -> None:
    token = asking.tasks("attach", "--agent", "bot", "--json").json["lease"]["token"]
    agent = Repo(asking.top, {**asking.env, name: token})
    for words in (["approve", "TOKEN=env://HOST_WORD"], ["revoke", "TOKEN"]):
        found = error(agent.tasks("secrets", words[0], "--json", *words[1:], check=False))
        assert found["code"] == "persons_decision"
        assert f"{name} is set" in found["message"]


@pytest.mark.parametrize("words", ["TOKEN", "=env://A", "TOKEN=", "TOKEN=value", "A B=env://A", "TOKEN=file://x/"])
def test_what_is_no_reference_cannot_be_approved(asking: Repo, words: str) -> None:
    ran = asking.tasks("secrets", "approve", "--json", words, check=False)
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage")


def test_a_damaged_record_of_approvals_gives_nothing_out(asking: Repo) -> None:
    approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/key")
    path = asking.common / "opencode-tasks" / "approved.json"
    for content in (
        "",
        "[]",
        "{",
        '{"approved": [{}]}',
        '{"approved": [{"name": 1}]}',
        "[" * 100000,
        '{"approved": 1}',
    ):
        path.write_text(content)
        found = refused(asking)
        assert (found["code"], str(path) in found["message"]) == ("corrupt", True)


def test_two_approvals_at_once_are_both_kept(asking: Repo) -> None:
    argv = ["opencode-tasks", "secrets", "approve"]
    names = [f"N{n}=env://A" for n in range(6)]
    env = {**os.environ, **asking.env}
    running = [subprocess.Popen([*argv, name], cwd=asking.top, env=env, stdout=subprocess.DEVNULL) for name in names]
    assert [p.wait(timeout=60) for p in running] == [0] * 6
    document = json.loads((asking.common / "opencode-tasks" / "approved.json").read_bytes())
    assert sorted(f"{e['name']}={e['source']}" for e in document["approved"]) == names


# What the host does not have


def test_every_missing_reference_is_named_with_the_next_step(asking: Repo, isolated: Path) -> None:
    approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/key")
    del asking.env["HOST_WORD"]
    (isolated / "key").unlink()
    found = refused(asking)
    assert found["code"] == "secret_missing"
    assert "HOST_WORD is not set here" in found["message"]
    assert f"{isolated}/key cannot be read: No such file" in found["message"]
    assert "export HOST_WORD=" in found["hint"]
    checked = asking.tasks("doctor", "--json", check=False).json["checks"]
    (check,) = [c for c in checked if c["name"] == "secrets"]
    assert not check["ok"]
    assert "HOST_WORD is not set" in check["detail"]
    listed = asking.tasks("secrets", "list").out
    assert "No such file" in listed


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("ln -s /etc/hostname key", "is a link"),
        ("mkdir key", "no ordinary file"),
        ("mkfifo key", "no ordinary file"),
        ("head -c 65537 /dev/zero > key", "more than 64 KiB"),
        ("ln -s key key", "is a link"),
    ],
)
def test_what_is_no_file_of_a_bearable_size_is_refused(asking: Repo, isolated: Path, make: str, said: str) -> None:
    approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/key")
    (isolated / "key").unlink()
    subprocess.run(["sh", "-c", make], cwd=isolated, check=True)
    found = refused(asking)
    assert (found["code"], said in found["message"]) == ("secret_missing", True), found


def test_a_folder_that_became_a_link_has_to_be_approved_again(asking: Repo, isolated: Path, tmp_path: Path) -> None:
    (isolated / "key").unlink()
    (isolated / "folder").mkdir()
    (isolated / "folder" / "key").write_text("mine")
    (tmp_path / "key").write_text("somebody else's")
    settings = asking.top / ".opencode" / "tasks.toml"
    settings.write_text(settings.read_text().replace("~/key", "~/folder/key"))
    approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/folder/key")
    assert refused(asking)["code"] == "no_engine"
    (isolated / "folder").rename(isolated / "before")
    (isolated / "folder").symlink_to(tmp_path)
    assert refused(asking)["code"] == "not_approved"


def test_a_variable_is_text_and_a_file_is_what_it_is(asking: Repo, isolated: Path) -> None:
    settings = asking.top / ".opencode" / "tasks.toml"
    settings.write_text(settings.read_text().replace("env://HOST_WORD", "file://~/key"))
    approve(asking, "TOKEN=file://~/key", "key=file://~/key")
    for content_b in (b"nul\0nul", b"\xff\xfe"):
        (isolated / "key").write_bytes(content_b)
        found = refused(asking)
        assert "cannot be a variable" in found["message"]
        assert "[secrets]" in found["hint"]


def test_others_may_read_it_and_too_short_to_be_masked_are_said(asking: Repo, isolated: Path) -> None:
    (isolated / "key").chmod(0o644)
    asking.env.update(HOST_WORD="abc")
    said = approve(asking, "TOKEN=env://HOST_WORD", "key=file://~/key").out
    assert f"chmod 600 {isolated}/key" in said
    assert "not masked" in said
