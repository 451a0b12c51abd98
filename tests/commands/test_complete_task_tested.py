"""`git.test`: what a merge would make of the base is tested first, on the real engine; the workspace stays as it is."""

from pathlib import Path

import docker

from opencode_tasks.containers.spec import LABEL
from tests.conftest import Ran, Repo

LEAVES = "echo out; cat file; cat ignored/deep; git log -1 --format=%s; echo x >left; echo x >ignored/deep"


def complete(repo: Repo, test: str, *, check: bool = True) -> Ran:
    env = {**repo.env, "OPENCODE_TASKS_GIT_TEST": test}
    return Repo(repo.top, env).tasks("complete-task", "--merge", "--json", check=check)


def test_the_result_is_tested_before_anything_moves(live_repo: Repo, client: docker.DockerClient) -> None:
    repo = Repo(live_repo.top, {**live_repo.env, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    repo.commit("ignore", **{".gitignore": "/ignored\n/left\n", "run.sh": "echo ran\n", "there": "x\n"})
    made = repo.tasks("create-task", "tested", "--worktree", "--json").json
    work, task_id = Repo(Path(made["workspace"]["path"]), repo.env), made["id"]
    work.write("ignored/deep", "ignored\n")
    (work.top / "run.sh").chmod(0o755)
    (work.top / "link").symlink_to("/etc/hostname")
    work.commit("work", file="mine\n")
    old = repo.git("rev-parse", "main").out

    # The result is what the branch has: in the workspace itself.
    done = complete(work, f"{LEAVES}; echo bad >&2; exit 3", check=False)
    error = done.json["error"]
    assert (done.code, error["code"]) == (1, "test_failed")
    assert "exit code 3" in error["message"]
    assert error["message"].endswith("  out\n  mine\n  ignored\n  work\n  bad")
    assert (work.top / "left").exists()
    assert repo.git("rev-parse", "main").out == old
    (work.top / "left").unlink()
    work.write("ignored/deep", "ignored\n")

    # The base has moved on: on files of its own, with a copy of what is ignored.
    moved = repo.commit("base", base="x\n")
    (repo.top / "there").unlink()
    repo.commit("gone")
    looks = "cat base; test ! -e there && test -x run.sh && test -L link && ls -Am; grep -c _ID= /proc/self/environ"
    done = complete(work, f"{LEAVES}; {looks}; exit 1", check=False)
    assert [line.strip() for line in done.json["error"]["message"].splitlines()[1:]] == [
        "out",
        "mine",
        "ignored",
        "work",
        "x",
        ".git, .gitignore, .opencode, README.md, base, file, ignored, left, link, run.sh",
        "1",
    ]
    assert not (work.top / "left").exists()
    assert (work.top / "ignored" / "deep").read_text() == "ignored\n"
    assert moved in repo.git("rev-list", "main").out
    assert repo.tasks("task-status", task_id, "--json").json["status"] == "running"

    merged = complete(work, "test -e base && test -e file && mkdir -p locked/x && chmod 0 locked").json["merged"]
    assert merged["head"] == repo.git("rev-parse", "main").out.strip()
    assert work.git("status", "-s").out == ""
    assert list((repo.common / "opencode-tasks" / "trials").iterdir()) == []
    clone = (repo.common / "opencode-tasks" / "clone").read_text().strip()
    ours = client.api.containers(all=True, filters={"label": f"{LABEL}.clone={clone}"})
    assert [name for one in ours for name in one["Names"]] == [f"/opencode-task-{task_id}"]
    ran = repo.tasks("task-executions", task_id, "--json").json["executions"]
    assert [one["exit_code"] for one in ran] == [0, 1, 3]
