"""A throw-away container in which the files of a commit stand where the task's workspace does: nothing that runs in it
reaches the workspace.

It is what the task's own container is, less its network. What git ignores in the workspace is copied in there, by the
container itself.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import follow
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.runner import EngineSession
from opencode_tasks.containers.session import Session
from opencode_tasks.containers.spec import EGRESS, LABEL, SOCKETS, ContainerSpec, Mount
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.git import trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.merging import is_plain
from opencode_tasks.store import Store, files
from opencode_tasks.store.locks import LockTimeout, locked
from opencode_tasks.task import Task
from opencode_tasks.values import replace

LONGEST_S = 3600
_ORIGINAL = "/run/opencode-workspace"
_MOST_COPIED = 1000
_COPY = f"""
for path; do
    if [ ! -e "./$path" ] && [ ! -L "./$path" ]; then
        mkdir -p "./$(dirname "$path")" && cp -a "{_ORIGINAL}/$path" "./$path" || failed=1
    fi
done
exit ${{failed:-0}}
"""


@contextmanager
def session(
    store: Store, config: Config, task: Task, checkout: Checkout, commit: str, *, ignored: Sequence[str]
) -> Iterator[Session]:
    """For one command on the files of `commit`. `ignored`: what of the workspace is there too. Raises `TaskError`."""
    engine, place = Engine(), store.layout.trial(task.id)
    wanted = spec(follow.spec_of(store, engine, config, task), place)
    with _alone(store, task):
        try:
            engine.remove(wanted.name)
            files.remove_tree(place)
            try:
                _export(checkout, commit, place)
            except OSError as e:  # two of the same name, one that is too long
                raise TaskError(f"The result cannot be put into files: {e}", hint="git fsck", code="git") from e
            _mount_points(wanted, place)
            found = engine.ensure_running(lambda: wanted, when_unused=lambda _: False)
            _copy(engine, found.id, wanted.workspace, ignored)
            yield EngineSession(engine, found.id, use_tty=False, stdout_fd=2)
        finally:
            with suppress(TaskError):  # it ends by itself
                engine.remove(wanted.name)
            files.remove_tree(place)


def sweep(store: Store) -> None:
    """What killed ones left behind."""
    for place in list(store.layout.trial("x").parent.glob("*")):
        with suppress(LockTimeout), locked(store.layout.lock(f"{place.name}.trial"), timeout_s=0):
            files.remove_tree(place)


@contextmanager
def _alone(store: Store, task: Task) -> Iterator[None]:
    try:
        with locked(store.layout.lock(f"{task.id}.trial"), timeout_s=0):
            yield
    except LockTimeout as e:
        raise ConflictError(f"Task {task.id} is being tested already", hint="wait for it to end") from e


def spec(own: ContainerSpec, place: Path) -> ContainerSpec:
    """`own`: the task's container. Of the workspace only `.git` comes along, to be read."""
    git = f"{own.workspace}/.git"
    apart = (own.workspace, SOCKETS, EGRESS)
    outside = [replace(m, read_only=True) for m in own.mounts if m.path not in apart and not _is_in(m, own.workspace)]
    return replace(
        own,
        name=f"{own.name}-trial",
        command=("sleep", str(LONGEST_S + 600)),
        mounts=(
            Mount(own.workspace, read_only=False, source=str(place)),
            *(Mount(m.path, read_only=True, source=m.source) for m in own.mounts if m.path == git),
            *outside,
            Mount(_ORIGINAL, read_only=True, source=own.workspace),
        ),
        environment={name: said for name, said in own.environment.items() if not name.lower().endswith("_proxy")},
        # Not the task's: it is not its container that is looked for by this.
        labels={name: said for name, said in own.labels.items() if name != f"{LABEL}.task"},
        goes_at_exit=True,
    )


def _is_in(mount: Mount, workspace: str) -> bool:
    return mount.path.startswith(f"{workspace}/")


def _export(checkout: Checkout, commit: str, place: Path) -> None:
    """As the objects have them: no filter, no attribute. Links last, so that nothing is written through one."""
    found = [one for one in trees.entries(checkout, commit, "") if is_plain(one.path)]
    held = [one for one in found if one.mode != trees.SUBMODULE]
    with files.refused_writes(place):
        place.mkdir(mode=0o700, parents=True)
        links = []
        for one, content_b in zip(held, trees.contents(checkout, held), strict=True):
            if one.mode == trees.LINK:
                links.append((one.path, content_b))
                continue
            path = place / one.path
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(fd, "wb") as f:
                f.write(content_b)
                if one.mode == trees.EXECUTABLE:
                    os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | 0o111)
        for name, content_b in links:
            parent, _, last = name.rpartition("/")
            (place / parent).mkdir(parents=True, exist_ok=True)
            fd = files.open_without_links(str(place / parent), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.symlink(content_b, os.fsencode(last), dir_fd=fd)
            finally:
                os.close(fd)


def _mount_points(wanted: ContainerSpec, place: Path) -> None:
    """Made by us, or the engine makes them as root."""
    for mount in wanted.mounts:
        inside = place / os.path.relpath(mount.path, wanted.workspace)
        if _is_in(mount, wanted.workspace) and not os.path.lexists(inside):
            if Path(mount.source or mount.path).is_dir():
                inside.mkdir(parents=True)
            else:
                inside.touch()


def _copy(engine: Engine, container: str, workspace: str, ignored: Sequence[str]) -> None:
    """What cannot be named to the engine stays behind."""
    names = [name.rstrip("/") for name in ignored if name.isprintable() and not name.startswith(".git/")]
    if not names:
        return
    copying = EngineSession(engine, container, use_tty=False, stdout_fd=2)
    copying.takes_input = False
    argv = ("/bin/sh", "-c", _COPY, "sh", *names[:_MOST_COPIED])
    done = copying.run(argv, cwd=workspace, env={})
    if done.code != 0 or len(names) > _MOST_COPIED:
        sys.stderr.write("opencode-tasks: not everything that git ignores was copied for the test\n")
