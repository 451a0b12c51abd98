"""`doctor`: what is installed and what works, each problem with its fix."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opencode_tasks import __version__
from opencode_tasks.commands import Result, Table, here
from opencode_tasks.commands.here import Here
from opencode_tasks.errors import TaskError
from opencode_tasks.git import exclude, hooks, plumbing, workspaces
from opencode_tasks.store import link

HELP = "check the installation; every problem comes with its fix"

_GIT_OLDEST = (2, 36)


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def configure(parser: ArgumentParser) -> None:
    del parser


def run(args: Namespace) -> Result:
    del args
    checks = list(_checks(here.find()))
    ok = all(c.ok for c in checks)
    rows = [("ok" if c.ok else "PROBLEM", c.name, c.detail + (f"; fix: {c.fix}" if c.fix else "")) for c in checks]
    document = {"ok": ok, "checks": [vars(c) for c in checks]}
    return Result(document, exit_code=0 if ok else 1, table=Table(("", "check", "finding"), rows))


def _checks(at: Here) -> Iterator[Check]:
    yield Check("opencode-tasks", True, f"{__version__}, Python {sys.version.split()[0]}, {sys.executable}")
    for name, look in _LOOKS.items():
        try:
            yield look(at)
        except TaskError as e:
            yield Check(name, False, e.message, e.hint)


def _git(at: Here) -> Check:
    words = plumbing.git(at.checkout, "version").out.split()
    version = tuple(int(n) for n in words[2].split(".")[:2])
    fix = "" if version >= _GIT_OLDEST else f"install git {'.'.join(map(str, _GIT_OLDEST))} or newer"
    return Check("git", not fix, words[2], fix)


def _store(at: Here) -> Check:
    at.store.require()
    damaged = []
    ids = at.store.ids()
    for task_id in ids:
        try:
            for _ in at.store.history(task_id):
                pass
        except TaskError as e:
            damaged.append(f"{task_id}: {e.message}")
    if damaged:
        kept = f"keep a copy of {at.store.layout.store} and report it; nothing is deleted"
        return Check("store", False, "; ".join(damaged), kept)
    return Check("store", True, f"{len(ids)} tasks, every record verified, {at.store.layout.store}")


def _link(at: Here) -> Check:
    wrong = [
        f"{top}/.tasks: {found}"
        for top in workspaces.work_trees(at.checkout)
        if (found := link.state(top, at.store.layout)) != "right"
    ]
    fix = "opencode-tasks init"
    if any(w.endswith("wrong") for w in wrong):
        fix = "rename what has the name .tasks, then: opencode-tasks init"
    return Check("link", not wrong, "; ".join(wrong) or ".tasks links to the store", fix if wrong else "")


def _exclude(at: Here) -> Check:
    there = exclude.has_line(at.checkout)
    detail = f"{exclude.LINE} {'is' if there else 'is not'} in {exclude.path_of(at.checkout)}"
    return Check("exclude", there, detail, "" if there else "opencode-tasks init")


def _hooks(at: Here) -> Check:
    directory = plumbing.hooks_dir(at.checkout)
    found = hooks.states(directory, sys.executable)
    bad = [f"{name} {state}" for name, state in found.items() if state not in ("current", "chained")]
    return Check("hooks", not bad, "; ".join(bad) or f"installed in {directory}", "opencode-tasks init" if bad else "")


def _ties(at: Here) -> Check:
    known = set(at.store.ids())
    lost = [f"{b} → {i}" for b, i in plumbing.tasks_by_branch(at.checkout).items() if i not in known]
    fix = "git config --unset branch.<name>.opencodetask" if lost else ""
    return Check("branches", not lost, "; ".join(lost) or "every tied branch has its task", fix)


def _settings(at: Here) -> Check:
    return Check("settings", True, f"prefix {at.config.branch.prefix}, limits {at.config.container.limits}")


def _engine(at: Here) -> Check:
    del at
    from opencode_tasks.containers.engine import Engine

    info = Engine(timeout_s=10).info()
    detail = f"Docker {info.version} (API {info.api}, cgroup v{info.cgroup}, {info.storage}) at {info.address}"
    return Check("engine", True, detail)


def _image(at: Here) -> Check:
    from opencode_tasks.containers import images
    from opencode_tasks.containers.engine import Engine

    return Check("image", True, images.resolve(Engine(timeout_s=10), at.config.container.image))


def _containers(at: Here) -> Check:
    from opencode_tasks.commands.documents import container_state
    from opencode_tasks.containers.engine import Engine

    tasks = at.store.all()
    live = Engine(timeout_s=10).states(at.store.clone_id)
    lost = [t.id for t in tasks if t.is_open and container_state(t, live) == "lost"]
    stray = sorted(set(live) - {t.id for t in tasks})
    said = [f"{i}: its container was removed" for i in lost] + [f"{i}: a container without a task" for i in stray]
    fix = "opencode-tasks reconcile" if lost else ""
    if stray:
        fix = "; ".join(filter(None, (fix, "docker rm the containers without a task, once you know them")))
    return Check("containers", not said, "; ".join(said) or f"{len(live)} for {len(tasks)} tasks", fix)


def _permissions(at: Here) -> Check:
    root = at.store.layout.root
    ok = os.access(root, os.W_OK)
    return Check("access", ok, f"{root} {'can' if ok else 'cannot'} be written", "" if ok else f"chown -R $USER {root}")


_LOOKS: dict[str, Callable[[Here], Check]] = {
    "git": _git,
    "settings": _settings,
    "store": _store,
    "access": _permissions,
    "link": _link,
    "exclude": _exclude,
    "hooks": _hooks,
    "branches": _ties,
    "engine": _engine,
    "image": _image,
    "containers": _containers,
}
