"""What an agent is told of its task: in the system prompt, when it resumes, and when a session is compacted."""

from collections.abc import Iterable

from opencode_tasks import plans
from opencode_tasks.commands.here import Here
from opencode_tasks.containers import network
from opencode_tasks.events import Event
from opencode_tasks.printable import printable
from opencode_tasks.store import plan
from opencode_tasks.task import Task

# What a token is in English prose and code, by the counters of the usual models: three to four bytes.
_CHARS_PER_TOKEN = 3.5
_MOST_STEPS, _MOST_DECISIONS, _MOST_REFUSED, _MOST_EVENTS = 30, 8, 5, 12
_RULES = """\
Your shell commands run in this task's container, at the same paths; what they change outside the workspace stays there.
git in there is private: commit as usual, and the commits come to the branch. File tools write to the workspace only;
.git, .tasks and what programs of the host obey (.opencode, .envrc, .vscode) are closed to you.
A checkpoint is taken before whatever changes files: `opencode-tasks checkpoint --list`, `opencode-tasks diff`,
`opencode-tasks restore-checkpoint ID` (each as a command of its own).
Write down what you decide as a line `Decision: what, because why`: it is remembered for whoever comes next."""


def text(at: Here, task: Task, *, since_rev: int | None = None) -> str:
    """At most `opencode.memory_tokens`, the most important first. `since_rev`: tell what happened since, too."""
    parts = [_head(task), _plan(at, task), _decisions(at, task), _refused(at, task), _RULES]
    if since_rev is not None:
        parts.insert(1, _since(at, task, since_rev))
    budget = int(int(at.config.opencode.memory_tokens) * _CHARS_PER_TOKEN)
    kept: list[str] = []
    for part in filter(None, parts):
        room = budget - sum(len(one) + 2 for one in kept)
        if room < len(part):
            cut = part[: max(0, room - 30)].rpartition("\n")[0]
            kept.append(f"{cut}\n(cut: opencode-tasks task-status)" if cut else "")
            break
        kept.append(part)
    return "<task>\n" + "\n\n".join(filter(None, kept)) + "\n</task>"


def _head(task: Task) -> str:
    base = f", from {task.base.branch}" if task.base.branch else ""
    return (
        f"You work on task {task.id}: {_line(task.title)}\n"
        f"Status {task.status}, branch {_line(task.branch)}{base}, {task.commits.count} commits, "
        f"{task.checkpoints.count} checkpoints, workspace {_line(task.workspace.path)}"
    )


def _plan(at: Here, task: Task) -> str:
    path = at.store.layout.plan(task.id)
    try:
        said = plan.text_of(plan.read(path))
    except OSError:
        return ""
    lines = [f"Goal: {goal}"] if (goal := _section(said, "Goal")) else []
    steps = plans.steps(said)
    if steps:
        done = sum(step.done for step in steps)
        lines.append(f"Plan: {done} of {len(steps)} steps done ({path})")
        shown = [step for step in steps if not step.done][:_MOST_STEPS] or steps[-3:]
        lines += [f"- [{'x' if step.done else ' '}] {step.number}. {_line(step.text)}" for step in shown]
    return "\n".join(lines)


def _section(said: str, title: str) -> str:
    """What stands below a heading, on one line."""
    _, found, rest = said.partition(f"\n## {title}\n")
    return _line(rest.partition("\n## ")[0]) if found else ""


def _decisions(at: Here, task: Task) -> str:
    if not task.decisions.count:
        return ""
    items = at.store.decisions(task.id).items[-_MOST_DECISIONS:]
    told = (f"- {_line(d.text)}" + (f", because {_line(d.because)}" if d.because else "") for d in items)
    return "\n".join(["Decided so far:", *told])


def _refused(at: Here, task: Task) -> str:
    found = network.refused(at.store, task.id)[-_MOST_REFUSED:]
    lines = [f"- {_line(line)}" for line in network.refusal_lines(found, task.id)]
    return "\n".join(["The network refused (only a person can allow it):", *lines]) if lines else ""


def _since(at: Here, task: Task, rev: int) -> str:
    """`rev`: how many events the session knows."""
    news = list(_after(at, task, rev))
    told = [line for event in news if (line := _told(event))]
    begun = {event.data.get("run"): event.data.get("argv") for event in news if event.type == "command.started"}
    ended = {event.data.get("run") for event in news if event.type == "command.finished"}
    told += [
        f"- how it ended is not known: {_line(str(argv[-1]))}"
        for run, argv in begun.items()
        if argv and run not in ended
    ]
    return "\n".join(["Since you were last here:", *told[-_MOST_EVENTS:]]) if told else ""


def _after(at: Here, task: Task, rev: int) -> Iterable[Event]:
    return (event for number, event in enumerate(at.store.history(task.id), 1) if number > rev)


_TELLING = {
    "commit.recorded": lambda d: f"commit {d['sha'][:9]} {d['subject']}",
    "status.changed": lambda d: f"{d['from']} → {d['to']}: {d['reason']}",
    "checkpoint.restored": lambda d: f"the files were restored to checkpoint {d['to']}",
    "decision.added": lambda d: f"decided: {d['text']}",
    "branch.merged": lambda d: f"{d['branch']} was merged into {d['into']}",
    "commit.refused": lambda d: f"commits were not taken: {'; '.join(d['reasons'])}",
    "limit.decided": lambda d: f"{d['kind']} came to its limit: {d['decision']}",
    "session.changed": lambda d: f"a session {d['to']} {d['detail']}" if d["to"] in ("failed", "interrupted") else "",
}


def _told(event: Event) -> str:
    tell = _TELLING.get(event.type)
    try:
        said = tell(event.data) if tell else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
    return f"- {event.ts} {event.actor}: {_line(said)}" if said else ""


def _line(text_: str) -> str:
    """Whoever wrote it, it is one line, and no part of our own form."""
    return printable(" ".join(text_.split()))[:400].replace("</task>", "")
