"""`doctor`: what is installed and what works, each problem with its fix."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator

from opencode_tasks import __version__
from opencode_tasks.commands import Result, Table, here, opencode_checks, opencode_proofs, workspace_checks
from opencode_tasks.commands.here import Here
from opencode_tasks.commands.progress import progress
from opencode_tasks.errors import TaskError
from opencode_tasks.git import exclude, hooks, memory, plumbing, workspaces
from opencode_tasks.store import filesystem, link, log
from opencode_tasks.store.index import Query
from opencode_tasks.values import value

HELP = "check the installation; every problem comes with its fix"

_GIT_OLDEST = (2, 36)


@value
class Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--rebuild", action="store_true", help="make every projection anew from the logs first")
    parser.add_argument(
        "--repair", action="store_true", help="mend damaged logs from the store's history first, as far as that goes"
    )


def run(args: Namespace) -> Result:
    at = here.find()
    done = [*(_repair(at) if args.repair else ()), *(_rebuild(at) if args.rebuild else ())]
    checks = [*done, *_checks(at)]
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


def _repair(at: Here) -> Iterator[Check]:
    """What is lost is said; what cannot be mended stays as it is."""
    at.store.require()
    for task_id in at.store.ids():
        if _problem(at, task_id) is None:
            continue
        try:
            lost = at.store.repair(task_id).degraded
            yield Check(f"repair {task_id}", True, f"goes on; lost: {lost[-1]}" if lost else "mended, nothing is lost")
        except TaskError as e:
            yield Check(f"repair {task_id}", False, e.message, "restore its directory from a backup of the repository")


def _rebuild(at: Here) -> Iterator[Check]:
    at.store.require()
    ids, failed = at.store.ids(), []
    with progress("reading the logs") as tell:
        for done, task_id in enumerate(ids):
            tell(done, len(ids))
            try:
                at.store.rebuild(task_id)
            except TaskError as e:
                failed.append(f"{task_id}: {e.message}")
    detail = f"projections of {len(ids) - len(failed)} tasks made anew"
    yield Check("rebuild", not failed, "; ".join([detail, *failed]), "opencode-tasks doctor --repair" if failed else "")
    try:
        with progress("making the index") as tell:
            known = at.store.index.rebuild(tell)
        yield Check("rebuild index", True, f"of {known} tasks")
    except TaskError as e:
        yield Check("rebuild index", False, e.message, e.hint)


def _problem(at: Here, task_id: str) -> str | None:
    """Every record read and verified; nothing is mended by that."""
    try:
        task = at.store.load(task_id)[0]
        events = sum(1 for _ in at.store.events_after(task_id, None))
    except TaskError as e:
        return e.message
    return None if events == task.rev else f"{task.rev - events} records are missing from its log"


def _git(at: Here) -> Check:
    words = plumbing.git(at.checkout, "version").out.split()
    version = tuple(int(n) for n in words[2].split(".")[:2])
    fix = "" if version >= _GIT_OLDEST else f"install git {'.'.join(map(str, _GIT_OLDEST))} or newer"
    return Check("git", not fix, words[2], fix)


def _store(at: Here) -> Check:
    at.store.require()
    ids = at.store.ids()
    with progress("verifying the logs") as tell:
        damaged = []
        for done, task_id in enumerate(ids):
            tell(done, len(ids))
            if (problem := _problem(at, task_id)) is not None:
                damaged.append(f"{task_id}: {problem}")
    if damaged:
        return Check("store", False, "; ".join(damaged), "opencode-tasks doctor --repair")
    return Check("store", True, f"{len(ids)} tasks, every record verified, {at.store.layout.store}")


def _kept(at: Here) -> Check:
    """Torn ends and damaged files that were set aside: nothing to mend, and somebody may want to know."""
    marks = {i: found for i in at.store.ids() if (found := at.store.kept_aside(i))}
    told = "; ".join(f"{task_id}: {', '.join(names)}" for task_id, names in marks.items())
    return Check("kept aside", True, told or "nothing was torn or damaged")


def _clock(at: Here) -> Check:
    """Order never depends on the clock; ages and durations do."""
    now = log.now()
    page, _ = at.store.index.page(Query(recent=True), limit=1)
    late = [t for t in page if t.updated_at > now]
    detail = f"{late[0].id} was changed at {late[0].updated_at}, and here it is {now}" if late else now
    return Check("clock", not late, detail, "set the clock; the order of events is right all the same" if late else "")


def _index(at: Here) -> Check:
    known, there = at.store.index.count(), len(at.store.ids())
    ok = known == there
    fix = "" if ok else "opencode-tasks doctor --rebuild"
    return Check("index", ok, f"{known} of {there} tasks, {at.store.layout.index}", fix)


def _history(at: Here) -> Check:
    last = memory.last_commit(at.store.layout)
    if last is None and at.store.ids():
        return Check("history", False, "the store has no history yet", "any command that changes a task commits it")
    return Check("history", True, f"last commit {last}; git -C .tasks log" if last else "no task yet")


def _file_system(at: Here) -> Check:
    filesystem.require_local(at.store.layout.common_dir)
    return Check("file system", True, filesystem.kind_of(at.store.layout.common_dir) or "not told by this system")


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
    found = hooks.states(directory, sys.executable, without=at.config.hooks.without)
    bad = [f"{name} {state}" for name, state in found.items() if state not in ("current", "chained")]
    return Check("hooks", not bad, "; ".join(bad) or f"installed in {directory}", "opencode-tasks init" if bad else "")


def _worktrees(at: Here) -> Check:
    return Check("worktrees", *workspace_checks.worktrees(at))


def _submodules(at: Here) -> Check:
    return Check("submodules", *workspace_checks.submodules(at))


def _opencode(at: Here) -> Check:
    return Check("opencode", *opencode_checks.version(at))


def _opencode_files(at: Here) -> Check:
    return Check("opencode files", *opencode_checks.whole_files(at))


def _opencode_shell(at: Here) -> Check:
    return Check("opencode shell", *opencode_checks.shell(at))


def _opencode_plugin(at: Here) -> Check:
    return Check("opencode plugin", *opencode_proofs.plugin(at))


def _canary(at: Here) -> Check:
    return Check("canary command", *opencode_proofs.canary(at))


def _protected(at: Here) -> Check:
    return Check("protected paths", *opencode_proofs.protected(at))


def _ties(at: Here) -> Check:
    known = set(at.store.ids())
    lost = [f"{b} → {i}" for b, i in plumbing.tasks_by_branch(at.checkout).items() if i not in known]
    fix = "git config --unset branch.<name>.opencodetask" if lost else ""
    return Check("branches", not lost, "; ".join(lost) or "every tied branch has its task", fix)


def _settings(at: Here) -> Check:
    if missing := workspace_checks.settings_left_out(at):
        return Check("settings", False, missing, "git sparse-checkout add .opencode")
    return Check("settings", True, f"prefix {at.config.branch.prefix}, limits {at.config.container.limits}")


def _secrets(at: Here) -> Check:
    """Names and where they come from; never values."""
    if not at.config.references:
        return Check("secrets", True, "the settings ask for nothing of the host")
    from opencode_tasks.commands import secrets

    entries = [secrets.entry(at, reference) for reference in at.config.references]
    bad = [f"{e['name']}={e['source']}: not approved" for e in entries if not e["approved_at"]]
    bad += [e["problem"] for e in entries if e["problem"]]
    detail = "; ".join(bad) or ", ".join(f"{e['name']} from {e['source']}" for e in entries)
    return Check("secrets", not bad, detail, "opencode-tasks secrets list" if bad else "")


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
    from opencode_tasks.containers import agreement
    from opencode_tasks.containers.engine import Engine

    engine = Engine(timeout_s=10)
    agreement.quick(at.store, engine, at.config, actor="doctor")
    tasks = at.store.all()
    live = engine.states(at.store.clone_id)
    lost = [t.id for t in tasks if t.is_open and container_state(t, live) == "lost"]
    stray = sorted(set(live) - {t.id for t in tasks})
    said = [f"{i}: its container was removed" for i in lost] + [f"{i}: a container without a task" for i in stray]
    fix = "opencode-tasks reconcile" if said else ""
    return Check("containers", not said, "; ".join(said) or f"{len(live)} for {len(tasks)} tasks", fix)


def _volumes(at: Here) -> Check:
    """Their number: sizes would have the engine walk through all of its disk."""
    from opencode_tasks.containers import volumes
    from opencode_tasks.containers.engine import Engine

    found = volumes.listed(Engine(timeout_s=10), at.store.clone_id)
    orphans = [v.name for v in found if v.task is not None and v.task not in at.store.ids()]
    detail = f"{len(found)}, {sum(v.task is None for v in found)} of them shared by all tasks"
    if orphans:
        fix = "docker volume inspect them, and remove them once you know them"
        return Check("volumes", False, f"without a task: {', '.join(orphans)}", fix)
    return Check("volumes", True, detail)


def _permissions(at: Here) -> Check:
    root = at.store.layout.root
    if os.access(root, os.W_OK):
        return Check("access", True, f"{root} can be written")
    if not root.exists():
        return Check("access", False, f"{root} is not there", "opencode-tasks init")
    is_read_only = os.statvfs(root).f_flag & os.ST_RDONLY
    fix = "have its file system mounted writable" if is_read_only else f"chown -R $USER {root}"
    return Check("access", False, f"{root} cannot be written", fix)


_LOOKS: dict[str, Callable[[Here], Check]] = {
    "git": _git,
    "settings": _settings,
    "file system": _file_system,
    "store": _store,
    "kept aside": _kept,
    "index": _index,
    "history": _history,
    "clock": _clock,
    "access": _permissions,
    "link": _link,
    "exclude": _exclude,
    "hooks": _hooks,
    "opencode": _opencode,
    "opencode files": _opencode_files,
    "opencode shell": _opencode_shell,
    "opencode plugin": _opencode_plugin,
    "canary command": _canary,
    "protected paths": _protected,
    "branches": _ties,
    "worktrees": _worktrees,
    "submodules": _submodules,
    "secrets": _secrets,
    "engine": _engine,
    "image": _image,
    "containers": _containers,
    "volumes": _volumes,
}
