"""Big files come back byte by byte, are kept once, and whatever happens meanwhile loses nothing."""

import errno
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from opencode_tasks.checkpoints import chunk_restore, chunk_sweep, cutting
from opencode_tasks.checkpoints.chunk_folder import ChunkFolder, UnsoundError
from opencode_tasks.checkpoints.chunks import Big, Chunks
from opencode_tasks.errors import TaskError
from tests.conftest import run
from tests.store.faults import Fault, attempt, in_memory

MIB = 1 << 20
NAME = "deep/big"

# Under xdist; what is forked here uses nothing that the other thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")


@dataclass(frozen=True)
class Place:
    """A workspace with one big file, and a folder for its pieces."""

    path: Path

    @property
    def top(self) -> Path:
        return self.path / "top"

    @property
    def file(self) -> Path:
        return self.top / NAME

    @property
    def folder(self) -> Path:
        return self.path / "new" / "chunks"

    @property
    def chunks(self) -> Chunks:
        return Chunks(self.folder)

    def write(self, content_b: bytes, mode: int = 0o644) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(content_b)
        self.file.chmod(mode)

    def put(self, was: Big | None = None) -> Big:
        return self.chunks.put(self.top, NAME, was=was)

    def restore(self, big: Big, now: Big | None = None) -> None:
        self.chunks.restore(big, self.top, NAME, now=now)

    def names(self) -> list[str]:
        """What lies beside the file: no more than it."""
        return sorted(path.name for path in self.file.parent.iterdir())

    def temps(self) -> list[Path]:
        return list((self.folder / "temp").iterdir())

    def chunk_files(self) -> list[Path]:
        return sorted((self.folder / "chunks").iterdir())


@pytest.fixture
def place() -> Iterator[Place]:
    with in_memory(free_bytes=1 << 28) as made:
        yield Place(made)


