"""Reads from the host what a container's specification needs to know of it."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from opencode_tasks.config import FILE
from opencode_tasks.config_sections import OBEYED
from opencode_tasks.containers import handed, inside, sockets
from opencode_tasks.containers.spec import Place
from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import Store
from opencode_tasks.store.files import is_real
from opencode_tasks.store.tasks import login


def of(store: Store, checkout: Checkout, task_id: str, protected: Sequence[str]) -> Place:
    """`checkout` is the task's own work tree; `protected`: what the settings add to that, relative to it."""
    listening = sockets.folder(store.clone_id, task_id)
    egress = None if listening is None else sockets.egress(store.clone_id, task_id)
    # Where there is none, the agent could make one, and say in it what it may reach.
    with suppress(OSError):
        (checkout.top / FILE.parent).mkdir()
    return Place(
        clone=store.clone_id,
        repository=hashlib.sha256(os.fsencode(checkout.common_dir)).hexdigest()[:16],
        uid=os.getuid(),
        gid=os.getgid(),
        login=login(),
        protected=[str(path) for path in _protected(checkout, protected)],
        git_dirs=[str(d) for d in _git_dirs(checkout)],
        sockets="" if listening is None else str(listening),
        supervisor="" if listening is None else inside.program(),
        path=os.fsencode(checkout.common_dir).decode(errors="replace"),
        egress="" if egress is None else str(egress.socket),
        forwarder="" if egress is None else handed.forwarder(),
    )


def _protected(checkout: Checkout, more: Sequence[str]) -> list[Path]:
    own_git = checkout.top / ".git"
    return [
        path
        for path in wanted(checkout, more)
        if is_real(path) and checkout.top in path.parents and (path == own_git or own_git not in path.parents)
    ]


def wanted(checkout: Checkout, more: Sequence[str]) -> list[Path]:
    """What a program on the host runs or obeys by itself: named paths, hooks in the tree, submodules' `.git`.

    `git status` enters a submodule, and there obeys the configuration that its `.git` leads to. Whether they
    are there is another question.
    """
    hooks = plumbing.hooks_dir(checkout).resolve()
    # husky's hooks directory is `.husky/_`, and what those hooks run lies beside it.
    hooks = hooks.parent if hooks.name == "_" else hooks
    submodules = [checkout.top / path / ".git" for path in plumbing.gitlinks(checkout)]
    return list(dict.fromkeys([*(checkout.top / name for name in (".git", *OBEYED, *more)), hooks, *submodules]))


def _git_dirs(checkout: Checkout) -> list[Path]:
    """Outside the workspace, what git needs to read there: of a worktree, a submodule, a shared clone."""
    wanted = [checkout.common_dir, checkout.git_dir, *_alternates(checkout.common_dir / "objects")]
    kept: list[Path] = []
    for path in wanted:
        if path.is_dir() and not any(path.is_relative_to(k) for k in (checkout.top, *kept)):
            kept.append(path)
    return kept


def _alternates(objects: Path) -> list[Path]:
    try:
        lines = (objects / "info" / "alternates").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [(objects / os.fsdecode(line)).resolve() for line in lines if line and not line.startswith(b"#")]
