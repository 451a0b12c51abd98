"""A task's branch into its base, as `complete-task` asks for it: looked at, computed, tested, and only then done."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from opencode_tasks.commands import here, importing
from opencode_tasks.commands.here import Here
from opencode_tasks.containers.freeze import frozen
from opencode_tasks.errors import NoTaskError, TaskError, UsageError
from opencode_tasks.git import landing, plumbing, private, repository, workspaces
from opencode_tasks.git import merging as merges
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.landing import Landing
from opencode_tasks.git.merging import How, Merged
from opencode_tasks.task import Task, is_id

if TYPE_CHECKING:
    from opencode_tasks.containers.session import Finished

_TRIES = 10
_MOST_TOLD = 20
_MOST_SUBJECTS = 200
_TAIL_LINES = 20


def configure(parser: ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    for word, told in (
        ("merge", "merge its branch into its base first, with a merge commit"),
        ("squash", "the same as one commit"),
        ("rebase", "the same as its commits, one after the other on top of the base"),
    ):
        how.add_argument(f"--{word}", dest="how", action="store_const", const=word, help=told)
    parser.add_argument("-m", "--message", help="of the merge commit, or of the squashed one")


def merge(at: Here, task: Task, workspace: Checkout | None, args: Namespace) -> tuple[dict[str, Any] | None, list[str]]:
    """What `--json` tells of it, and what a person is told. Raises `TaskError`, and then nothing was changed."""
    how: How | None = args.how
    if args.message is not None and (how in (None, "rebase") or not args.message.strip()):
        raise UsageError("-m is the message of --merge or --squash")
    if how is None:
        return None, []
    base, tip = _required(at, task, workspace)
    tested = ""
    for attempt in range(_TRIES):
        onto = repository.tip_of(at.main, base) or ""
        merged = _computed(at, task, base, onto, tip, how, args.message)
        if merged.commit == onto:
            _record(at, task, Landing(task.id, task.branch, tip, base, onto, onto, how), actor=at.actor)
            return _document(base, merged, how), [f"{base} lacks nothing of {task.branch}"]
        trees = landing.holders(at.checkout, base)
        for tree in trees:
            landing.require_free(tree, onto, merged.commit)
        if at.config.git.test and tested != merged.tree:
            _require_tested(at, task, workspace, merged)
            tested = merged.tree
        tops = tuple(str(tree.top) for tree in trees)
        going = Landing(task.id, task.branch, tip, base, onto, merged.commit, how, tops)
        try:
            with _held(at, trees), landing.alone(at.store):
                landing.land(at.store, at.checkout, going)
                _record(at, task, going, actor=at.actor)
                landing.forget(at.store, task.id)
        except landing.MovedError:
            if attempt == _TRIES - 1 or repository.tip_of(at.main, task.branch) != tip:
                raise
            continue
        return _document(base, merged, how), _told(task, workspace, going)
    raise AssertionError("unreachable")


def settle(at: Here, *, actor: str | None = None) -> list[tuple[Landing, bool]]:
    """What merges that were killed left behind is finished or taken back."""
    left_behind = landing.pending(at.store)
    if not left_behind:
        return []
    trees = [tree for one in left_behind for tree in landing.holders(at.checkout, one.into)]
    done = []
    with _held(at, trees), landing.alone(at.store):
        for left, came_through in landing.settle(at.store, at.checkout):
            if came_through:
                with suppress(TaskError):  # its task was deleted
                    _record(at, at.store.get(left.task), left, actor=actor or at.actor)
            done.append((left, came_through))
    return done


@contextmanager
def _held(at: Here, trees: Sequence[Checkout]) -> Iterator[None]:
    """The containers of tasks that have them: a base may be another task's branch."""
    owners = sorted({owner for tree in trees if (owner := workspaces.occupant(tree)) is not None})
    with ExitStack() as stack:
        for owner in owners:
            with suppress(NoTaskError):
                stack.enter_context(frozen(at.store, at.store.get(owner)))
        yield


def _required(at: Here, task: Task, workspace: Checkout | None) -> tuple[str, str]:
    """The base branch, and the tip of the task's. Raises `TaskError` where merging is out of the question."""
    base, by_hand = task.base.branch, "merge by hand, then: opencode-tasks complete-task"
    if base is None or repository.tip_of(at.main, base) is None:
        what = f"Its base {base} is gone" if base else f"Task {task.id} began at a commit, not on a branch"
        raise TaskError(f"{what}: there is nothing to merge into", hint=by_hand, code="no_revision")
    tip = repository.tip_of(at.main, task.branch)
    if tip is None or plumbing.task_of_branch(at.checkout, task.branch) != task.id:
        raise TaskError(f"The branch {task.branch} is gone", hint="git reflog; git branch", code="no_revision")
    if base in at.config.branch.protected:
        here.require_person(f"merges into {base}: it is protected (branch.protected)")
    inside = private.untaken(at.store.layout, task.id, task.branch)
    if inside:
        raise TaskError(
            f"Commits in the task's container are not on {task.branch}, and would not be merged: {inside}",
            hint=importing.command(task),
            code="unsaved_work",
        )
    if workspace is not None:
        _require_committed(task, workspace)
    return base, tip


def _require_committed(task: Task, workspace: Checkout) -> None:
    under_way = landing.operation(workspace)
    if under_way:
        raise TaskError(
            f"A {under_way} is not finished in {workspace.top}",
            hint=f"finish it, or: git {under_way} --abort",
            code="in_use",
        )
    left = repository.uncommitted(workspace)
    if left:
        raise TaskError(
            f"Task {task.id} has work that is not committed, and would not be merged:\n  {repository.some(left)}",
            hint=f"commit it, or move it away: git -C {workspace.top} status",
            code="unsaved_work",
        )


