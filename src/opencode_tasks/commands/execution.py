"""What `exec` and `shell` share: one recorded command in the task's container."""

import codecs
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencode_tasks.commands import Result, automatic, importing
from opencode_tasks.commands.here import Here, workspace_of
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.store.audit import Audit
from opencode_tasks.store.log import now
from opencode_tasks.task import Task
from opencode_tasks.values import replace

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opencode_tasks.containers.engine import Found
    from opencode_tasks.containers.opening import Connect
    from opencode_tasks.containers.session import Decision, Finished, Given, Held, Session
    from opencode_tasks.masking import Mask


def execute(
    at: Here,
    task: Task,
    argv: Sequence[str],
    *,
    as_json: bool,
    timeout_s: float | None = None,
    through: Sequence[str] = (),
) -> Result:
    """Run `argv` where we stand, or at the workspace's root when we stand outside it.

    Recorded before it starts and after it ended, so that nothing runs unrecorded. `through`: what is really started;
    it has to do what `argv` says.
    """
    from opencode_tasks.containers import sockets

    cwd = _directory(at, task)
    gets = _gets(at)
    use_tty = not as_json and os.isatty(0) and os.isatty(1)
    started_at = now()
    refused_before = sockets.refused_stamp(at.store.clone_id, task.id)
    # The document is alone on stdout; what the command prints goes to stderr then.
    with _session(at, task, gets, use_tty=use_tty, stdout_fd=2 if as_json else 1) as session:
        _put(at, task, session, gets)
        if at.store.layout.layer_pending(task.id).exists():
            from opencode_tasks.commands import layers

            layers.settle(at, task, session)
        importing.sync(at, task, session)
        automatic.before(at, task, argv, cwd, session)
        done = _recorded(at, task, session, argv, cwd, gets, timeout_s, through)
        if done.code is not None:
            importing.sync(at, task, session)
    if sockets.refused_stamp(at.store.clone_id, task.id) != refused_before:
        _tell_refused(at, task.id, since=started_at)
    if done.code is None:
        raise TaskError(
            "The engine or the container went away while the command ran: how it ended is not known",
            hint="opencode-tasks task-status; then look at what the command had to do, and run it again",
            code="outcome_unknown",
        )
    document = {
        "command": [_told(word, gets) for word in argv],
        "cwd": _told(cwd, gets),
        "exit_code": done.code,
        "started_at": started_at,
        "duration_ms": done.duration_ms,
        "agent": at.store.under[1].agent if at.store.under else None,
        "output_tail": done.output_tail,
    }
    return Result(document, exit_code=done.code)


def trial(
    at: Here, task: Task, command: str, where: "AbstractContextManager[Session] | None", *, timeout_s: float
) -> "Finished":
    """`command` in a shell at the workspace's root: in the task's container, or in the session that `where` opens.

    What it prints goes to stderr, and into the log as of any command.
    """
    gets = _gets(at)
    with where or _session(at, task, gets, use_tty=False, stdout_fd=2) as session:
        session.takes_input = False
        _put(at, task, session, gets)
        if where is None:
            importing.sync(at, task, session)
        return _recorded(at, task, session, ("/bin/sh", "-c", command), task.workspace.path, gets, timeout_s)


def _session(
    at: Here, task: Task, gets: "Given", *, use_tty: bool, stdout_fd: int
) -> "AbstractContextManager[Session]":
    from opencode_tasks.containers import opening

    return opening.session(
        at.store,
        at.config,
        task,
        actor=at.actor,
        use_tty=use_tty,
        stdout_fd=stdout_fd,
        set_up=lambda found, connect: _set_up(at, task, gets, found, connect),
    )


def _set_up(at: Here, task: Task, gets: "Given", found: "Found", connect: "Connect") -> None:
    from opencode_tasks.commands import setting_up

    def run(argv: Sequence[str]) -> "Finished":
        session = connect(False, 2)
        session.takes_input = False
        _put(at, task, session, gets)
        return _recorded(at, task, session, argv, task.workspace.path, gets, None)

    setting_up.run_due(at, task, found, run)


