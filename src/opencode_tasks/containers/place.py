"""Reads from the host what a container's specification needs to know of it."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from opencode_tasks.config import FILE
from opencode_tasks.config_sections import OBEYED
from opencode_tasks.containers import handed, inside, sockets
from opencode_tasks.containers.spec import Mount, Place
from opencode_tasks.git import plumbing, private, submodules
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
    kept = _protected(checkout, protected)
    return Place(
        clone=store.clone_id,
        repository=hashlib.sha256(os.fsencode(checkout.common_dir)).hexdigest()[:16],
        uid=os.getuid(),
        gid=os.getgid(),
        login=login(),
        protected=[str(path) for path in kept],
        above=[str(path) for path in _above(checkout, kept)],
        git=_git_mounts(store, checkout, task_id),
        sockets="" if listening is None else str(listening),
        supervisor="" if listening is None else inside.program(),
        path=os.fsencode(checkout.common_dir).decode(errors="replace"),
        egress="" if egress is None else str(egress.socket),
        forwarder="" if egress is None else handed.forwarder(),
    )


def _protected(checkout: Checkout, more: Sequence[str]) -> list[Path]:
    """Less a `.git` that is a directory: over that the container has its own."""
    own_git = checkout.top / ".git"
    return [
        path
        for path in wanted(checkout, more)
        if is_real(path) and checkout.top in path.parents and own_git not in path.parents and path != checkout.git_dir
    ]


def _above(checkout: Checkout, kept: list[Path]) -> list[Path]:
    """Folders with a protected path somewhere in them. Mounted over themselves they cannot be renamed, as any other
    folder can: with what is mounted in it, to make room for one that is not protected.
    """
    folders = {parent for path in kept for parent in path.parents if checkout.top in parent.parents}
    return sorted(folder for folder in folders if not any(path in (folder, *folder.parents) for path in kept))


def in_the_tree(checkout: Checkout, more: Sequence[str]) -> tuple[str, ...]:
    """`wanted`, as commits name them, whether they are there or not."""
    own_git = checkout.top / ".git"
    found = [p for p in wanted(checkout, more) if checkout.top in p.parents and own_git not in (p, *p.parents)]
    return tuple(str(path.relative_to(checkout.top)) for path in found)


def _git_mounts(store: Store, checkout: Checkout, task_id: str) -> list[Mount]:
    """Its own git directory where the real one would be, and of the real one what it may read."""
    common, git_dir = checkout.common_dir, checkout.git_dir
    own = private.ensure(store.layout, checkout, task_id, store.get(task_id).branch)
    read = {str(store.layout.store): "", private.OBJECTS: str(common / "objects")}
    read |= {str(path): "" for path in private.alternates(common / "objects") if path.is_dir()}
    # Of a worktree's submodules the objects are those of the main checkout's.
    read |= {str(path): "" for path in (git_dir / "modules", common / "modules") if path.is_dir()}
    mounts = [Mount(path, read_only=True, source=source) for path, source in read.items()]
    return [Mount(str(git_dir), read_only=False, source=str(own)), *mounts]


def wanted(checkout: Checkout, more: Sequence[str]) -> list[Path]:
    """What a program on the host runs or obeys by itself: named paths, hooks in the tree, submodules' `.git`.

    `git status` enters a submodule, and there obeys the configuration that its `.git` leads to. Whether they
    are there is another question.
    """
    hooks = plumbing.hooks_dir(checkout).resolve()
    # husky's hooks directory is `.husky/_`, and what those hooks run lies beside it.
    hooks = hooks.parent if hooks.name == "_" else hooks
    trees = [checkout, *submodules.below(checkout)]
    git_files = [tree.top / path / ".git" for tree in trees for path in plumbing.gitlinks(tree)]
    return list(dict.fromkeys([*(checkout.top / name for name in (".git", *OBEYED, *more)), hooks, *git_files]))