def _computed(at: Here, task: Task, base: str, onto: str, tip: str, how: How, message: str | None) -> Merged:
    said = "" if how == "rebase" else _message(at, task, onto, tip, how, message)
    try:
        return merges.merged(at.main, onto, tip, how, said)
    except merges.Conflicting as e:
        raise TaskError(_conflicts(at, task, base, onto, tip, e), hint=_way_out(task, base), code="conflict") from e


def _way_out(task: Task, base: str) -> str:
    return f"on {task.branch}: git merge {base}; settle it there, commit, then run the command again"


def _message(at: Here, task: Task, onto: str, tip: str, how: How, message: str | None) -> str:
    title = " ".join(task.title.split())
    text = (message or (f"Merge task {title}" if how == "merge" else title)).strip()
    if how == "squash" and message is None:
        asked = (
            "log",
            "--no-show-signature",
            "--reverse",
            "--no-merges",
            f"--max-count={_MOST_SUBJECTS}",
            "--format=- %s",
            tip,
            f"^{onto}",
        )
        text += f"\n\n{plumbing.git(at.main, *asked).out}"
    trailer = ("interpret-trailers", "--no-divider", "--if-exists", "doNothing", "--trailer", f"Task-Id: {task.id}")
    stdin_b = f"{text.rstrip()}\n".encode(errors="surrogateescape")
    return plumbing.git(at.main, *trailer, stdin_b=stdin_b).out


def _conflicts(at: Here, task: Task, base: str, onto: str, tip: str, e: merges.Conflicting) -> str:
    """Each file, with what either side wanted of it."""
    at_commit = f" at {e.commit[:9]}" if e.commit else ""
    lines = [f"{task.branch} does not merge into {base}: {len(e.paths)} conflicting{at_commit}; nothing was changed"]
    for path in e.paths[:_MOST_TOLD]:
        lines.append(f"  {path}")
        lines.append(f"    {task.branch}: {_intention(at, task, tip, onto, path)}")
        lines.append(f"    {base}: {_intention(at, task, onto, tip, path)}")
    if len(e.paths) > _MOST_TOLD:
        lines.append(f"  and {len(e.paths) - _MOST_TOLD} more")
    return "\n".join(lines)


def _intention(at: Here, task: Task, having: str, lacking: str, path: str) -> str:
    """The last commit of one side that touched the file, and of which other task it is."""
    words = ("log", "--no-show-signature", "-1", "--format=%h %s%x00%(trailers:key=Task-Id,valueonly)", "--abbrev=9")
    said = plumbing.git(at.main, "--literal-pathspecs", *words, having, f"^{lacking}", "--", path, check=False).out
    subject, _, trailers = said.partition("\0")
    ids = [word for word in trailers.split() if is_id(word) and word != task.id]
    with suppress(TaskError):
        return f'{subject} (task "{at.store.get(ids[0]).title}")' if ids else subject or _ELSEWHERE
    return subject


_ELSEWHERE = "under another name, or only moved"


def _require_tested(at: Here, task: Task, workspace: Checkout | None, merged: Merged) -> None:
    """Where the workspace has the very same files, there; else on files of their own."""
    command = at.config.git.test
    done = _tested(at, task, workspace, merged, command)
    if done.code == 0:
        return
    how = f"ended with exit code {done.code}" if done.code is not None else "was interrupted, nobody knows how it ended"
    tail = "\n".join(f"  {line}" for line in done.output_tail.splitlines()[-_TAIL_LINES:])
    raise TaskError(
        f"The result was tested and is not good; nothing was changed. `{command}` {how}:\n{tail}".rstrip(),
        hint=f"mend it on {task.branch}, commit, then run the command again",
        code="test_failed",
    )


def _tested(at: Here, task: Task, workspace: Checkout | None, merged: Merged, command: str) -> "Finished":
    from opencode_tasks.commands import execution
    from opencode_tasks.containers import trial

    if workspace is not None and task.status == "running" and _is_there(at, workspace, merged):
        return execution.trial(at, task, command, None, timeout_s=trial.LONGEST_S)
    ignored: Sequence[str] = repository.ignored(workspace) if workspace is not None else ()
    where = trial.session(at.store, at.config, task, at.main, merged.commit, ignored=ignored)
    return execution.trial(at, task, command, where, timeout_s=trial.LONGEST_S)


def _is_there(at: Here, workspace: Checkout, merged: Merged) -> bool:
    tree = plumbing.git(at.main, "rev-parse", "--verify", f"{merged.tip}^{{tree}}").out.strip()
    return tree == merged.tree and plumbing.head_commit(workspace) == merged.tip


def _record(at: Here, task: Task, done: Landing, *, actor: str) -> None:
    """Once, however often."""
    for event in at.store.history(task.id):
        if event.type == "branch.merged" and (event.data["tip"], event.data["into"]) == (done.tip, done.into):
            return
    data = {"branch": done.branch, "tip": done.tip, "into": done.into, "head": done.new, "how": done.how}
    at.store.record(task.id, ("branch.merged", data), actor=actor, has_happened=True)


def _document(base: str, merged: Merged, how: How) -> dict[str, Any]:
    return {"into": base, "head": merged.commit, "how": how, "changed": merged.commit != merged.onto}


def _told(task: Task, workspace: Checkout | None, done: Landing) -> list[str]:
    word = {"merge": "merged into", "squash": "squashed into", "rebase": "rebased onto"}[done.how]
    lines = [f"{task.branch} {word} {done.into}: {done.old[:9]} → {done.new[:9]}"]
    lines += [f"the files in {top} followed" for top in done.trees]
    if workspace is not None and not workspace.is_linked:
        lines.append(f"{workspace.top} stays on {task.branch}; git checkout {done.into}")
    return lines