def _recorded(
    at: Here,
    task: Task,
    session: "Session",
    argv: Sequence[str],
    cwd: str,
    gets: "Given",
    timeout_s: float | None,
    through: Sequence[str] = (),
) -> "Finished":
    run_id = os.urandom(16).hex()
    output = _Output(Audit(at.store, task.id, actor=at.actor), run_id, gets.mask)
    session.on_output = output.saw
    session.on_held = lambda held: _relief(at, task, session, held)
    started = {"run": run_id, "argv": [_told(word, gets) for word in argv], "cwd": _told(cwd, gets)}
    at.store.record(task.id, ("command.started", started), actor=at.actor)
    done = None
    try:
        done = session.run(through or argv, cwd=cwd, env=gets.variables, timeout_s=timeout_s)
    finally:
        output.end()
        seen = output.shown(done or session.as_far_as_seen(None))
        finished: dict[str, Any] = {
            "run": run_id,
            "exit_code": seen.code,
            "duration_ms": seen.duration_ms,
            "output_tail": seen.output_tail,
            "signals": list(seen.signals),
        }
        if session.used is not None:
            finished["use"] = vars(session.used)
        at.store.record(task.id, ("command.finished", finished), actor=at.actor, has_happened=True)
    if session.used is not None and session.used.oom_kills:
        session.say(
            f"for want of memory the kernel ended {session.used.oom_kills} of its processes; "
            f"more: opencode-tasks limits {task.id} --memory SIZE"
        )
    return seen


def _gets(at: Here) -> "Given":
    from opencode_tasks.containers.session import Given

    if not at.config.environment and not at.config.secrets:
        return Given()
    from opencode_tasks.containers.given import given

    return given(at.config, at.main.top, at.store.layout)


def _put(at: Here, task: Task, session: "Session", gets: "Given") -> None:
    if gets.files:
        from opencode_tasks.containers import secret_files

        try:
            secret_files.put(at.store, task.id, session, gets.files)
        except TaskError as e:  # a shell that does not understand our script may show a line of it
            raise TaskError(_told(e.message, gets), hint=e.hint, code=e.code) from None


def _told(text: str, gets: "Given") -> str:
    return gets.mask.text(text) if gets.mask else text


def _relief(at: Here, task: Task, session: "Session", held: "Held") -> "Decision | None":
    from opencode_tasks.commands import relief

    return relief.decide(at, task, session, held)


def _tell_refused(at: Here, task_id: str, *, since: str) -> None:
    from opencode_tasks.containers import network

    found = [one for one in network.refused(at.store, task_id) if one.last >= since]
    for line in network.refusal_lines(found[-_TOLD:], task_id):
        sys.stderr.write(f"opencode-tasks: refused: {line}\n")


_TOLD = 10


class _Output:
    """The beginning of what a command prints goes into the log as it comes: we may be killed before its end.

    Without the secrets that `mask` knows; the person's terminal gets everything.
    """

    def __init__(self, audit: Audit, run_id: str, mask: "Mask | None") -> None:
        self._audit, self._run_id = audit, run_id
        self._left = _RECORDED_BYTES
        self._mask, self._stream = mask, mask.stream() if mask else None
        self._seen, self._end = 0, bytearray()
        self._decoded = codecs.getincrementaldecoder("utf-8")("replace")  # pieces end within characters

    def saw(self, chunk_b: bytes) -> None:
        if self._mask:
            self._seen += len(chunk_b)
            self._end += chunk_b
            del self._end[: -_TAIL_BYTES - self._mask.longest_b]
        if self._left > 0:
            self._write(self._stream.feed(chunk_b) if self._stream else chunk_b)

    def end(self) -> None:
        if self._left > 0:
            self._write(self._stream.flush() if self._stream else b"", ended=True)
        self._audit.flush()

    def _write(self, content_b: bytes, *, ended: bool = False) -> None:
        text = self._decoded.decode(content_b[: self._left], ended)
        self._left -= len(content_b)
        if text:
            self._audit.write("command.output", {"run": self._run_id, "text": text}, joined="text")

    def shown(self, ended: "Finished") -> "Finished":
        if not self._mask:
            return ended
        # What was cut off before may have been the beginning of a secret.
        begin = self._mask.longest_b if self._seen > len(self._end) else 0
        tail_b = self._mask.masked(bytes(self._end), begin=begin)[-_TAIL_BYTES:]
        return replace(ended, output_tail=tail_b.decode(errors="replace"))


_RECORDED_BYTES = 32 * 1024
_TAIL_BYTES = 4096


def _directory(at: Here, task: Task) -> str:
    if not task.is_open:
        raise TaskError(f"Task {task.id} is {task.status}: nothing runs in it any more", code="not_running")
    workspace = workspace_of(at, task)
    if workspace is None or task.status != "running":
        from opencode_tasks.git import gone

        raise ConflictError(
            f"Task {task.id} is {task.status}: its branch is not checked out in {task.workspace.path}",
            hint=gone.way_back(at.checkout, task),
        )
    cwd = Path.cwd().resolve()
    return str(cwd if cwd.is_relative_to(workspace.top) else workspace.top)
