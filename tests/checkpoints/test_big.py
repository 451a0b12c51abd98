"""Files too big for git, through checkpoints and restores."""

import os
import shutil
from pathlib import Path

import pytest

from opencode_tasks.checkpoints import snapshot, upkeep, verifying, walk
from opencode_tasks.errors import ConflictError
from opencode_tasks.git import discovery
from tests.checkpoints.test_snapshot import without_git
from tests.checkpoints.workspace import Work


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "BIG_B", 1 << 20)


def content(seed: int, size_b: int = 3 << 20) -> bytes:
    return os.urandom(64) * (size_b // 64) + seed.to_bytes(2, "big")


def is_in_git(work: Work, tree: str, name: str) -> bool:
    shadow = f"--git-dir={work.store.layout.checkpoints_git}"
    return bool(work.repo.git(shadow, "ls-tree", "-r", "--name-only", tree, "--", name).out)


def test_it_grows_changes_shrinks_goes_and_comes_back(work: Work) -> None:
    states = []
    nested = work.top / "nested"
    work.repo.git("init", "-q", "nested")
    for n, make in enumerate((content(1), content(2), b"small\n", None, content(3))):
        for path in (work.top / "folder" / "model.bin", nested / "inside.bin"):
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            if make is not None:
                path.write_bytes(make)
                path.chmod(0o600 if n == 1 else 0o644)
        states.append((work.take(f"s{n}"), seen(work)))
    assert [is_in_git(work, made.tree, "folder/model.bin") for made, _ in states] == [False, False, True, False, False]
    assert work.take().id == states[-1][0].id
    for made, before in [*states, *reversed(states)]:
        _, plan = work.back(made)
        assert seen(work) == before, made.label
        assert not plan.collisions
    text = work.repo.tasks("diff", "s0", "s1", "--stat").out
    assert "folder/model.bin: mode the usual → 600" in text
    assert work.repo.tasks("checkpoint", "--verify", "--json").json["problems"] == []


def seen(work: Work) -> dict[str, tuple[bytes, int]]:
    paths = (work.top / "folder" / "model.bin", work.top / "nested" / "inside.bin")
    return {str(path): (path.read_bytes(), path.stat().st_mode) for path in paths if path.exists()}


def test_all_that_lies_in_a_repository_made_since_stays(work: Work) -> None:
    made = work.take()
    later = work.top / "later"
    work.repo.git("init", "-q", "later")
    work.write("later/a.bin", content(2))
    work.write("later/secret", b"x\n").chmod(0o600)
    (later / "empty").mkdir()
    before = work.contents()
    _, plan = work.back(made)
    assert (plan.changed, plan.deleted) == ((), ())
    assert work.contents() == before
    assert (later / "empty").is_dir()
    assert (later / "secret").stat().st_mode & 0o777 == 0o600
    # What is known of it is not forgotten.
    again = work.take("again")
    (later / "secret").chmod(0o644)
    work.back(again)
    assert (later / "secret").stat().st_mode & 0o777 == 0o600


def test_folders_that_are_a_repository_now_or_are_none_any_more(work: Work) -> None:
    work.write(".gitignore", b"*.out\n")
    for name in ("was", "becomes"):
        work.write(f"{name}/a", b"1\n")
        work.write(f"{name}/sub/b", b"1\n")
        work.write(f"{name}/c", b"1\n")
        work.write(f"{name}/d.bin", content(1))
        work.write(f"{name}/e.out/f", b"1\n")
    work.repo.git("init", "-q", "was")
    one, before = work.take("one"), without_git(work.contents())
    for name in ("was", "becomes"):
        shutil.rmtree(work.top / name)
    work.take("none")
    for name in ("was", "becomes"):
        work.write(f"{name}/a", b"2\n").chmod(0o600)
        work.write(f"{name}/sub", b"a file\n")
        work.write(f"{name}/c/in", b"a folder\n")
        work.write(f"{name}/d.bin", b"small\n")
        work.write(f"{name}/new", b"2\n")
        work.write(f"{name}/e.out", b"ignored\n" if name == "was" else b"2\n")
    work.repo.git("init", "-q", "becomes")
    after = without_git(work.contents())
    undo, plan = work.back(one)
    assert plan.collisions == ("was/e.out",)
    del before[b"becomes/e.out/f"]  # it was ignored, and what lies there now stays
    before |= {path: after[path] for path in (b"becomes/new", b"becomes/e.out")}
    assert without_git(work.contents()) == before
    assert (work.top / "becomes" / "a").stat().st_mode & 0o777 == 0o644
    (work.top / "was" / "e.out" / "f").unlink()  # for the rules of now it is nobody's
    (work.top / "was" / "e.out").rmdir()
    work.back(undo)
    assert without_git(work.contents()) == after
    work.back(one)
    assert without_git(work.contents()) == before


def test_what_is_in_the_way_and_what_was_edited_meanwhile(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.write("a.bin", content(1))
    work.write("file", b"x\n")
    made = work.take()
    (work.top / "a.bin").unlink()
    work.write(".gitignore", b"/a.bin\n")
    work.write("a.bin/precious", b"precious\n")
    before = work.contents()
    undo, plan = work.back(made)
    assert plan.collisions == ("a.bin/precious",)
    assert (work.top / "a.bin").is_file()
    work.back(undo)
    assert work.contents() == before
    # One that is to go, and is written to at the last moment.
    work.write("b.bin", content(2))
    real = snapshot.commit

    def edit_after(*args: object, **named: object) -> object:
        done = real(*args, **named)  # type: ignore[arg-type]
        (work.top / "b.bin").write_bytes(b"edited meanwhile\n")
        return done

    monkeypatch.setattr(snapshot, "commit", edit_after)
    with pytest.raises(ConflictError):
        work.back(made)
    assert (work.top / "b.bin").read_bytes() == b"edited meanwhile\n"
    assert (work.top / "a.bin" / "precious").exists()


def test_a_link_swapped_in_is_not_read_and_not_written_through(work: Work, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.bin").write_bytes(content(9))
    work.write("folder/a.bin", content(1))
    made, before = work.take(), work.contents()
    (work.top / "folder" / "a.bin").unlink()
    (work.top / "folder").rmdir()
    (work.top / "folder").symlink_to(outside)
    kept = (outside / "a.bin").read_bytes()
    undo, _ = work.back(made)
    assert work.contents() == before
    assert (outside / "a.bin").read_bytes() == kept
    work.back(undo)
    assert (work.top / "folder").is_symlink()
    assert [p.name for p in outside.iterdir()] == ["a.bin"]


def test_what_no_checkpoint_has_is_thrown_away_and_damage_is_told(work: Work) -> None:
    for n in range(4):
        work.write("a.bin", os.urandom(3 << 20))
        work.take("kept" if n == 3 else "")
    checkout = discovery.find(work.top, {})
    shadow = snapshot.open_shadow(work.store, work.task)
    upkeep.drop(work.store, shadow, work.task.id, ["c1", "c2", "c3"])
    freed = upkeep.sweep_big(work.store, shadow, older_than_s=0)
    assert freed > 8 << 20
    assert [c.id for c in snapshot.listed(work.store, work.task.id)] == ["c4"]
    (work.top / "a.bin").unlink()
    work.back(snapshot.named(work.store, work.task, "c4"))
    found = snapshot.listed(work.store, work.task.id)
    assert verifying.objects(work.store, checkout, work.task.id, found) == []
    chunk = max((p for p in (shadow.dir / "big").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(damaged)
    (problem,) = verifying.objects(work.store, checkout, work.task.id, found)
    assert "damaged" in problem
