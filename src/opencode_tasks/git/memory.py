"""The store's own history, `memory.git`: what a damaged log is mended from, and what a person reads with `git log`.

A bare repository: in `.tasks`, `git log` and `git show` work, and nobody can check out, clean or stash
the memory. Made with `git fast-import`: no index, no hooks, one process, at any number of tasks.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from opencode_tasks.errors import TaskError
from opencode_tasks.events import CorruptError, decode
from opencode_tasks.proc import CommandError, Completed, clean_git_env, detach, run
from opencode_tasks.store import Store, feed, files, log, transactions
from opencode_tasks.store.feed import Entry, Place
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import LockTimeout, locked
from opencode_tasks.store.log import Segment
from opencode_tasks.task import is_id

BRANCH = "refs/heads/main"
_AT_MOST_EVERY_S = 60
# What is worth a commit at once; the rest waits for the minute to pass.
_TRANSITIONS = (
    "task.",
    "status.",
    "decision.",
    "lease.",
    "branch.",
    "workspace.",
    "checkpoint.restored",
    "log.repaired",
)
_WHO = "opencode-tasks <opencode-tasks@localhost>"
_OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsync=none", "-c", "gc.autoDetach=false")
# As git itself guesses when to pack: so many objects in one of 256 folders.
_LOOSE = 27
_PACKS = 50
# What goes into one commit is in memory at once.
_TASKS_AT_ONCE = 1000
_GIT_DIED = 128


def commit_if_due(store: Store) -> None:
    """At the end of every process of ours. Never fails: what is not committed now is so by the next one."""
    written, store.written = store.written, []
    if not written:
        return
    with suppress(TaskError, OSError):
        if any(type_.startswith(_TRANSITIONS) for type_ in written) or _age_s(store.layout) >= _AT_MOST_EVERY_S:
            commit(store)


def commit(store: Store, *, everything: bool = False) -> bool:
    """Commit what the feed tells of since the last one; False when there was nothing. `everything`: every task.

    Raises `TaskError` when git cannot.
    """
    layout = store.layout
    try:
        with locked(layout.lock("memory"), timeout_s=2, hot=True):
            try:
                made = _commit(store, everything=everything)
            except CommandError:
                if not _set_aside(layout):
                    raise
                made = _commit(store, everything=True)
    except LockTimeout:
        return False  # somebody else is at it
    _pack_later(layout)
    return made


def _commit(store: Store, *, everything: bool) -> bool:
    layout = store.layout
    _ensure(layout)
    place, waiting = _place(layout)
    if place > feed.end(layout.feed):  # it was deleted, and what it told of is not known any more
        place, everything = Place(), True
    entries, reached = feed.after(layout.feed, place)
    # A power loss leaves anything at the end of the feed.
    by_task: dict[str, list[Entry]] = {task_id: [] for task_id in waiting}
    for entry in entries:
        if is_id(entry.task_id):
            by_task.setdefault(entry.task_id, []).append(entry)
    if everything or not _has_commits(layout):
        by_task = {task_id: [] for task_id in store.ids()} | by_task
    if not by_task:
        return False
    ids = sorted(by_task)
    waiting = [task_id for task_id in ids if transactions.under_way(layout, task_id)]
    for at in range(0, len(ids), _TASKS_AT_ONCE):
        _import(layout, {task_id: by_task[task_id] for task_id in ids[at : at + _TASKS_AT_ONCE]})
    told = f"{reached.file} {reached.offset}\n" + "".join(f"{task_id}\n" for task_id in waiting)
    files.replace(layout.memory_place, told.encode())
    return True


def _set_aside(layout: Layout) -> bool:
    """When the history itself is damaged, for git syncs nothing of it: another is begun. True when that was it."""
    if not _has_commits(layout) or _git(layout, "ls-tree", "-r", BRANCH, check=False).code != _GIT_DIED:
        return False
    if _git(layout, "version", check=False).code != 0:
        return False  # it is git itself that does not work
    aside = layout.memory_git.with_name(f"{layout.memory_git.name}.corrupt-{time.time_ns()}")
    with files.refused_writes(aside):
        layout.memory_git.rename(aside)
    return True


def versions(layout: Layout) -> Callable[[str], Iterable[tuple[str, bytes]]]:
    """What `Store` mends from: of a task's id, name and content of each of its segments: the newest, and the longest.

    A history that is damaged itself gives what it can.
    """

    def of_task(task_id: str) -> Iterator[tuple[str, bytes]]:
        with suppress(TaskError):
            yield from _versions(layout, task_id)

    return of_task


def _versions(layout: Layout, task_id: str) -> Iterator[tuple[str, bytes]]:
    if not (layout.memory_git / "HEAD").exists():
        return
    folder = f"{_path(task_id)}/log"
    listed = _git(layout, "rev-list", "--objects", BRANCH, "--", folder, check=False)
    names = dict(line.split(" ", 1) for line in listed.out.splitlines() if f" {folder}/" in line)
    asked = "".join(f"{sha}\n" for sha in names).encode()
    sizes = _git(layout, "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", stdin_b=asked).out
    by_name: dict[str, list[tuple[int, str]]] = {}
    for line in sizes.splitlines():
        sha, kind, *size = line.split()
        if kind == "blob":
            by_name.setdefault(names[sha], []).append((int(size[0]), sha))
    for name, blobs in sorted(by_name.items()):
        # Newest first: a log that was cut off and went on may never have become as long again.
        for _, sha in dict.fromkeys((blobs[0], *sorted(blobs, reverse=True)[:3])):
            done = _git(layout, "cat-file", "blob", sha, check=False)
            if done.code == 0:
                yield name.rpartition("/")[2], done.out_b


def last_commit(layout: Layout) -> str | None:
    """When and what, in one line; None while there is none."""
    if not (layout.memory_git / "HEAD").exists():
        return None
    done = _git(layout, "log", "-1", "--format=%cI %s", BRANCH, check=False)
    return done.out.strip() or None if done.code == 0 else None


def _age_s(layout: Layout) -> float:
    with suppress(FileNotFoundError):
        age_s = time.time() - layout.memory_place.stat().st_mtime
        return age_s if age_s >= 0 else float("inf")  # a clock was set back
    return float("inf")


def _place(layout: Layout) -> tuple[Place, list[str]]:
    """How far the feed was read, and the tasks that were being written to then."""
    with suppress(FileNotFoundError, ValueError):
        first, *waiting = layout.memory_place.read_text().splitlines()
        file, offset = first.split()
        return Place(int(file), int(offset)), [task_id for task_id in waiting if is_id(task_id)]
    return Place(), []


def _ensure(layout: Layout) -> None:
    if not (layout.memory_git / "HEAD").exists():
        with files.refused_writes(layout.memory_git):
            layout.memory_git.mkdir(exist_ok=True)
        env = clean_git_env({"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})
        argv = ("git", "init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".")
        run(argv, cwd=layout.memory_git, env=env)
    pointer = layout.store / ".git"
    if not pointer.exists():
        files.replace(pointer, b"gitdir: ../memory.git\n")


def _git(layout: Layout, *args: str, stdin_b: bytes = b"", check: bool = True) -> Completed:
    env = clean_git_env({"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})
    argv = ("git", f"--git-dir={layout.memory_git}", *_OPTIONS, *args)
    return run(argv, cwd=layout.root, env=env, stdin_b=stdin_b, check=check)


def _path(task_id: str) -> str:
    """A folder for every two last characters: a tree of 100,000 names would be written anew with every commit."""
    return f"{task_id[-2:]}/{task_id}"


def _import(layout: Layout, by_task: dict[str, list[Entry]]) -> None:
    parent = "from refs/heads/main^0\n" if _has_commits(layout) else ""
    message_b = _message(by_task).encode(errors="replace")
    head = f"commit {BRANCH}\ncommitter {_WHO} {int(time.time())} +0000\ndata {len(message_b)}\n"
    parts = [b"feature done\n", head.encode(), message_b, f"\n{parent}".encode()]
    for task_id in by_task:
        for name, content_b in _files(layout, task_id):
            parts.append(os.fsencode(f"M 100644 inline {_quoted(f'{_path(task_id)}/{name}')}\ndata {len(content_b)}\n"))
            parts += [content_b, b"\n"]
    parts.append(b"done\n")
    _git(layout, "fast-import", "--quiet", "--done", stdin_b=b"".join(parts))


def _has_commits(layout: Layout) -> bool:
    if (layout.memory_git / BRANCH).exists():
        return True
    with suppress(FileNotFoundError):
        return f" {BRANCH}\n" in (layout.memory_git / "packed-refs").read_text()
    return False


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _message(by_task: dict[str, list[Entry]]) -> str:
    """One task: its name and what happened; several: how many. Below, every change on its line."""
    if len(by_task) == 1:
        ((task_id, entries),) = by_task.items()
        told = list(dict.fromkeys(_told(e.label) for e in entries)) or ["kept"]
        subject = f"{task_id}: {', '.join(told[:4])}" + (f" and {len(told) - 4} more" if len(told) > 4 else "")
    else:
        subject = f"{len(by_task)} tasks: {', '.join(sorted(by_task)[:3])}" + (" …" if len(by_task) > 3 else "")
    lines = [f"{task_id} r{e.rev} {e.label}" for task_id in sorted(by_task) for e in by_task[task_id]]
    cut = [*lines[:200], f"… and {len(lines) - 200} more"] if len(lines) > 200 else lines
    return "\n".join([subject, "", *cut, ""])


def _told(label: str) -> str:
    return label.replace("status.changed:", "").replace("task.created", "created")


def _files(layout: Layout, task_id: str) -> Iterator[tuple[str, bytes]]:
    """What belongs into history: not the projections, and no log that does not verify."""
    folder = layout.task(task_id)
    with suppress(CorruptError):
        for parts in log.segments(layout.log(task_id)).values():
            kept = _committed(layout, task_id) if len(parts) > 1 else {}
            for part in parts:
                name = log.name_of(part.writer, part.number)
                size_bytes = _size_bytes(part)
                if size_bytes is None or kept.get(name) != size_bytes:
                    with suppress(TaskError):  # damaged, or of a newer version
                        yield f"log/{name}", _sound(log.content(part))
    for path in (folder / "plan.md", folder / "decisions.md", *sorted((folder / "checkpoints").glob("*.json"))):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as f:
                yield str(path.relative_to(folder)), f.read()


def _committed(layout: Layout, task_id: str) -> dict[str, int]:
    """The segments that history has, with their sizes: one may have been taken while it was still written to."""
    listed = _git(layout, "ls-tree", "--long", BRANCH, f"{_path(task_id)}/log/", check=False)
    found = (line.split() for line in listed.out.splitlines())
    return {path.rpartition("/")[2]: int(size) for _, kind, _, size, path in found if kind == "blob"}


def _size_bytes(part: Segment) -> int | None:
    """Of the lines in it; None when it is not there any more: packed since it was listed."""
    with suppress(OSError), part.path.open("rb") as f:
        if not part.packed:
            return os.fstat(f.fileno()).st_size
        f.seek(-4, os.SEEK_END)
        return int.from_bytes(f.read(), "little")  # as gzip itself ends
    return None


def _sound(content_b: bytes) -> bytes:
    """The whole lines. Raises `CorruptError`: history must not learn what damage looks like."""
    whole = content_b[: content_b.rfind(b"\n") + 1]
    for line_b in whole.splitlines(keepends=True):
        decode(line_b)
    return whole


def _pack_later(layout: Layout) -> None:
    objects = layout.memory_git / "objects"
    loose, packs = (sum(1 for _ in objects.glob(pattern)) for pattern in ("17/*", "pack/*.pack"))
    if loose > _LOOSE or packs > _PACKS:
        with suppress(OSError):
            argv = ("git", f"--git-dir={layout.memory_git}", *_OPTIONS, "gc", "--auto", "--quiet")
            detach(argv, cwd=layout.root, log=layout.background_log)
