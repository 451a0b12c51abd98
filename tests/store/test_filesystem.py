"""What the store does on a file system that is shared, full or read-only."""

import os
import subprocess
from pathlib import Path

import pytest

from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store, filesystem
from opencode_tasks.task import Task
from tests.store.conftest import ID, create, fill, is_consistent

_TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /proc rw,nosuid - proc proc rw
31 22 0:40 / /home rw master:1 propagate_from:2 - autofs auto rw
32 31 0:41 / /home rw - nfs4 server:/home rw,vers=4.2
33 32 0:42 / /home/me/ssd rw - btrfs /dev/sdb rw
34 22 0:43 / /mnt/with\\040space\\134and\\011more rw - cifs //server/share rw
35 22 0:44 / /mnt/日本 rw - fuse.sshfs me@there: rw
36 22 0:45 / /mnt/caf\udce9 rw - 9p share rw
37 22 0:46 / /srv rw - fuse.mergerfs a:b rw
broken line
38 22 0:47 -
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/src/repo", "ext4"),
        ("/homes/repo", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/repo", "nfs4"),
        ("/home/me/ssd/repo", "btrfs"),
        ("/home/me/ssd2", "nfs4"),
        ("/mnt/with space\\and\tmore/repo", "cifs"),
        ("/mnt/日本/repo", "fuse.sshfs"),
        ("/mnt/caf\udce9/repo", "9p"),
        ("/srv/repo", "fuse.mergerfs"),
    ],
)
def test_the_mount_that_a_path_is_on(path: str, kind: str) -> None:
    assert filesystem.kind_in(_TABLE, path) == kind


def test_no_table_no_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filesystem.kind_in("", "/") is None
    monkeypatch.setattr(filesystem, "_MOUNTS", tmp_path / "absent")
    assert filesystem.kind_of(tmp_path) is None
    filesystem.require_local(tmp_path)


def test_the_table_of_this_machine(small_disk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(small_disk)
    assert filesystem.kind_of(link / "not made yet") == "tmpfs"
    assert filesystem.kind_of(Path("/proc/self")) == "proc"


def test_a_store_is_not_made_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    place = os.path.realpath(tmp_path)
    for kind in ("nfs4", "cifs", "fuse.sshfs"):
        mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {place} rw - {kind} x rw\n")
        with pytest.raises(TaskError) as refused:
            Store(tmp_path).make()
        assert refused.value.code == "network_fs"
        assert kind in refused.value.message
        assert "local disk" in refused.value.hint
        assert not (tmp_path / "opencode-tasks").exists()
    mounts.write_text(f"1 0 0:1 / / rw - nfs4 x rw\n2 1 0:2 / {place} rw - xfs x rw\n")
    assert Store(tmp_path).make()


def _note(store: Store, n: int, *, size: int = 0) -> Task:
    return store.record(ID, ("note.added", {"n": n, "pad": "x" * size}), actor="test")


def _notes(store: Store) -> list[int]:
    return [e.data["n"] for e in store.history(ID) if e.type == "note.added"]


def test_record_on_a_full_disk(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    create(store)
    _note(store, 1)
    path = next(store.layout.log(ID).iterdir())
    before = path.read_bytes(), store.layout.state(ID).read_bytes(), store.get(ID)
    filler = fill(small_disk)
    for hot in (True, False):
        with pytest.raises(TaskError) as refused:
            _note(Store(small_disk, hot=hot), 2, size=10_000)
        assert refused.value.code == "disk_full"
        assert "free space" in refused.value.hint
        assert (path.read_bytes(), store.layout.state(ID).read_bytes(), store.get(ID)) == before
    assert is_consistent(store)
    filler.unlink()
    _note(store, 3, size=10_000)
    assert _notes(store) == [1, 3]
    assert is_consistent(store)


def test_an_event_that_still_fits_is_recorded_although_its_projection_does_not(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    create(store)
    before_b = store.layout.state(ID).read_bytes()
    filler = fill(small_disk)
    assert _note(store, 1).rev == 2
    assert store.layout.state(ID).read_bytes() == before_b
    assert store.get(ID).rev == 2
    assert {p.name for p in store.layout.task(ID).iterdir()} == {"log", "state.json", "plan.md", "decisions.md"}
    filler.unlink()
    _note(store, 2)
    assert _notes(store) == [1, 2]
    assert is_consistent(store)


def test_create_on_a_disk_that_fills_at_any_step(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    refusals = 0
    for pages_left in range(10):
        filler = fill(small_disk, pages_left=pages_left)
        try:
            create(store)
        except TaskError as e:
            assert e.code == "disk_full"  # noqa: PT017 (create succeeds once there is room)
            assert "free space" in e.hint  # noqa: PT017
            assert list(store.layout.store.iterdir()) == []
            refusals += 1
        filler.unlink()
        if store.ids():
            break
    assert refusals >= 3
    assert store.ids() == [ID]
    _note(store, 1)
    assert is_consistent(store)


def test_make_on_a_full_disk(small_disk: Path) -> None:
    filler = fill(small_disk)
    store = Store(small_disk, hot=True)
    with pytest.raises(TaskError) as refused:
        store.make()
    assert refused.value.code == "disk_full"
    filler.unlink()
    store.make()
    assert create(store).id == ID


def test_a_read_only_store_is_read_and_refuses_writes(small_disk: Path) -> None:
    store = Store(small_disk, hot=True)
    store.make()
    task = create(store)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert store.all() == [task]
    assert len(list(store.history(ID))) == 1
    for hot in (True, False):
        writing = Store(small_disk, hot=hot)
        for write in (
            lambda s=writing: _note(s, 1),
            lambda s=writing: create(s, "other-abcdef"),
            lambda s=writing: s.ensure_status(ID, "running", reason="x", actor="test"),
        ):
            with pytest.raises(TaskError) as refused:
                write()
            assert refused.value.code == "read_only"
            assert "writable" in refused.value.hint
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    store.layout.state(ID).write_bytes(b"damaged")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert store.get(ID) == task
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    _note(store, 1)
    assert is_consistent(store)
