"""`kill -9` before every step of taking, restoring and upkeep: nothing is lost, and the next call goes on.

`--kills` says how many kills there are; what the steps are is found by killing before each until none is left.
"""

import itertools
import random

import pytest

from opencode_tasks.checkpoints import snapshot, verifying, walk
from opencode_tasks.git import discovery
from tests.checkpoints.workspace import Contents, Work
from tests.commands.conftest import dies_before

_SMALL = "from opencode_tasks.checkpoints import walk\nwalk.BIG_B = 1 << 20\n"
_STEPS = ("subprocess.Popen.__init__", "os.rename", "os.link", "os.unlink", "os.fsync", "os.rmdir", "os.fchmod")


def edit(work: Work, dice: random.Random) -> None:
    """A file, a folder, a link, a repository inside, a big one: each may be any of them, or gone."""
    for name in ("a", "folder/b", "folder/c", "nested/d", "big.bin"):
        path = work.top / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        kind = dice.random()
        if kind < 0.2:
            continue
        if kind < 0.35:
            path.symlink_to("nowhere")
            continue
        size_b = 1_200_000 if name == "big.bin" and kind > 0.6 else 20
        path.write_bytes(dice.randbytes(10) * (size_b // 10))
        path.chmod(0o600 if kind > 0.8 else 0o644)


def modes(work: Work) -> dict[str, int]:
    return {str(p): p.lstat().st_mode for p in work.top.rglob("*") if ".git" not in p.parts and not p.is_dir()}


def killed_until_done(work: Work, begin: int, stride: int, *words: str) -> int:
    """How often it was."""
    for kills, step in enumerate(itertools.count(begin, stride)):
        if not dies_before(work.repo, step, _STEPS, *words, first=_SMALL):
            return kills
    raise AssertionError("unreachable")


@pytest.fixture
def small(work: Work, monkeypatch: pytest.MonkeyPatch) -> Work:
    """With a repository inside, and files that count as big from 1 MiB on, in every process."""
    monkeypatch.setattr(walk, "BIG_B", 1 << 20)
    work.repo.commit("files", a="1\n", **{"folder/b": "2\n"})
    work.repo.git("init", "-q", "nested")
    return work


def test_before_every_step(small: Work, pytestconfig: pytest.Config) -> None:
    dice = random.Random(7)
    known: dict[str, Contents] = {}
    kills, wanted = 0, int(pytestconfig.getoption("--kills"))
    stride = 1 if wanted > 100 else 4
    for turn in itertools.count():
        edit(small, dice)
        now, looked = small.contents(), modes(small)
        kills += killed_until_done(small, dice.randrange(stride), stride, "checkpoint", "-m", f"t{turn}")
        assert small.contents() == now
        assert modes(small) == looked
        known[f"t{turn}"] = now
        edit(small, dice)
        before = small.contents()
        target = dice.choice(list(known))
        there = len(snapshot.listed(small.store, small.task.id))
        kills += killed_until_done(small, dice.randrange(stride), stride, "restore-checkpoint", target)
        assert small.contents() == known[target]
        # What was there before the first kill is in a checkpoint.
        made = snapshot.listed(small.store, small.task.id)[there:]
        first = next(c for c in made if c.kind == "pre-restore")
        small.back(first)
        assert small.contents() == before
        kills += killed_until_done(small, dice.randrange(stride), stride, "checkpoint", "--gc")
        if kills >= wanted:
            break
    found = snapshot.listed(small.store, small.task.id)
    assert verifying.objects(small.store, discovery.find(small.top, {}), small.task.id, found) == []
    for label, contents in known.items():
        small.back(snapshot.named(small.store, small.task, label))
        assert small.contents() == contents
