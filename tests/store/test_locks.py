import os
import time
from pathlib import Path

import pytest

from opencode_tasks.errors import ConflictError
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
    started = time.monotonic()
    with pytest.raises(LockTimeout) as refused, locked(path, timeout_s=0.2, hot=hot):
        pytest.fail("the lock of another process was taken")
    assert 0.2 <= time.monotonic() - started < 5
    assert refused.value.code == "locked"
    assert isinstance(refused.value, ConflictError)
    assert f"process {pid}" in refused.value.message
    assert str(path) in refused.value.message
    assert refused.value.hint
    holder.communicate("\n", timeout=10)
    with locked(path, timeout_s=5, hot=hot):
        assert path.with_suffix(".holder").read_text() == f"process {os.getpid()}\n"


@_HOT
def test_a_dead_holder_holds_nothing(spawn: Spawn, tmp_path: Path, hot: bool) -> None:
    path = tmp_path / "x.lock"
    holder = spawn(_HOLDER, str(path), hot=hot)
    assert holder.stdout is not None
    holder.stdout.readline()
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
