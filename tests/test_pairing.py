"""Each artifact of the top-level folders has the Python module of the same name, and the reverse."""

import pkgutil
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from opencode_tasks import assets, commands, git_hooks
from opencode_tasks.git import hooks

_SHIMS = assets.root() / "git_hooks"


def _modules_with(package: str, attribute: str) -> set[str]:
    found = pkgutil.iter_modules(import_module(package).__path__)
    names = [info.name for info in found if info.name != "__main__"]
    return {name for name in names if hasattr(import_module(f"{package}.{name}"), attribute)}


def test_every_shim_has_its_module_and_every_module_its_shim() -> None:
    shims = {p.name for p in _SHIMS.iterdir()} - {hooks.SHARED}
    assert shims == set(git_hooks.MODULES) == set(hooks.names())
    assert set(git_hooks.MODULES.values()) == _modules_with("opencode_tasks.git_hooks", "main")


@pytest.mark.parametrize(("name", "module"), git_hooks.MODULES.items())
def test_a_hook_and_its_shim_bear_one_name(name: str, module: str) -> None:
    assert module == name.replace("-", "_")
    hook = import_module(f"opencode_tasks.git_hooks.{module}")
    assert str(hook.__doc__).startswith(f"{name}: ")
    assert list(signature(hook.main).parameters) == ["args", "store", "checkout", "config"]
    shim = _SHIMS / name
    assert f"# opencode-tasks hook v1: {name}\n" in shim.read_text()
    starts = "ask_python" if name == "pre-commit" else "start_python"
    assert f"{starts} {name} " in shim.read_text()
    assert f"{name}.before-opencode-tasks" in shim.read_text()
    assert shim.stat().st_mode & 0o111


def test_the_shared_part_is_not_executable() -> None:
    assert not (_SHIMS / hooks.SHARED).stat().st_mode & 0o111


@pytest.mark.parametrize(("name", "module"), commands.MODULES.items())
def test_a_command_and_its_module_bear_one_name(name: str, module: str) -> None:
    assert module == name.replace("-", "_")
    command = import_module(f"opencode_tasks.commands.{module}")
    assert str(command.__doc__).startswith(f"`{name}")
    assert isinstance(command.HELP, str)
    assert command.HELP == command.HELP.strip() != ""
    assert list(signature(command.configure).parameters) == ["parser"]
    assert list(signature(command.run).parameters) == ["args"]


def test_every_command_is_in_the_table() -> None:
    assert set(commands.MODULES.values()) == _modules_with("opencode_tasks.commands", "HELP")


def test_the_folders_are_those_of_the_design() -> None:
    top = Path(__file__).parents[1]
    allowed = {"git_hooks", "opencode_hooks", "commands", "templates", "docker-images"}
    known = allowed | {"src", "tests", "benchmarks", "docs", "scripts"}
    tracked = {p.parent.relative_to(top).parts[0] for p in top.glob("*/*") if not p.parent.name.startswith(".")}
    assert tracked - known <= {"build", "dist", "venv", "htmlcov"}
    assert (top / "git_hooks").is_dir()
