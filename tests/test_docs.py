"""The docs name what there is: every command, error code and setting."""

import re
from pathlib import Path

import pytest

from opencode_tasks import config
from opencode_tasks.commands import MODULES

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
SETTINGS = (ROOT / "docs" / "configuration.md").read_text()


def error_codes() -> set[str]:
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    return set(re.findall(r'\bcode ?= ?"(\w+)"', source)) - {"failed", "usage", "bug", "command_failed"}


@pytest.mark.parametrize("name", MODULES)
def test_every_command_is_documented(name: str) -> None:
    assert re.search(rf"^\| `{name}\b", COMMANDS, re.MULTILINE), f"docs/commands.md has no row for {name}"


def test_every_error_code_is_documented() -> None:
    codes = error_codes()
    assert "no_engine" in codes
    assert {code for code in codes if f"`{code}`" not in COMMANDS} == set()


def test_every_setting_is_documented_with_its_default() -> None:
    for section, values in config.defaults().items():
        for key, default in values.items():
            shown = {"": "empty", True: "`true`", False: "`false`", (): "none"}.get(default, f"`{default}`")
            row = f"| `{section}.{key}` | `OPENCODE_TASKS_{section}_{key}`".upper()
            found = [line for line in SETTINGS.splitlines() if line.upper().startswith(row)]
            assert len(found) == 1, f"{section}.{key}"
            assert shown in found[0]


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").iterdir())]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target
