"""What a container writes as git's: programs in hooks, configuration, attributes. The host's git runs none of them.

Each is shown to work where the repository is mounted whole, as people do without us. Then the same in a task's
container, and the same git commands on the host.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.images import newest
from tests.conftest import Repo, another, run

_HOOKS = ("pre-commit", "post-checkout", "post-merge", "post-index-change", "reference-transaction", "commit-msg")
_PROGRAM = "printf '#!/bin/sh\\ntouch {owned}\\n' >.git/{where} && chmod +x .git/{where}"

# What plants a program that makes the file `{owned}`; where it is the container's git that runs it, no harm is done.
PLANTS = {
    "hooks": " && ".join(_PROGRAM.replace("{where}", f"hooks/{name}") for name in _HOOKS),
    "a folder of hooks": "mkdir -p h && printf '#!/bin/sh\\ntouch {owned}\\n' >h/pre-commit && chmod +x h/pre-commit &&"
    " git config -f .git/config core.hooksPath h",
    "fsmonitor": "git config -f .git/config core.fsmonitor 'touch {owned}; false'",
    "a clean filter": "git config -f .git/config filter.x.clean 'touch {owned}; cat' &&"
    " echo '* filter=x' >.gitattributes && touch -d 2001-01-01 README.md",
    "a smudge filter": "git config -f .git/config filter.x.smudge 'touch {owned}; cat' &&"
    " echo '* filter=x' >.git/info/attributes",
    "an external diff": "git config -f .git/config diff.external 'touch {owned};' && echo x >>README.md",
    "a text conversion": "git config -f .git/config diff.x.textconv 'touch {owned}; cat' &&"
    " echo '* diff=x' >.gitattributes && echo x >>README.md",
    "a merge driver": "git config -f .git/config merge.x.driver 'touch {owned}; false' &&"
    " echo '* merge=x' >.gitattributes && echo mine >>README.md",
    "a signing program": "git config -f .git/config commit.gpgSign true &&"
    " printf '#!/bin/sh\\ntouch {owned}\\n' >p && chmod +x p && git config -f .git/config gpg.program ./p",
    "a file that is included": "git config -f .git/config include.path ../.more &&"
    " git config -f .more core.fsmonitor 'touch {owned}; false'",
    "configuration of the work tree": "git config -f .git/config extensions.worktreeConfig true &&"
    " git config -f .git/config.worktree core.fsmonitor 'touch {owned}; false'",
    "an editor": "git config -f .git/config core.editor 'touch {owned}; false'",
}


def as_people_do(repo: Repo) -> None:
    """Whatever git says of it: status, diff, add, commit, checkout, merge."""
    side = f"side-{uuid.uuid4().hex[:6]}"
    here = repo.branch
    start = repo.git("rev-parse", "HEAD").out.strip()
    git = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (
        ("status",),
        ("diff",),
        ("add", "--all"),
        ("commit", "--message", "one"),
        ("commit", "--allow-empty"),
        ("checkout", "--quiet", "--force", "-b", side, start),
        ("commit", "--allow-empty", "--message", "theirs"),
        ("checkout", "--quiet", "--force", here),
        ("merge", "--no-edit", side),
    ):
        repo.git(*git, *words, check=False, env={"EDITOR": "true"})
    repo.git("merge", "--abort", check=False)
    conflicting(repo, here, side)
    repo.git("branch", "-D", side, check=False)


def conflicting(repo: Repo, here: str, side: str) -> None:
    """Both sides changed one file: then a merge driver is asked."""
    repo.git("checkout", "--quiet", "--force", side, check=False)
    repo.write("README.md", f"{side}\n")
    repo.git("commit", "--quiet", "-am", side, "--no-verify", "--no-gpg-sign", check=False)
    repo.git("checkout", "--quiet", "--force", here, check=False)
    repo.write("README.md", f"not {side}\n")
    repo.git("commit", "--quiet", "-am", "not", "--no-verify", "--no-gpg-sign", check=False)
    repo.git("merge", "--no-edit", side, check=False)
    repo.git("merge", "--abort", check=False)
    repo.git("reset", "--quiet", "--hard", check=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("naive")


@pytest.fixture(scope="module")
def naive(engine_host: str, shared: Path) -> Iterator[Callable[[Path, str], None]]:
    """Runs a script where the repository is mounted whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine_host)
        engine = Engine()
        image = newest(engine, "base").tag
        engine.api.close()
    client = docker.DockerClient(engine_host)
    mounts = [f"{shared}:{shared}"]
    name = f"naive-{uuid.uuid4().hex[:8]}"
    made = client.containers.run(image, ["sleep", "600"], name=name, detach=True, init=True, volumes=mounts)

    def attack(top: Path, script: str) -> None:
        done = made.exec_run(["sh", "-c", script], workdir=str(top))
        assert done.exit_code == 0, done.output

    yield attack
    made.remove(force=True)
    client.close()


