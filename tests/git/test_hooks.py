"""Putting shims over whatever stands in the hooks directory, and taking them away again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, hooks
from opencode_tasks.git.discovery import Checkout
from tests.conftest import Repo

PYTHON = "/opt/some where/it's/python3"


@pytest.fixture
def checkout(make_repo: Callable[..., Repo]) -> Checkout:
    return discovery.find(make_repo().top, {})


def tree(directory: Path) -> dict[str, tuple[int, bytes | str]]:
    """Name to mode and content; a link's content is where it points."""
    return {
        p.name: (p.lstat().st_mode, os.readlink(p) if p.is_symlink() else p.read_bytes())  # noqa: PTH115 (as written)
        for p in directory.iterdir()
    }


def install(checkout: Checkout, python: str = PYTHON) -> hooks.Installed:
    return hooks.install(checkout, python, checkout.common_dir / "opencode-tasks")


def hooks_of(checkout: Checkout) -> Path:
    return checkout.common_dir / "hooks"


def test_every_shim_is_installed_and_current(checkout: Checkout) -> None:
    install(checkout)
    found = hooks.states(hooks_of(checkout), PYTHON)
    assert set(found) == {"opencode-tasks.sh", *hooks.names()}
    assert set(found.values()) == {"current"}
    assert "python='/opt/some where/it'\"'\"'s/python3'" in (hooks_of(checkout) / hooks.SHARED).read_text()


def test_installing_again_changes_nothing(checkout: Checkout) -> None:
    install(checkout)
    once = tree(hooks_of(checkout))
    again = install(checkout)
    assert tree(hooks_of(checkout)) == once
    assert not again.set_hooks_path


def test_another_interpreter_is_noticed_and_recorded(checkout: Checkout) -> None:
    install(checkout, "/old/python")
    assert hooks.states(hooks_of(checkout), PYTHON)[hooks.SHARED] == "outdated"
    install(checkout)
    assert hooks.states(hooks_of(checkout), PYTHON)[hooks.SHARED] == "current"


def test_a_shim_that_lost_its_mode_is_mended(checkout: Checkout) -> None:
    install(checkout)
    (hooks_of(checkout) / "post-commit").chmod(0o644)
    assert hooks.states(hooks_of(checkout), PYTHON)["post-commit"] == "outdated"
    install(checkout)
    assert os.access(hooks_of(checkout) / "post-commit", os.X_OK)


def test_foreign_hooks_come_back_to_the_byte(checkout: Checkout, tmp_path: Path) -> None:
    directory = hooks_of(checkout)
    (directory / "post-commit").write_bytes(b"#!/bin/sh\n# caf\xe9\nexit 0")
    (directory / "post-commit").chmod(0o711)
    (directory / "commit-msg").write_text("not executable")
    (directory / "commit-msg").chmod(0o600)
    (tmp_path / "real").write_text("#!/bin/sh\n")
    (directory / "post-checkout").symlink_to(tmp_path / "real")
    (directory / "prepare-commit-msg").symlink_to("gone-relative")
    before = tree(directory)
    installed = install(checkout)
    assert set(hooks.states(directory, PYTHON).values()) == {"current"}
    hooks.remove(checkout, installed)
    assert tree(directory) == before


def test_a_directory_we_made_goes_again(checkout: Checkout) -> None:
    for path in hooks_of(checkout).iterdir():
        path.unlink()
    hooks_of(checkout).rmdir()
    installed = install(checkout)
    assert installed.made_directory
    hooks.remove(checkout, installed)
    assert not hooks_of(checkout).exists()


def test_two_foreign_hooks_with_one_name_are_nobodys_to_choose_from(checkout: Checkout) -> None:
    directory = hooks_of(checkout)
    (directory / "post-commit").write_text("#!/bin/sh\n")
    (directory / f"post-commit{hooks.BEFORE}").write_text("#!/bin/sh\n# older\n")
    before = tree(directory)
    with pytest.raises(TaskError) as caught:
        install(checkout)
    assert caught.value.code == "hooks"
    assert str(directory) in caught.value.hint
    kept = tree(directory)
    assert {name: kept[name] for name in ("post-commit", f"post-commit{hooks.BEFORE}")} == {
        name: before[name] for name in ("post-commit", f"post-commit{hooks.BEFORE}")
    }


def test_a_hook_that_another_tool_renamed_is_chained_and_is_found_at_the_end(checkout: Checkout) -> None:
    directory = hooks_of(checkout)
    before = tree(directory)
    installed = install(checkout)
    (directory / "post-commit").rename(directory / "post-commit.legacy")
    (directory / "post-commit").write_text("#!/bin/sh\n# another tool\n")
    assert hooks.states(directory, PYTHON)["post-commit"] == "chained"
    install(checkout)
    assert (directory / "post-commit").read_text() == "#!/bin/sh\n# another tool\n"
    assert "post-commit.legacy" in hooks.remove(checkout, installed)
    (directory / "post-commit").unlink()
    assert tree(directory) == before


def test_hooks_path_that_is_no_directory_is_refused_before_anything_is_written(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    repo.git("config", "core.hooksPath", "/dev/null")
    with pytest.raises(TaskError) as caught:
        install(discovery.find(repo.top, {}))
    assert caught.value.code == "hooks"
    assert "core.hooksPath" in caught.value.hint


def test_a_second_install_still_knows_that_it_set_the_global_hooks_path_aside(
    make_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    repo = make_repo()
    (tmp_path / "global").mkdir()
    repo.git("config", "--global", "core.hooksPath", str(tmp_path / "global"))
    config = (repo.top / ".git" / "config").read_bytes()
    checkout = discovery.find(repo.top, {})
    install(checkout)
    installed = install(checkout)
    assert installed.set_hooks_path
    hooks.remove(checkout, installed)
    assert (repo.top / ".git" / "config").read_bytes() == config


def test_without_some(repo: Repo) -> None:
    installed = repo.common / "hooks" / "reference-transaction"
    assert installed.exists()
    installed.with_name(f"{installed.name}.before-opencode-tasks").write_text("#!/bin/sh\n# theirs\n")
    repo.write(".opencode/tasks.toml", '[hooks]\nwithout = ["reference-transaction"]\n')
    assert "reference-transaction" not in repo.tasks("init").out
    assert installed.read_text() == "#!/bin/sh\n# theirs\n"
    assert "hooks installed" not in repo.tasks("init").out
    checks = repo.tasks("doctor", "--json", check=False).json["checks"]
    assert next(check for check in checks if check["name"] == "hooks")["ok"]
    repo.write(".opencode/tasks.toml", "")
    assert "reference-transaction" in repo.tasks("init").out
    assert "opencode-tasks hook" in installed.read_text()
    repo.write(".opencode/tasks.toml", '[hooks]\nwithout = ["post-commit", "pre-flight"]\n')
    refused = repo.tasks("init", "--json", check=False)
    assert refused.json["error"]["code"] == "config"
    assert "pre-flight" in refused.json["error"]["message"]