@cache
def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def _edit(luck: random.Random, content_b: bytes) -> bytes:
    """Overwritten, inserted, taken out, moved, zeroed, cut off, grown: what programs do to big files."""
    at = luck.randrange(len(content_b) + 1)
    length = luck.choice((1, 4096, 70_000, MIB))
    new = luck.choice((luck.randbytes(length), bytes(length), content_b[:length]))
    return luck.choice(
        (
            content_b[:at] + new + content_b[at + length :],
            content_b[:at] + new + content_b[at:],
            content_b[:at] + content_b[at + length :],
            content_b[at:] + content_b[:at],
            content_b[: at // 65536 * 65536] + bytes(2 * MIB) + content_b[at:],
        )
    )[: 12 * MIB]


def test_every_state_comes_back_and_is_cut_as_if_it_were_the_first(place: Place) -> None:
    luck = random.Random(7)
    content_b = noise(3 * MIB) + bytes(3 * MIB) + b"repeated line\n" * 100_000 + noise(2 * MIB, 1)
    states: dict[Big, bytes] = {}
    last: Big | None = None
    for n in range(24):
        place.write(content_b, 0o640)
        big = place.put(last)
        assert (big.size, big.mode) == (len(content_b), 0o640)
        fresh = Chunks(place.path / f"fresh-{n}").put(place.top, NAME)
        assert fresh == big
        states[big] = content_b
        last = big
        content_b = _edit(luck, content_b)
    assert Big(**json.loads(json.dumps(vars(big)))) == big
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    (place.top / "deep" / "big").chmod(0o600)
    now = last
    for big in luck.sample(list(states), len(states)):
        place.restore(big, now if luck.random() < 0.7 else None)
        assert place.file.read_bytes() == states[big]
        assert stat.S_IMODE(place.file.stat().st_mode) == 0o640
        assert place.put(now) == big
        now = big
    assert place.chunks.verify(states) == []
    assert (place.names(), place.temps()) == (["big"], [])


def test_a_cut_moves_where_what_it_depends_on_has_changed(place: Place) -> None:
    """However little that is: a first reading and one that knows the earlier state agree."""
    content_b = noise(6 * MIB) + bytes(MIB) + noise(3 * MIB, 1)
    place.write(content_b)
    first = place.put()
    pieces, at = ChunkFolder(place.folder).read_list(first.digest), 0
    assert len(pieces) > 8
    states = [content_b[: 6 * MIB] + b"x" + content_b[6 * MIB + 1 :]]
    for length, _ in pieces[:-1]:
        at += length
        states.append(content_b[:at] + bytes([content_b[at] ^ 1]) + content_b[at + 1 :])
        states.append(content_b[: at - 1] + bytes([content_b[at - 1] ^ 1]) + content_b[at:])
    # Zeros in which no whole block lies, until they are moved.
    there = content_b[: 4 * MIB + 32768] + bytes(90_000) + content_b[4 * MIB + 122_768 :]
    states += [there, noise(32768, 2) + there, there]
    was = first
    for n, state_b in enumerate(states):
        place.write(state_b)
        now = place.put(first if n < len(states) - 3 else was)
        assert now == Chunks(place.path / "other").put(place.top, NAME)
        was = now


@pytest.mark.parametrize("at", [0, 6 * MIB + 17, 12 * MIB], ids=["front", "middle", "end"])
def test_only_what_is_new_is_kept(place: Place, at: int) -> None:
    content_b = noise(12 * MIB)
    place.write(content_b)
    first = place.put()
    used_b = place.chunks.used_b()
    assert len(content_b) < used_b < 1.01 * len(content_b)
    assert place.put(first) == place.put() == first
    assert place.chunks.used_b() == used_b
    place.write(content_b[:at] + noise(MIB, 1) + content_b[at:])
    assert place.put(first) != first
    assert place.chunks.used_b() - used_b < 4 * MIB
    place.write(b"compressible " * MIB)
    used_b = place.chunks.used_b()
    place.put()
    assert place.chunks.used_b() - used_b < MIB // 4


def test_zeros_cost_nothing_whether_the_disk_has_them_or_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write(b"")
    with place.file.open("r+b") as f:
        f.truncate(1 << 40)
        f.seek(1 << 39)
        f.write(b"in the middle")
    big = place.put()
    assert place.chunks.used_b() < MIB // 4
    place.write(b"other")
    place.restore(big)
    found = place.file.stat()
    assert (found.st_size, found.st_blocks < 2048) == (1 << 40, True)
    with place.file.open("rb") as f:
        f.seek((1 << 39) - 1)
        assert f.read(15) == b"\0in the middle\0"
    place.write(bytes(9 * MIB + 5))
    written = place.put()
    with place.file.open("wb") as f:
        f.truncate(9 * MIB + 5)
    assert place.put(big) == written


def _refusal(call: Callable[[], object]) -> TaskError:
    with pytest.raises(TaskError) as e:
        call()
    assert e.value.hint
    return e.value


def test_nothing_is_read_or_written_through_a_link_and_nothing_waits(place: Place) -> None:
    place.write(noise(MIB))
    big = place.put()
    outside = place.path / "outside"
    outside.mkdir()
    (outside / "big").write_text("secret\n")
    chunks, top, deep = place.chunks, place.top, place.file.parent
    place.file.unlink()
    stands: dict[str, Callable[[], object]] = {
        "link": lambda: place.file.symlink_to(outside / "big"),
        "pipe": lambda: os.mkfifo(place.file),
        "folder": place.file.mkdir,
        "nothing": lambda: None,
    }
    used_b = chunks.used_b()
    for kind, make in stands.items():
        make()
        assert _refusal(place.put).code == "unreadable"
        if kind == "folder":
            assert _refusal(lambda: place.restore(big)).code == "collision"
            place.file.rmdir()
        else:
            place.restore(big)
            assert (place.file.is_symlink(), place.file.read_bytes() == noise(MIB)) == (False, True)
            place.file.unlink()
    with socket.socket(socket.AF_UNIX) as s:
        os.chdir(deep)
        s.bind("big")
        os.chdir("/")
    assert _refusal(place.put).code == "unreadable"
    shutil.rmtree(deep)
    deep.symlink_to(outside)
    assert _refusal(place.put).code == "unreadable"
    assert _refusal(lambda: place.restore(big)).code == "workspace"
    deep.unlink()
    assert _refusal(lambda: place.restore(big)).code == "workspace"
    assert _refusal(lambda: chunks.put(top / "gone", "big")).code == "workspace"
    assert ([path.name for path in outside.iterdir()], (outside / "big").read_text()) == (["big"], "secret\n")
    assert (chunks.used_b(), place.temps()) == (used_b, [])


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    place: Place, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(noise(5 * MIB))
    first = place.put()
    real, lock = cutting.read_into, threading.Lock()
    left = 0

    def disturbed(fd: int, view: memoryview, at: int) -> int:
        nonlocal left
        with lock:
            left -= 1
            if left >= 0:
                with place.file.open("r+b") as f:
                    if change == "shrinks":
                        f.truncate(place.file.stat().st_size - 70_000)
                    else:
                        f.seek(0, os.SEEK_END if change == "grows" else os.SEEK_SET)
                        f.write(noise(1000, left))
        return real(fd, view, at)

    monkeypatch.setattr(cutting, "read_into", disturbed)
    for was in (None, first):
        left = 1
        big = place.put(was)
        content_b = place.file.read_bytes()
        left = 0
        place.write(b"")
        place.restore(big)
        assert place.file.read_bytes() == content_b
    left = 1 << 30
    assert _refusal(place.put).code == "changing"
    assert _refusal(lambda: place.put(first)).code == "changing"
    assert place.temps() == []


def test_a_disk_that_cannot_be_read_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(noise(3 * MIB))
    big = place.put()

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    for was in (None, big):
        assert _refusal(lambda: place.put(was)).code == "unreadable"  # noqa: B023
    place.restore(big)  # from the chunks, then
    assert place.file.read_bytes() == noise(3 * MIB)


def test_bytes_are_on_the_disk_before_they_have_their_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int, str]] = []
    real: dict[str, Callable[..., object]] = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}

    def fsync(fd: int) -> None:
        done.append(("fsync", os.fstat(fd).st_ino, ""))
        real["fsync"](fd)

    def named(how: str, old: Path, new: Path, **options: int) -> None:
        found = os.stat(old, dir_fd=options.get("src_dir_fd"))
        done.append(("named", found.st_ino, Path(new).name))
        real[how](old, new, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    for how in ("replace", "rename"):
        monkeypatch.setattr(os, how, partial(named, how))
    place.write(noise(3 * MIB))
    big = place.put()
    place.restore(big)
    synced = {inode: n for n, (kind, inode, _) in reversed(list(enumerate(done))) if kind == "fsync"}
    given = {name: (n, inode) for n, (kind, inode, name) in enumerate(done) if kind == "named"}
    chunks = {path.name for path in place.chunk_files()}
    assert set(given) == {*chunks, big.digest, "big"}
    assert all(synced[inode] < n for n, inode in given.values())
    in_chunks, in_lists, in_deep = (
        synced[folder.stat().st_ino] for folder in (place.folder / "chunks", place.folder / "lists", place.file.parent)
    )
    assert max(given[name][0] for name in chunks) < in_chunks < given[big.digest][0] < in_lists
    assert given["big"][0] < in_deep


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB. Needs root, as the private engine does."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], cwd=tmp_path)
    try:
        yield disk
    finally:
        run(["umount", "--lazy", disk], cwd=tmp_path)


def test_a_full_disk_is_said_and_nothing_is_lost(small_disk: Path) -> None:
    place = Place(small_disk)
    place.write(noise(7 * MIB))
    first = place.put()
    place.write(noise(10 * MIB, 1))
    for call in (place.put, lambda: place.restore(first)):
        refused = _refusal(call)
        assert (refused.code, "free space" in refused.hint) == ("disk_full", True)
        assert place.file.read_bytes() == noise(10 * MIB, 1)
        assert (place.names(), place.temps()) == (["big"], [])
    assert place.chunks.verify([first]) == []
    place.file.unlink()
    place.restore(first)
    assert place.file.read_bytes() == noise(7 * MIB)


def test_a_flipped_bit_is_found_named_and_mended(place: Place) -> None:
    content_b = noise(4 * MIB)
    place.write(content_b)
    big = place.put()
    place.write(noise(3 * MIB, 1))
    other = place.put()
    bad, gone, *_ = (
        path for path in place.chunk_files() if place.chunks.verify([big]) == [] and _is_of(place, big, path)
    )
    luck = random.Random(1)
    whole_b = bad.read_bytes()
    for _ in range(30):
        harmed = bytearray(whole_b)
        harmed[luck.choice((luck.randrange(12), luck.randrange(len(harmed))))] ^= 1 << luck.randrange(8)
        bad.write_bytes(luck.choice((bytes(harmed), whole_b[: luck.randrange(len(whole_b))])))
        refused = _refusal(lambda: place.restore(big))
        assert (refused.code, bad.name in refused.message, "verify" in refused.hint) == ("damaged", True, True)
        assert (place.file.read_bytes(), place.names()) == (noise(3 * MIB, 1), ["big"])
    gone.unlink()
    found = place.chunks.verify([big, other, big])
    assert {(p.big, p.name, p.what) for p in found} == {(big, bad.name, "damaged"), (big, gone.name, "missing")}
    assert len(found) == 2
    # The pieces that are needed are in the present file.
    place.write(content_b)
    place.restore(big)
    assert place.file.read_bytes() == content_b
    # And whoever has their bytes again writes them again.
    assert place.put(big) == big
    assert place.chunks.verify([big, other]) == []
    place.write(b"")
    place.restore(big)
    assert place.file.read_bytes() == content_b
    listed = place.folder / "lists" / big.digest
    listed.write_bytes(listed.read_bytes()[:-40])
    assert [(p.name, p.what) for p in place.chunks.verify([big])] == [(big.digest, "damaged")]
    assert big.digest in _refusal(lambda: place.restore(big)).message
    with pytest.raises(UnsoundError):
        place.chunks.sweep([big], older_than_s=0)
    assert place.put(big) == big
    assert place.chunks.verify([big, other]) == []
    for forged in (Big(big.size + 1, big.digest, 0o644), Big(1, "../../../etc/passwd", 0o644), Big(1, "", 0o644)):
        assert _refusal(partial(place.restore, forged)).code == "damaged"


def _is_of(place: Place, big: Big, chunk: Path) -> bool:
    return bytes.fromhex(chunk.name) in (place.folder / "lists" / big.digest).read_bytes()


def _forked(count: int, call: Callable[[int], object]) -> None:
    """All at once, each in a process of its own."""
    begin, ready = os.pipe()
    pids = []
    for n in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(ready)
                os.read(begin, 1)
                call(n)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(ready)
    os.close(begin)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * count


def test_six_at_once_keep_it_once(place: Place) -> None:
    place.write(noise(8 * MIB))
    alone = Chunks(place.path / "alone").put(place.top, NAME)

    def put(n: int) -> None:
        for _ in range(3):
            assert place.put() == alone
            if n == 5:
                place.chunks.sweep([], older_than_s=3600)

    _forked(6, put)
    assert place.chunks.verify([alone]) == []
    assert place.temps() == []
    assert place.chunks.used_b() < 1.01 * 8 * MIB


def _age(place: Place) -> None:
    for path in place.folder.glob("*/*"):
        os.utime(path, (1, 1))


def test_a_sweep_removes_what_nobody_names(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.chunks.sweep([], older_than_s=0) == 0
    assert not place.folder.exists()
    bigs = []
    for n in range(3):
        place.write(noise(2 * MIB) + noise(2 * MIB, 10 + n))
        bigs.append(place.put())
    used_b = place.chunks.used_b()
    assert place.chunks.sweep([], older_than_s=3600) == 0
    _age(place)
    (place.folder / "temp" / "left by a killed one").write_bytes(bytes(MIB))
    freed_b = place.chunks.sweep(bigs[:1], older_than_s=3600)
    assert place.chunks.used_b() == used_b + MIB - freed_b
    assert 4 * MIB < freed_b < 6 * MIB
    assert place.chunks.verify(bigs[:1]) == []
    assert {p.big for p in place.chunks.verify(bigs)} == set(bigs[1:])
    # What is put while it sweeps stays, though its chunks are old and were not marked.
    _age(place)
    real = chunk_sweep._alone
    place.write(noise(2 * MIB) + noise(2 * MIB, 10))

    def alone(folder: object) -> object:
        assert place.put() == bigs[0]
        return real(folder)  # type: ignore[arg-type]

    monkeypatch.setattr(chunk_sweep, "_alone", alone)
    assert place.chunks.sweep([], older_than_s=0) == 0
    assert place.chunks.verify(bigs[:1]) == []
    # And while somebody puts, nothing goes.
    monkeypatch.setattr(chunk_sweep, "_alone", real)
    monkeypatch.setattr(chunk_sweep, "_PATIENCE_S", 0.01)
    _age(place)
    during: list[int] = []
    really = cutting.read_into

    def read(fd: int, view: memoryview, at: int) -> int:
        during.append(place.chunks.sweep([], older_than_s=0))
        return really(fd, view, at)

    monkeypatch.setattr(cutting, "read_into", read)
    assert place.put(bigs[0]) == bigs[0]
    assert set(during) == {0}
    assert place.chunks.verify(bigs[:1]) == []
    _age(place)
    assert place.chunks.sweep([], older_than_s=0) > 0
    assert place.chunks.used_b() < MIB // 4


# At every change to the disk


@dataclass(frozen=True)
class Scene:
    """A file of two states: `kept` is the older one, `present` what is there now, `doomed` what nobody names."""

    place: Place
    kept: Big
    doomed: Big

    @property
    def present_b(self) -> bytes:
        return noise(MIB) + noise(MIB, 1)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with in_memory() as made:
        place = Place(made)
        place.write(noise(2 * MIB, 2))
        doomed = place.put()
        place.write(noise(MIB))
        kept = place.put()
        _age(place)
        place.write(noise(MIB) + noise(MIB, 1))
        yield Scene(place, kept, doomed)


def _put(scene: Scene, place: Place) -> None:
    place.put(scene.kept)


def _restore(scene: Scene, place: Place) -> None:
    place.restore(scene.kept)


def _restore_by_name(scene: Scene, place: Place) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(os, "O_TMPFILE")
        place.restore(scene.kept)


def _sweep(scene: Scene, place: Place) -> None:
    place.chunks.sweep([scene.kept], older_than_s=60)


# Of a write by half, only what writes can know.
CASES: list[tuple[Callable[[Scene, Place], None], Fault]] = [
    *((_put, fault) for fault in ("ENOSPC", "short", "broken", "torn", "before")),
    *((done, fault) for done in (_restore, _restore_by_name, _sweep) for fault in ("EIO", "broken", "before")),
]


@pytest.mark.parametrize(("operation", "fault"), CASES)
def test_at_every_change_to_the_disk(scene: Scene, operation: Callable[[Scene, Place], None], fault: Fault) -> None:
    with in_memory() as stage:
        for at in range(1, 200):
            place = Place(stage / f"at-{at}")
            shutil.copytree(scene.place.path, place.path)
            ended = attempt(partial(operation, scene, place), lambda: None, at=at, fault=fault)
            assert "BUG" not in ended.raised
            _check(scene, place, operation, done=ended.done, may_leave=ended.went_on is None or fault == "broken")
            shutil.rmtree(place.path)
            if not ended.reached:
                break
    assert ended.done
    assert at > 4


def _check(
    scene: Scene, place: Place, operation: Callable[[Scene, Place], None], *, done: bool, may_leave: bool
) -> None:
    found_b = place.file.read_bytes()
    restored = operation in (_restore, _restore_by_name)
    assert found_b == scene.present_b or (restored and found_b == noise(MIB))
    assert place.chunks.verify([scene.kept]) == []
    if done and restored:
        assert found_b == noise(MIB)
    left = [name for name in place.names() if name != "big"]
    assert len(left) <= may_leave
    assert all(name.startswith(chunk_restore.TEMPORARY) for name in left)
    if done and operation is _sweep:
        assert place.chunks.used_b() < 1.2 * MIB
    place.write(scene.present_b)
    present = place.put(scene.kept)
    assert place.chunks.verify([scene.kept, present]) == []
    place.chunks.sweep([scene.kept, present], older_than_s=60)
    assert place.temps() == []
    assert place.chunks.used_b() < 3.5 * MIB
    place.restore(scene.kept, present)
    assert place.file.read_bytes() == noise(MIB)


# What it costs those who have no big files, and those who have


_MEASURED = """
import json, resource, sys
from pathlib import Path
from opencode_tasks.checkpoints.chunks import Chunks
lazy = [name for name in ("pyfastcdc", "zstandard", "blake3", "concurrent.futures") if name in sys.modules]
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
big = Chunks(path / "chunks").put(path, "big")
(path / "big").write_bytes(b"")
Chunks(path / "chunks").restore(big, path, "big")
print(json.dumps([lazy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_nothing_is_imported_early_and_memory_is_bounded(place: Place) -> None:
    for n in range(12):
        with (place.path / "big").open("ab") as f:
            f.write(noise(8 * MIB, n))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _MEASURED, str(place.path)], capture_output=True, text=True, check=True, timeout=60
    )
    imported, more_kib = json.loads(done.stdout)
    assert imported == []
    assert more_kib < 64 * 1024