@pytest.fixture
def task(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "--quiet", "-b", "task/attack")
    return live_repo


def test_no_program_that_a_container_plants_is_run_by_the_hosts_git(
    task: Repo, initialised: Path, shared: Path, naive: Callable[[Path, str], None]
) -> None:
    owned = shared / "owned"
    for number, (name, script) in enumerate(PLANTS.items()):
        top = shared / str(number)
        another(initialised, top)
        naive(top, script.replace("{owned}", str(owned)))
        owned.unlink(missing_ok=True)
        as_people_do(Repo(top, {"OPENCODE_TASKS_HOOKS": "off"}))
        assert owned.exists(), name
    owned.unlink()
    for name, script in PLANTS.items():
        done = task.tasks("exec", "--", "sh", "-c", script.replace("{owned}", str(owned)))
        assert done.code == 0, name
    as_people_do(task)
    for words in (("exec", "--", "true"), ("checkpoint",), ("task-status",), ("doctor",), ("reconcile",)):
        task.tasks(*words)
    as_people_do(task)
    assert not owned.exists()
    assert "fsmonitor" not in (task.common / "config").read_text()
    assert not {p.name for p in (task.common / "hooks").iterdir()} & {"post-index-change"}


SWAPS = {
    "a link in the place of what is looked at": "rm -rf .git/logs .git/HEAD && ln -s {secret} .git/HEAD &&"
    " ln -s {secret} .git/logs",
    "a pipe that nobody writes to": "rm -f .git/HEAD .git/packed-refs && mkfifo .git/HEAD .git/packed-refs",
    "a folder without end": "rm -f .git/HEAD && ln -s . .git/HEAD && mkdir -p .git/refs/heads/task/attack/x",
    "nothing at all": "rm -rf .git/* ; test ! -e .git/HEAD",
}


def test_whatever_becomes_of_the_containers_git_ours_goes_on(task: Repo, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password")
    task_id = task.only_id()
    for name, script in SWAPS.items():
        task.tasks("exec", "--", "sh", "-c", script.replace("{secret}", str(secret)))
        told = task.tasks("exec", "--", "true")
        assert "password" not in told.out + told.err, name
        task.commit("ours")
        assert task.tasks("exec", "--", "true").code == 0, name
        for words in (("task-status",), ("doctor",), ("checkpoint",), ("list-tasks",)):
            task.tasks(*words, check=False)
    assert secret.read_text() == "password"
    task.git("fsck", "--strict")
    task.git("checkout", "--quiet", "main")
    task.git("merge", "--quiet", "task/attack")
    task.tasks("cleanup-task", task_id)
    assert secret.read_text() == "password"
    assert not (task.common / "opencode-tasks" / "private" / task_id).exists()
    task.tasks("uninstall", "--purge")
    assert secret.read_text() == "password"
    assert task.git("for-each-ref", "refs/opencode-tasks").out == ""


def test_the_real_git_directory_is_not_there(task: Repo) -> None:
    task.git("remote", "add", "origin", "https://user:token@example.invalid/x")
    task.git("config", "core.sshCommand", "ssh -i key")
    script = "cat .git/config; cat /proc/self/mountinfo; ls /run/opencode-objects; mv .git x"
    said = task.tasks("exec", "--", "sh", "-c", script, check=False)
    assert said.code != 0
    assert "token@" not in said.out
    assert f" {task.top}/.git rw" in said.out
    for borrowed in ("/run/opencode-objects", f"{task.top}/.git/opencode-tasks/store"):
        assert f" {borrowed} ro" in said.out
    before = sorted(str(p) for p in (task.common / "objects").rglob("*"))
    destroy = "rm -rf /run/opencode-objects/*; git gc -q --prune=now; git repack -adfq; git prune"
    task.tasks("exec", "--", "sh", "-c", destroy, check=False)
    assert sorted(str(p) for p in (task.common / "objects").rglob("*")) == before
    run(["git", "fsck", "--strict"], cwd=task.top)
