"""`doctor`: every kind of damage is named with its fix, the fix works, and the rest stays fine."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repo


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setenv("OPENCODE_TASKS_CONTAINER_AUTOSTART", "off")


NEED_ENGINE = {"engine", "image", "containers"}


def checks(repo: Repo) -> dict[str, Any]:
    done = repo.tasks("doctor", "--json", check=False)
    document = done.json
    assert done.code == (0 if document["ok"] else 1)
    assert all(list(c)[:4] == ["name", "ok", "detail", "fix"] for c in document["checks"])
    assert all(c["ok"] or c["fix"] for c in document["checks"])
    return {c["name"]: c for c in document["checks"]}


def bad(repo: Repo) -> set[str]:
    """The names that are not ok, but for those that want an engine: there is none here."""
    return {name for name, c in checks(repo).items() if not c["ok"]} - NEED_ENGINE


def test_without_an_engine_everything_else_is_fine(repo: Repo) -> None:
    found = checks(repo)
    assert {name for name, c in found.items() if not c["ok"]} == NEED_ENGINE & set(found)
    assert "no-engine.sock" in found["engine"]["detail"]


def _no_link(repo: Repo) -> None:
    (repo.top / ".tasks").unlink()


def _no_exclude(repo: Repo) -> None:
    (repo.common / "info" / "exclude").unlink()


def _no_hook(repo: Repo) -> None:
    (repo.common / "hooks" / "post-commit").unlink()


def _edited_hook(repo: Repo) -> None:
    with (repo.common / "hooks" / "commit-msg").open("a") as f:
        f.write("# edited\n")


def _mode_of_hook(repo: Repo) -> None:
    (repo.common / "hooks" / "commit-msg").chmod(0o644)


def _old_python(repo: Repo) -> None:
    shared = repo.common / "hooks" / "opencode-tasks.sh"
    shared.write_text(
        shared.read_text().replace("\npython='", "\npython='/gone", 1).replace("\npython=/", "\npython=/gone/", 1)
    )


def _hooks_path(repo: Repo) -> None:
    repo.git("config", "core.hooksPath", str(repo.top.parent / "elsewhere"))


DAMAGES: list[tuple[Callable[[Repo], None], str]] = [
    (_no_link, "link"),
    (_no_exclude, "exclude"),
    (_no_hook, "hooks"),
    (_edited_hook, "hooks"),
    (_mode_of_hook, "hooks"),
    (_old_python, "hooks"),
    (_hooks_path, "hooks"),
]


def test_what_init_mends(repo: Repo) -> None:
    for damage, name in DAMAGES:
        damage(repo)
        found = checks(repo)
        assert not found[name]["ok"], damage.__name__
        assert found[name]["fix"] == "opencode-tasks init"
        repo.tasks("init")
    assert bad(repo) == set()


def test_something_else_has_the_name_of_the_link(repo: Repo) -> None:
    (repo.top / ".tasks").unlink()
    (repo.top / ".tasks").write_text("mine")
    found = checks(repo)["link"]
    assert not found["ok"]
    assert "rename" in found["fix"]
    assert (repo.top / ".tasks").read_text() == "mine"


def test_a_damaged_record(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    repo.git("checkout", "-q", "main")
    (log,) = (repo.store / repo.only_id() / "log").iterdir()
    content = log.read_bytes()
    log.write_bytes(content.replace(b"checked out", b"CHECKED out", 1))
    found = checks(repo)["store"]
    assert not found["ok"]
    assert repo.only_id() in found["detail"]
    assert "nothing is deleted" in found["fix"]
    assert log.read_bytes() == content.replace(b"checked out", b"CHECKED out", 1)


def test_a_branch_tied_to_a_task_that_is_gone(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "task/one")
    shutil.rmtree(repo.store / repo.only_id())
    found = checks(repo)["branches"]
    assert not found["ok"]
    assert "task/one" in found["detail"]


def test_no_store(repo: Repo) -> None:
    shutil.rmtree(repo.common / "opencode-tasks")
    found = checks(repo)
    assert not found["store"]["ok"]
    assert found["store"]["fix"] == "opencode-tasks init"


def test_before_init(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    assert {"store", "link", "exclude", "hooks"} <= bad(repo)
    assert not (repo.common / "opencode-tasks").exists()
    repo.tasks("init")
    assert bad(repo) == set()


def test_settings_that_cannot_be_read_are_a_finding(repo: Repo) -> None:
    repo.write(".opencode/tasks.toml", "[branch]\nprefx = 'x/'\n")
    done = repo.tasks("doctor", "--json", check=False)
    assert done.code == 1
    assert "prefix" in done.out


def test_a_person_reads_one_line_a_check(repo: Repo) -> None:
    _no_link(repo)
    lines = repo.tasks("doctor", check=False).out.splitlines()
    (line,) = [li for li in lines if li.split("\t")[1] == "link"]
    assert line.startswith("PROBLEM\t")
    assert "fix: opencode-tasks init" in line
