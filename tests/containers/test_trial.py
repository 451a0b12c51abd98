"""What is put on the disk for a test stays in its folder, whatever a tree says."""

from pathlib import Path

import pytest

from opencode_tasks.containers import trial
from opencode_tasks.git import discovery
from tests.conftest import Repo, run


def tree(repo: Repo, *lines: bytes) -> str:
    """A tree that no index would make."""
    content = b"".join(lines)
    (repo.top / "tree").write_bytes(content)
    return repo.git("hash-object", "-t", "tree", "--literally", "-w", "tree").out.strip()


def test_names_and_links_that_lead_out(repo: Repo, tmp_path: Path) -> None:
    blob = bytes.fromhex(run(["git", "hash-object", "-w", "README.md"], cwd=repo.top).out.strip())
    (repo.top / "to").write_text(str(tmp_path / "victim"))
    link = bytes.fromhex(run(["git", "hash-object", "-w", "to"], cwd=repo.top).out.strip())
    (tmp_path / "victim").mkdir()
    folder = bytes.fromhex(tree(repo, b"100644 file\0", blob, b"120000 link\0", link))
    git = bytes.fromhex(tree(repo, b"100644 config\0", blob))
    made = tree(
        repo,
        *(b"40000 ..\0", folder),
        *(b"40000 .GIT\0", git),
        *(b"120000 a\0", link),
        *(b"100644 fine\0", blob),
    )
    commit = repo.git("commit-tree", made, "-m", "hostile").out.strip()
    place = tmp_path / "place"
    trial._export(discovery.find(repo.top, {}), commit, place)
    assert sorted(path.name for path in place.iterdir()) == ["a", "fine"]
    assert (place / "a").is_symlink()
    assert list((tmp_path / "victim").iterdir()) == []
    twice = tree(repo, b"120000 a\0", link, b"40000 a\0", folder)
    commit = repo.git("commit-tree", twice, "-m", "hostile").out.strip()
    with pytest.raises(OSError, match="File exists"):
        trial._export(discovery.find(repo.top, {}), commit, tmp_path / "other")
    assert list((tmp_path / "victim").iterdir()) == []
    assert not (tmp_path / "file").exists()
