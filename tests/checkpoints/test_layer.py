"""The container's own files in checkpoints, with the real engine."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from opencode_tasks.checkpoints import layer, snapshot, upkeep
from opencode_tasks.checkpoints.layer import Layer
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.checkpoints.snapshot import Checkpoint
from opencode_tasks.containers.images import FOUNDATION
from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery
from opencode_tasks.store import Store
from tests.checkpoints.workspace import Work
from tests.commands.conftest import dies_before
from tests.commands.test_exec import executions, shell
from tests.conftest import Ran, Repo

_INSTALL = """
mkdir -p ~/.local/bin && printf '#!/bin/sh\necho works\n' > ~/.local/bin/tool && chmod 755 ~/.local/bin/tool
ln -s tool ~/.local/bin/link && echo scratch > /tmp/scratch && echo token > ~/.token && chmod 600 ~/.token
"""
_STOPPING = """
import os, signal
while True:
    for n in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{n}/cmdline", "rb") as f:
                if b"containers.inside.layer" in f.read():
                    os.kill(int(n), signal.SIGSTOP)
        except OSError:
            pass
"""
_STATE = "cd && find . /tmp -xdev ! -type d ! -path '*/repo/*' | sort && cat .local/bin/* .token /tmp/scratch"


@pytest.fixture
def live(live_repo: Repo) -> Repo:
    live_repo.git("checkout", "-q", "-b", "task/one", env={"OPENCODE_TASKS_CONTAINER_AUTOSTART": "false"})
    return live_repo


def taken(repo: Repo, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = repo.tasks("checkpoint", "--container", "--json", *words).json
    return found


def listed(repo: Repo) -> dict[str, Any]:
    return {c["id"]: c["container"] for c in repo.tasks("checkpoint", "--list", "--json").json["checkpoints"]}


def state(repo: Repo) -> str:
    return shell(repo, _STATE, check=False).out


def refused(ran: Ran) -> dict[str, str]:
    assert ran.code == 1, ran
    found: dict[str, str] = ran.json["error"]
    return found


def restore(repo: Repo, *words: str, check: bool = True) -> Ran:
    return repo.tasks("restore-checkpoint", "--json", *words, check=check)


def test_what_was_installed_comes_back_and_goes_again(live: Repo, client: docker.DockerClient) -> None:
    shell(live, _INSTALL)
    installed, ran = state(live), len(executions(live))
    live.write("file", "1\n")
    made = taken(live)
    assert made["container"]["kept"]
    assert made["container"]["size_bytes"] >= 10240
    assert len(executions(live)) == ran, "nobody's commands"
    again = live.tasks("checkpoint", "--container")
    assert again.out == f"{made['id']}: nothing has changed since\n"
    shell(live, "rm -rf ~/.local ~/.token /tmp/scratch; echo new > ~/new; sleep 1000 > ~/open & ")
    live.write("file", "2\n")
    destroyed = state(live)
    assert destroyed != installed
    shown = restore(live, made["id"], "--dry-run").json
    assert shown["container"]["restored"] is None
    assert state(live) == destroyed
    back = restore(live, made["id"]).json
    assert back["container"] == {"size_bytes": made["container"]["size_bytes"], "restored": True, "why": None}
    assert state(live) == installed
    assert shell(live, "~/.local/bin/link; stat -c %a ~/.token").out == "works\n600\n"
    assert (live.top / "file").read_text() == "1\n"
    restore(live, "--undo")
    assert state(live) == destroyed
    assert (live.top / "file").read_text() == "2\n"
    # Only the workspace's.
    for words in (["--no-container"], ["--path", "file"]):
        assert restore(live, made["id"], *words).json["container"]["restored"] is False
        assert state(live) == destroyed
    restore(live, "--memory-only", made["id"])
    assert state(live) == destroyed
    assert "container's own files" in live.tasks("task-history").out
    # In a container that does not run there is nothing; and from nothing a new one is filled.
    client.containers.get(f"opencode-task-{live.only_id()}").stop(timeout=0)
    error = refused(live.tasks("checkpoint", "--container", "--json", check=False))
    assert error["code"] == "not_running"
    assert live.tasks("checkpoint", "-m", "files", "--json").json["container"] is None
    nowhere = Repo(live.top, {**live.env, "DOCKER_HOST": "unix:///nowhere.sock"})
    left = restore(nowhere, made["id"]).json["container"]
    assert (left["restored"], "engine" in left["why"]) == (False, True)
    assert restore(live, made["id"]).json["container"]["restored"] is True
    assert state(live) == installed
    # What is damaged is told before anything has changed.
    live.write("file", "3\n")
    shell(live, "echo more > ~/.token")
    chunks = Store(live.common).layout.checkpoints_git / "big" / "chunks"
    kept_b = {path: path.read_bytes() for path in chunks.iterdir()}
    for path in kept_b:
        path.write_bytes(b"x")
    assert "damaged" in live.tasks("checkpoint", "--verify", check=False).out
    error = refused(restore(live, made["id"], check=False))
    assert (error["code"], "--no-container" in error["hint"]) == ("damaged", True)
    assert (live.top / "file").read_text() == "3\n"
    assert shell(live, "cat ~/.token").out == "more\n"
    for path, content_b in kept_b.items():
        path.write_bytes(content_b)
    assert live.tasks("checkpoint", "--verify").code == 0


def test_limits_what_is_kept_by_itself_and_how_many(live: Repo) -> None:
    small = Repo(live.top, {**live.env, "OPENCODE_TASKS_CHECKPOINT_LAYER": "1m"})
    off = Repo(live.top, {**live.env, "OPENCODE_TASKS_CHECKPOINT_LAYER_AUTOMATIC": "off"})
    auto = Repo(live.top, {**live.env, "OPENCODE_TASKS_CHECKPOINT_AUTOMATIC": "risky"})
    shell(live, "echo 1 > ~/state; head -c 2m /dev/urandom > /tmp/big")
    before = len(listed(live))
    assert refused(small.tasks("checkpoint", "--container", "--json", check=False))["code"] == "too_large"
    assert len(listed(live)) == before
    assert small.tasks("checkpoint", "-m", "too much", "--json").json["container"] is None
    assert off.tasks("checkpoint", "-m", "unasked", "--json").json["container"] is None
    # Before what destroys; then nobody needs to be told that no checkpoint undoes that.
    live.write("file", "1\n")
    ran = auto.tasks("exec", "--", "sh", "-c", "rm -rf ~/state")
    assert "no checkpoint undoes" not in ran.err
    (first,) = [one for one, container in listed(live).items() if container]
    # What is there now has to be kept first.
    assert refused(Repo(live.top, small.env).tasks("restore-checkpoint", first, "--json", check=False))["code"] == (
        "too_large"
    )
    restore(live, first)
    assert shell(live, "cat ~/state; stat -c %s /tmp/big").out == f"1\n{2 << 20}\n"
    # Somebody who writes all the time, and one who never answers.
    shell(live, "(while :; do echo x >> ~/log; mkdir -p ~/d/e; mv ~/d ~/f; rm -rf ~/f; done) >/dev/null 2>&1 &")
    assert taken(live, "-m", "busy")["container"]["kept"]
    shell(live, "pkill -f 'echo [x]'; rm -rf ~/log")
    (live.top / "stopping.py").write_text(_STOPPING)
    shell(live, "python3 stopping.py >/dev/null 2>&1 & sleep 0.5")
    impatient = "from opencode_tasks.containers import quiet\nquiet._SILENT_S = 1.5\n"
    stuck = live.tasks("checkpoint", "--container", "--json", before=impatient, check=False)
    assert refused(stuck)["code"] == "layer_failed"
    shell(live, "pkill -f [s]topping.py")
    (live.top / "stopping.py").unlink()
    # Three states, the newest and those that somebody wanted longest; one that several have counts once.
    made = []
    for n in range(4):
        shell(live, f"echo {n} > ~/state")
        made.append(taken(live, "-m", f"n{n}")["id"])
        taken(live, "-m", f"again{n}")
    found = listed(live)
    assert [found[one]["kept"] for one in (first, *made)] == [False, False, True, True, True]
    assert "are gone" in live.tasks("checkpoint", "--list").out
    gone = restore(live, made[0]).json["container"]
    assert (gone["restored"], "no longer" in gone["why"]) == (False, True)
    assert shell(live, "cat ~/state").out == "3\n"
    store = Store(live.common)
    upkeep.sweep_big(store, Shadow(store, "upkeep", discovery.find(live.top, {})), older_than_s=0)
    lists = store.layout.checkpoints_git / "big" / "lists"
    held = {one.layer.digest for one in snapshot.listed(store, live.only_id()) if one.layer}
    assert {path.name for path in lists.iterdir()} == held
    assert len(held) == layer.KEPT
    assert live.tasks("checkpoint", "--verify").code == 0


def test_an_image_without_python_has_tar(live: Repo) -> None:
    (live.top / ".opencode" / "tasks.toml").write_text(f'[container]\nimage = "{FOUNDATION}"\n')
    shell(live, _INSTALL + "touch ~/'odd name' ~/'-dash'; mkdir -m 500 ~/sealed")
    installed = state(live)
    made = taken(live)
    assert made["container"]["kept"]
    assert taken(live)["id"] == made["id"], "the same content"
    shell(live, "rm -rf ~/.local ~/.token /tmp/scratch ~/-dash; mkdir ~/.token; echo new > ~/new")
    restore(live, made["id"])
    assert state(live) == installed
    assert shell(live, "~/.local/bin/link; stat -c %a ~/sealed").out == "works\n500\n"


_FIRST = """
from opencode_tasks.checkpoints import layer
from opencode_tasks.checkpoints.chunk_folder import ChunkFolder
from opencode_tasks.containers import layer as inside
"""
_STEPS = (
    *("layer.Storing.kept", "layer.note_looks", "layer.note_pending", "layer.forget_pending", "inside.put_back"),
    *("Store.record", "ChunkFolder.read"),
)


def test_kills_lose_nothing_and_are_finished_by_the_next_command(live: Repo) -> None:
    """In the middle of what goes in, too: it is more than one piece."""
    live.write("file", "one\n")
    wanted = shell(live, "head -c 3m /dev/urandom > ~/big; echo one > ~/state; md5sum ~/*").out
    for step in itertools.count():
        before = listed(live)
        if not dies_before(live, step, _STEPS, "checkpoint", "--container", "-m", "wanted", first=_FIRST):
            break
        now = listed(live)
        assert [now[one] for one in before] == list(before.values()), "no earlier one was lost"
    assert step > 2
    made = list(listed(live))[-1]
    for step in itertools.count():
        live.write("file", f"two{step}\n")
        other = shell(live, f"rm ~/big; echo two{step} > ~/state; md5sum ~/*").out
        killed = dies_before(live, step, _STEPS, "restore-checkpoint", made, first=_FIRST)
        # The next command in it finds the one or the other, and all of the one that the files are of.
        home = shell(live, "md5sum ~/*")
        is_back = (live.top / "file").read_text() == "one\n"
        assert home.out == (wanted if is_back else other), step
        undo = restore(live, "--undo", check=False) if is_back else None
        if undo is not None:
            assert (live.top / "file").read_text() == f"two{step}\n"
            assert shell(live, "md5sum ~/*").out == other
        if not killed:
            break
    assert step > 5
    assert live.tasks("checkpoint", "--verify").code == 0
    assert not Store(live.common).layout.layer_pending(live.only_id()).exists()


Make = Callable[..., Checkpoint]


@pytest.fixture
def make() -> Make:
    numbers = itertools.count(1)

    def made(digest: str | None, kind: str = "auto") -> Checkpoint:
        own = None if digest is None else Layer(1, digest, None)
        name = f"c{next(numbers)}"
        return Checkpoint(name, kind, "", "", 0, "", "", None, None, 0, layer=own)

    return made


def test_which_layers_go(make: Make) -> None:
    assert layer.superfluous([]) == []
    assert layer.superfluous([make(None), make("a"), make("b"), make("c"), make(None)]) == []
    loose = [make(d) for d in "abcd"]
    assert layer.superfluous(loose) == [loose[0].id]
    several = [make("a"), make("b"), make("a"), make("c"), make("d")]
    assert layer.superfluous(several) == [several[1].id], "what comes again counts from then on"
    wanted = [make("a", "manual"), make("b", "pre-restore"), make("c"), make("d"), make("e")]
    assert layer.superfluous(wanted) == [wanted[2].id, wanted[3].id]
    newest = [*(make(d, "manual") for d in "abc"), make("d")]
    assert layer.superfluous(newest) == [newest[0].id], "the newest stays, whatever it is"
    assert layer.superfluous(newest, spared=newest[0].layer) == [newest[1].id], "and where a restore goes to"


def test_no_more_than_so_much_is_kept_unasked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.layout.checkpoints_git / "ix" / "t").mkdir(parents=True)
    one = Layer(1, "a", None)
    assert not layer.is_exhausted(store, "t")
    layer.note_looks(store, "t", "looks", one, added_b=layer.WINDOW_B - 1)
    assert layer.looked(store, "t") == ("looks", one)
    assert not layer.is_exhausted(store, "t")
    layer.note_looks(store, "t", "looks", one, added_b=1)
    assert layer.is_exhausted(store, "t")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(TaskError) as e:
        layer.Storing(Store(tmp_path), full.fileno()).write(b"x" * 100)
    assert e.value.code == "disk_full"


def test_what_was_dropped_is_swept_by_upkeep_when_it_is_old(work: Work) -> None:
    folder = work.store.layout.checkpoints_git
    work.take()
    assert not layer.is_sweep_due(folder)
    layer.note_dropped(work.store)
    assert not layer.is_sweep_due(folder)
    then = time.time() - layer.WINDOW_S - 1
    noted = folder / "layers-dropped"
    os.utime(noted, (then, then))
    layer.note_dropped(work.store)
    assert layer.is_sweep_due(folder), "what is dropped all the time is swept, too"
    (folder / "upkept").touch()
    (folder / "objects/info/alternates").unlink(missing_ok=True)
    assert upkeep.is_due(work.store.layout)
    work.repo.tasks("checkpoint", "--gc")
    assert not noted.exists()
    assert not upkeep.is_due(work.store.layout)
