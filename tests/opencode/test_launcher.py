"""`tasksh` starts whatever interpreter it has to name, and finds all that the package needs without Python's `site`."""

import subprocess
import sys
from pathlib import Path

import pytest

from opencode_tasks import marked
from opencode_tasks.opencode import launcher
from tests.conftest import run

COMMAND = 'printf "%s|" "$0" "$@"; exit 7'


@pytest.mark.parametrize("where", ["plain", "with 'space\" and \\x", "deep/" * 40 + "er"])
def test_any_interpreter_can_be_named(tmp_path: Path, where: str) -> None:
    python = tmp_path / where / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    root = tmp_path / "root with space"
    assert launcher.install(root, str(python))
    assert not launcher.install(root, str(python))
    path = launcher.path_in(root)
    assert path.stat().st_mode & 0o777 == 0o755
    assert marked.state(path) == "ours"
    assert path.read_bytes().startswith(b"#!/bin/sh\n") == (where != "plain" or len(str(python)) > 120)
    done = run([path, "-c", COMMAND, "a b", "c"], cwd=tmp_path, check=False)
    assert (done.code, done.out) == (7, "a b|c|")
    assert launcher.remove(root)
    assert list(root.iterdir()) == []


def test_everything_is_found_without_site() -> None:
    names = [name for name in launcher.NEEDED if name != "opencode_tasks"]
    code = f"import sys; sys.path += {launcher.folders()!r}; import opencode_tasks.cli, {', '.join(names)}"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    path = launcher.path_in(tmp_path)
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    assert not launcher.remove(tmp_path)
    assert path.exists()
