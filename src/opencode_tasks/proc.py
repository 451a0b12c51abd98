"""The only place that starts processes: argument lists, bytes out, a bound on the time."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import BinaryIO

# Kept until they have ended: a process of ours that lives long leaves no zombies.
_detached: "list[Popen[bytes]]" = []

# `git rev-parse --local-env-vars` (2.39): what git exports to its hooks and what
# would make a git of ours act on another repository or index than the one we name.
_GIT_LOCAL = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    # What would change what a diff says, or run a program for it.
    "GIT_DIFF_OPTS",
    "GIT_EXTERNAL_DIFF",
)


@value
class Completed:
    argv: tuple[str, ...]
    code: int
    out_b: bytes
    err_b: bytes

    @property
    def out(self) -> str:
        return os.fsdecode(self.out_b)

    @property
    def err(self) -> str:
        return self.err_b.decode(errors="replace")


class CommandError(TaskError):
    """A program that we rely on answered with a failure."""

    code = "command_failed"

    def __init__(self, done: Completed) -> None:
        shown = " ".join(done.argv[:1] + tuple(a for a in done.argv[1:] if not a.startswith("--git-dir")))
        detail = (done.err or done.out).strip()
        super().__init__(f"`{shown}` failed with exit code {done.code}" + (f":\n{detail}" if detail else ""))
        self.done = done


def clean_git_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what ties git to the repository of a running hook."""
    env = {k: v for k, v in os.environ.items() if k not in _GIT_LOCAL}
    if extra:
        env.update(extra)
    return env


def forget_git_env() -> None:
    """For a command started from a hook or an alias, once it knows where it is: libraries read these too."""
    for name in _GIT_LOCAL:
        os.environ.pop(name, None)


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin_b: bytes = b"",
    stdin: "BinaryIO | None" = None,
    timeout_s: float = 120,
    check: bool = True,
) -> Completed:
    """Run to the end. Raises `CommandError` for an exit code other than 0 when `check`.

    `stdin`: a file, from where it stands, for what is too large to be held in memory.
    """
    import subprocess

    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=None if env is None else dict(env),
            input=stdin_b if stdin is None else None,
            stdin=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as e:
        raise _not_started(argv, cwd) from e
    except subprocess.TimeoutExpired as e:
        raise _too_long(argv, timeout_s) from e
    completed = Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
    if check and completed.code != 0:
        raise CommandError(completed)
    return completed


def run_together(
    commands: Sequence[Sequence[str]],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin_b: bytes = b"",
    timeout_s: float = 120,
) -> list[Completed]:
    """Each beside the others, all with the same input, to the end of all. Whether they succeeded is for the caller."""
    import subprocess
    from contextlib import ExitStack

    with ExitStack() as ends:
        started = []
        for argv in commands:
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            except FileNotFoundError as e:
                raise _not_started(argv, cwd) from e
            ends.enter_context(process)
            ends.callback(process.kill)
            started.append((tuple(argv), process))
        done = []
        for argv, process in started:
            try:
                out_b, err_b = process.communicate(stdin_b, timeout=timeout_s)
            except subprocess.TimeoutExpired as e:
                raise _too_long(argv, timeout_s) from e
            done.append(Completed(argv, process.returncode, out_b, err_b))
        return done


def _not_started(argv: Sequence[str], cwd: Path) -> TaskError:
    if not cwd.is_dir():
        return TaskError(f"The directory {cwd} is gone", hint="cd to an existing directory")
    return TaskError(f"`{argv[0]}` is not installed or not on PATH", hint=f"install {argv[0]}")


def _too_long(argv: Sequence[str], timeout_s: float) -> TaskError:
    return TaskError(f"`{argv[0]} {argv[1]}` did not end within {timeout_s:g} s")


def run_attached(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    meanwhile: "Callable[[], object] | None" = None,
) -> int:
    """Run with our own stdin and stderr, so that a person sees and can answer it. `meanwhile` is called beside it.

    When we are interrupted it is told to end and waited for: git cleans up behind itself then.
    """
    import subprocess

    with subprocess.Popen(argv, cwd=cwd, env=None if env is None else dict(env), stdout=sys.stderr.fileno()) as process:
        try:
            if meanwhile is not None:
                meanwhile()
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals back: a task is written whole, or taken back whole."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def detach(argv: Sequence[str], *, cwd: Path, log: Path) -> None:
    """Start a process that outlives us, our terminal and our process group.

    Git waits for whatever holds a hook's stdout, so none of our descriptors may stay
    open in the child.
    """
    import subprocess

    _detached[:] = [process for process in _detached if process.poll() is None]
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=clean_git_env(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            close_fds=True,
        )
    _detached.append(process)
