"""One holder at a time, whatever it takes the lock with; a dead one holds nothing."""

import os
import signal
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError
from opencode_tasks.store import locks
from opencode_tasks.store.locks import LockTimeout, locked
from tests.store.conftest import Spawn

_HOLDER = """
from opencode_tasks.store.locks import locked
with locked(Path(sys.argv[3]), hot=store.hot):
    print(os.getpid(), flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

_COUNTER = """
from opencode_tasks.store.locks import locked
path, count = Path(sys.argv[3]), Path(sys.argv[4])
for _ in range(int(sys.argv[5])):
    with locked(path, hot=store.hot):
        n = int(count.read_text())
        os.sched_yield()
        count.write_text(str(n + 1))
"""

_HOT = pytest.mark.parametrize("hot", [True, False], ids=["fcntl", "filelock"])
_HELD_HOT = pytest.mark.parametrize("held_hot", [True, False], ids=["held-by-fcntl", "held-by-filelock"])


@_HOT
@_HELD_HOT
def test_a_timeout_names_the_holder(spawn: Spawn, tmp_path: Path, hot: bool, held_hot: bool) -> None:
    path = tmp_path / "locks" / "x.lock"
    holder = spawn(_HOLDER, str(path), hot=held_hot)
    assert holder.stdout is not None
    pid = holder.stdout.readline().strip()
    with pytest.raises(LockTimeout) as refused, locked(path, timeout_s=0.2, hot=hot):
        pytest.fail("the lock of another process was taken")
    assert refused.value.code == "locked"
    assert isinstance(refused.value, ConflictError)
    assert f"process {pid} (" in refused.value.message
    assert "python" in refused.value.message
    assert str(path) in refused.value.message
    assert refused.value.hint
    holder.communicate("\n", timeout=10)
    assert locks.holder(path) is None
    with locked(path, timeout_s=5, hot=hot):
        assert (locks.holder(path) or "").startswith(f"process {os.getpid()} (")
    assert locks.holder(path) is None


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert locks.holder(tmp_path / "absent.lock") is None


@_HOT
def test_who_waits_gets_the_lock_when_it_is_let_go(spawn: Spawn, tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    with locked(path, hot=hot):
        waiting = spawn(_HOLDER, str(path), hot=hot)
        with pytest.raises(LockTimeout), locked(path, timeout_s=0.05, hot=hot):
            pytest.fail("taken twice")
    assert waiting.stdout is not None
    assert waiting.stdout.readline().strip() == str(waiting.pid)


@_HOT
def test_a_timeout_leaves_nothing_open(tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    with locked(path, hot=hot):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(LockTimeout), locked(path, timeout_s=0.01, hot=hot):
                pytest.fail("taken twice")
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@_HOT
def test_a_dead_holder_holds_nothing_and_a_stopped_one_does(spawn: Spawn, tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    holder = spawn(_HOLDER, str(path), hot=hot)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(LockTimeout), locked(path, timeout_s=0.1, hot=not hot):
        pytest.fail("a stopped process lost its lock")
    holder.kill()
    with locked(path, timeout_s=5, hot=not hot):
        pass


def test_both_kinds_exclude_each_other(spawn: Spawn, tmp_path: Path) -> None:
    path, count = tmp_path / "x.lock", tmp_path / "count"
    count.write_text("0")
    processes = [spawn(_COUNTER, str(path), str(count), "100", hot=hot) for hot in (True, False, True, False)]
    for process in processes:
        process.communicate(timeout=50)
        assert process.returncode == 0
    assert count.read_text() == "400"


@_HOT
def test_the_lock_file_stays(tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    with locked(path, hot=hot):
        inode = path.stat().st_ino
    with locked(path, hot=not hot):
        assert path.stat().st_ino == inode
    assert path.stat().st_mode & 0o077 == 0


@_HOT
def test_released_when_the_body_fails(tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    with pytest.raises(ValueError, match="body"), locked(path, hot=hot):
        raise ValueError("body")
    with locked(path, timeout_s=0.1, hot=hot):
        pass


@_HOT
def test_a_link_in_its_place_is_not_followed(tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), locked(path, hot=hot):
        pytest.fail("a link was followed")
    assert not (tmp_path / "precious").exists()


@_HOT
def test_the_children_of_a_holder_do_not_keep_its_lock(spawn: Spawn, tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    script = """
import subprocess
from opencode_tasks.store.locks import locked
with locked(Path(sys.argv[3]), hot=store.hot):
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, close_fds=False)
    print(child.pid, flush=True)
    sys.stdin.readline()
"""
    holder = spawn(script, str(path), hot=hot)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    holder.kill()
    try:
        with locked(path, timeout_s=5, hot=True):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
