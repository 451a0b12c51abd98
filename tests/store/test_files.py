"""A file is replaced whole, or not at all."""

import subprocess
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.store import files
from tests.store.conftest import fill


@pytest.mark.parametrize("durable", [False, True])
def test_replace_writes_the_whole_and_nothing_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "state.json"
    for content_b in (b"first", b"", b"x" * 3_000_000):
        files.replace(path, content_b, durable=durable)
        assert path.read_bytes() == content_b
    assert list(tmp_path.iterdir()) == [path]


def test_replace_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_text("")
    path.chmod(0o751)
    files.replace(path, b"new")
    assert path.stat().st_mode & 0o7777 == 0o751


def test_replace_replaces_a_link_and_spares_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    path = tmp_path / "plan.md"
    path.symlink_to(tmp_path / "target")
    files.replace(path, b"new")
    assert not path.is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_a_failed_replace_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_replace_on_a_full_disk_keeps_the_old_bytes(small_disk: Path) -> None:
    path = small_disk / "state.json"
    files.replace(path, b"old")
    fill(small_disk)
    with pytest.raises(TaskError) as refused:
        files.replace(path, b"n" * 8192)
    assert refused.value.code == "disk_full"
    assert "free space" in refused.value.hint
    assert str(path) in refused.value.message
    assert path.read_bytes() == b"old"
    assert {p.name for p in small_disk.iterdir()} == {"state.json", "filler"}


def test_replace_on_a_read_only_file_system(small_disk: Path) -> None:
    path = small_disk / "state.json"
    files.replace(path, b"old")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(TaskError) as refused:
        files.replace(path, b"new")
    assert refused.value.code == "read_only"
    assert refused.value.hint
    assert path.read_bytes() == b"old"


def test_other_errors_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.refused_writes(tmp_path):
        (tmp_path / "absent").read_bytes()
