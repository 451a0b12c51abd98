"""The container's own files: what runs inside for them, as a process here, and what the host believes of it."""

import io
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from opencode_tasks.containers import handed
from opencode_tasks.containers.layer import _BACK, _KEEP, LayerError, TooLargeError, _Receiving

_PROGRAM = handed.text("opencode_tasks.containers.inside.layer")
_MOST = str(1 << 30)
Seen = dict[str, tuple[int, object]]


def inside(*words: str | Path, stdin_b: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, words)]
    return subprocess.run(argv, input=stdin_b, capture_output=True, check=False, timeout=60)


def kept(*roots: Path) -> tuple[str, bytes]:
    """How it looks, and the archive."""
    head, _, archive_b = inside("keep", "", _MOST, *roots).stdout.partition(b"\n")
    word, looks = head.decode().split()
    assert word == "tar"
    return looks, archive_b


def tree(root: Path) -> Seen:
    """Of each path its mode, and its content, target or None."""
    found: Seen = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        content: object = None
        if stat.S_ISLNK(mode):
            content = path.readlink()
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (mode, content)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With everything that may lie in one."""
    top = tmp_path / "home"
    (top / ".local/bin").mkdir(parents=True)
    (top / ".local/bin/tool").write_text("#!/bin/sh\n")
    (top / ".local/bin/tool").chmod(0o755)
    os.link(top / ".local/bin/tool", top / "hard")
    (top / "dangling").symlink_to("nowhere")
    (top / ("long" * 30)).mkdir()
    (top / ("long" * 30) / "odd\n-name \udcff").write_bytes(b"\0" * 1000)
    (top / "sealed").mkdir()
    (top / "sealed/file").write_text("sealed")
    (top / "sealed").chmod(0o500)
    (top / "token").write_text("secret")
    (top / "token").chmod(0o600)
    return top


def test_all_of_it_goes_out_and_comes_back(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("1")
    before = tree(home)
    looks, archive_b = kept(home, other)
    assert inside("keep", looks, "1", home, other).stdout == b"same\n"
    size = int(inside("keep", "", "10000", home, other).stdout.split()[1])
    assert 10000 < size <= len(archive_b) + 2 * 10240
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(other / "socket"))
    (home / "token").write_text("another")
    (home / ".local/more").mkdir()
    (home / ".local/more/x").write_text("")
    (home / "sealed").chmod(0)
    (home / "dangling").unlink()
    (home / "dangling").mkdir()
    (other / "x").unlink()
    assert kept(home, other)[0] != looks
    done = inside("back", home, other, stdin_b=archive_b)
    assert (done.returncode, done.stderr) == (0, b"")
    # What some process listens at is none of ours.
    assert stat.S_ISFIFO((home / "pipe").lstat().st_mode)
    assert stat.S_ISSOCK((other / "socket").lstat().st_mode)
    (home / "pipe").unlink()
    assert tree(home) == before
    assert (home / "hard").samefile(home / ".local/bin/tool")
    assert (other / "x").read_text() == "1"
    # The same content gives the same bytes, whatever became of inodes and times of change.
    assert kept(home, other)[1] == archive_b


def test_what_a_killed_host_left_behind_does_not_go_on(home: Path) -> None:
    before, (_, archive_b) = tree(home), kept(home)
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, "back", str(home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as left:
        assert left.stdin
        left.stdin.write(archive_b[:5120])
        left.stdin.flush()
        while any(home.iterdir()):
            time.sleep(0.01)
        assert inside("back", home, stdin_b=archive_b).returncode == 0
        assert left.wait(timeout=30) == -signal.SIGKILL
    assert tree(home) == before


def test_files_that_change_while_they_are_read_do_no_harm(home: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        n = 0
        while not ended.is_set():
            n += 1
            (home / "grows").write_bytes(b"x" * (n % 7) * 300_000)
            (home / f"comes{n % 5}").write_text("y")
            (home / f"comes{(n + 2) % 5}").unlink(missing_ok=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            _, archive_b = kept(home)
            with tarfile.open(fileobj=io.BytesIO(archive_b)) as archive:
                names = [info.name for info in archive]
            assert any(name.endswith("/token") for name in names)
            assert len(archive_b) % 10240 == 0
    finally:
        ended.set()
        writer.join()


def test_what_may_not_be_read_is_named_and_the_rest_is_there(home: Path, tmp_path: Path) -> None:
    """As a user who is not root, which no test can be sure to be otherwise."""
    (home / "sealed").chmod(0)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", sys.executable, "-I", "-S", "-c"]
    for path in (home, home / ".local", home / ".local/bin", *tmp_path.parents[:3], tmp_path):
        path.chmod(0o755)
    done = subprocess.run([*argv, _PROGRAM, "keep", "", _MOST, home], capture_output=True, check=True, timeout=60)
    assert b"not included: '" + bytes(home / "token") in done.stderr
    assert b"not included: '" + bytes(home / "sealed'") in done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout.partition(b"\n")[2])) as archive:
        names = [Path(info.name).name for info in archive]
    assert "tool" in names
    assert "token" not in names


def test_a_hostile_archive_stays_in_the_folders(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    at = str(home).lstrip("/")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"evil"))

        add(f"{at}/good")
        add(f"{at}/../outside/file")
        add(f"/{str(outside).lstrip('/')}/file")
        add(f"{str(outside).lstrip('/')}/new")
        add(f"{at}/link", tarfile.SYMTYPE, str(outside))
        add(f"{at}/link/file")
        add(f"{at}/again", tarfile.LNKTYPE, f"{at}/link")
        add(f"{at}/again/file")
        add(f"{at}/hard", tarfile.LNKTYPE, f"{str(outside).lstrip('/')}/file")
        add(f"{at}/device", tarfile.CHRTYPE)
    done = inside("back", home, stdin_b=made.getvalue())
    assert done.returncode == 0
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"file": b"mine"}
    assert (outside / "file").stat().st_nlink == 1
    assert {p.name for p in home.iterdir()} == {"again", "good", "link"}
    assert not (home / "again").is_symlink()
    assert done.stderr.count(b"left out") == 7
    for rubbish_b in (b"no archive" * 100, made.getvalue()[:700], os.urandom(2000)):
        assert inside("back", home, stdin_b=rubbish_b).returncode == 1
        assert (outside / "file").read_text() == "mine"


@pytest.mark.parametrize("script", [_KEEP, _BACK])
def test_an_image_with_neither_python_nor_tar_is_recognised(script: str, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", script, "sh", _PROGRAM, "keep", "", "1", "/x"]
    assert subprocess.run(argv, env={"PATH": str(tmp_path)}, check=False, timeout=60).returncode == 127


@pytest.mark.parametrize(
    ("said_b", "error"),
    [
        (b"rubbish\n", LayerError),
        (b"x" * 1000, LayerError),
        (b"tar ../../etc\n", LayerError),
        (b"tar " + b"a" * 64 + b"\r\n", LayerError),
        (b"same\nand more", LayerError),
        (b"large 99999999\n", TooLargeError),
        (b"large -1\n", LayerError),
        (b"tar -\n" + bytes(4096), TooLargeError),
        (b"", None),
        (b"tar", None),
        (b"tar -\n", None),
        (b"tar -\n" + b"x" * 2048, None),
        (b"tar -\n" + bytes(1025), None),
    ],
)
def test_what_the_container_says_is_not_believed(said_b: bytes, error: type[Exception] | None) -> None:
    for step in (1, 7, 5000):
        written: list[bytes] = []
        receiving = _Receiving(written.append, 3000)
        if error is not None:
            with pytest.raises(error):
                take_all(receiving, said_b, step)
        else:
            take_all(receiving, said_b, step)
            assert not receiving.is_whole
        assert sum(map(len, written)) <= 3000


def take_all(receiving: _Receiving, said_b: bytes, step: int) -> None:
    for at in range(0, len(said_b), step):
        receiving.take(said_b[at : at + step])
