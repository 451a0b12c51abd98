"""Programs planted in a repository inside the workspace: checkpoints keep its files, and run nothing of it."""

from pathlib import Path

from tests.conftest import Repo

OURS = (
    *(["checkpoint", "--auto"], ["checkpoint", "--list"], ["checkpoint", "--verify"], ["checkpoint", "--gc"]),
    *(["diff", "one"], ["diff", "one", "--stat"], ["restore-checkpoint", "one", "--dry-run"]),
    *(["restore-checkpoint", "one", "--path", "nested/f"], ["restore-checkpoint", "one"]),
    *(["restore-checkpoint", "--undo"], ["complete-task"]),
)
HOOKS = ("post-index-change", "reference-transaction", "post-checkout", "pre-commit")
NAIVE = (["status"], ["diff"], ["add", "--all"], ["commit", "-qm", "x"], ["checkout", "-q", "HEAD~", "--", "f"])


def plant(repo: Repo, name: str, ran: Path) -> None:
    """Whatever is started in it leaves a file in `ran`."""
    at = ["-C", name]

    def program(kind: str, then: str = "cat") -> str:
        return f"touch {ran}/{kind}; {then}"

    repo.git("init", "-q", name)
    repo.write(f"{name}/f", "1\n")
    repo.git(*at, "add", "f")
    repo.git(*at, "commit", "-qm", "first")
    repo.write(f"{name}/.gitattributes", "* filter=x diff=x\n")
    settings = {
        "core.fsmonitor": program("fsmonitor", "false"),
        "filter.x.clean": program("clean"),
        "filter.x.smudge": program("smudge"),
        "filter.x.required": "true",
        "diff.x.textconv": program("textconv", "cat"),
        "core.hooksPath": str(repo.top / name / "hooks"),
    }
    config = repo.top / name / ".git" / "config"
    for key, value in settings.items():
        repo.git("config", "--file", str(config), key, value)
    for hook in HOOKS:
        repo.write(f"{name}/hooks/{hook}", f"#!/bin/sh\n{program('hook', 'true')}\n").chmod(0o755)


def test_taking_comparing_and_restoring_run_nothing_of_a_nested_repository(repo: Repo, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    repo.git("checkout", "-q", "-b", "task/one")
    for name in ("nested", "nested/deeper", "pointed"):
        plant(repo, name, ran)
    # A `.git` that is a file, and leads to one that the agent wrote.
    (repo.top / "pointed" / ".git").rename(repo.top / "elsewhere")
    repo.write("pointed/.git", f"gitdir: {repo.top}/elsewhere\n")
    for path in ran.iterdir():
        path.unlink()
    repo.tasks("checkpoint", "-m", "one")
    for name in ("nested", "nested/deeper", "pointed"):
        repo.write(f"{name}/f", "2\n")
        repo.write(f"{name}/new", "2\n")
    for words in OURS:
        repo.tasks(*words)
        assert list(ran.iterdir()) == [], words
    assert (repo.top / "nested" / "deeper" / "f").read_text() == "2\n"
    for name in ("nested", "nested/deeper", "pointed"):
        repo.write(f"{name}/f", "3\n")
        for words in NAIVE:
            repo.git("-C", name, *words, check=False)
        assert {path.name for path in ran.iterdir()} == {"fsmonitor", "clean", "smudge", "textconv", "hook"}, name
        for path in ran.iterdir():
            path.unlink()
