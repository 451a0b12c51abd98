"""`limits`: what a task's container may use up; chosen for this one task, or as its history proposes."""

from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.commands import Result, chosen, here
from opencode_tasks.containers import limits, sizes
from opencode_tasks.containers.spec import Limits
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.task import Choice, Task
from opencode_tasks.values import replace

HELP = "show or set what a task's container may use up"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    chosen.add(parser)
    parser.add_argument("--accept", action="store_true", help="take what the task's history proposes")
    parser.add_argument("--reset", action="store_true", help="as in the settings again")
    here.add_expected_rev(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    asked = chosen.choice(args)
    if (asked != Choice()) + args.accept + args.reset > 1:
        raise UsageError("Only one of: new limits, --accept, --reset")
    choice = _choice(at, task, asked, args)
    made = limits.of(at.config, choice)
    if choice != task.limits:
        task = at.store.update(task.id, {"limits": choice}, actor=at.actor, expected_rev=args.expected_rev)
        _raise_now(task, made)
    return Result(_document(at, task, made), "\n".join(_lines(at, task, made)))


def _choice(at: here.Here, task: Task, asked: Choice, args: Namespace) -> Choice:
    if args.reset:
        return Choice()
    if not args.accept:
        return replace(task.limits, **{k: v for k, v in vars(asked).items() if v is not None})
    proposal = proposed(at, task)
    if proposal is None:
        raise TaskError(f"The history of {task.id} proposes nothing else", hint="--memory SIZE sets it", code="limits")
    return replace(task.limits, memory=proposal.memory)


def _raise_now(task: Task, made: Limits) -> None:
    """What runs gets more memory at once; everything else comes with the next start."""
    if task.container.state != "running" or task.container.id is None:
        return
    from opencode_tasks.containers.engine import ContainerGoneError, Engine
    from opencode_tasks.errors import NoEngineError

    wanted = sizes.parse(made.memory, what="memory")
    try:
        engine = Engine()
        if wanted > engine.memory_limit(task.container.id):
            engine.set_memory(task.container.id, wanted)
    except (NoEngineError, ContainerGoneError):
        return


def proposed(at: here.Here, task: Task) -> limits.Proposal | None:
    return limits.proposed(limits.of(at.config, task.limits), task.use, task.commands.count)


def _document(at: here.Here, task: Task, made: Limits) -> dict[str, Any]:
    proposal = proposed(at, task)
    return {
        "task": task.id,
        "limits": vars(made),
        "chosen": vars(task.limits),
        "use": vars(task.use),
        "proposed": None if proposal is None else vars(proposal),
    }


def _lines(at: here.Here, task: Task, made: Limits) -> list[str]:
    marks = {name: " (chosen for this task)" for name, said in vars(task.limits).items() if said is not None}
    lines = [f"{task.id}", *(f"  {name:<11}{said}{marks.get(name, '')}" for name, said in vars(made).items())]
    use = task.use
    if use.memory_bytes:
        lines.append(
            f"  used       {sizes.told(use.memory_bytes)} memory at most, {use.cpu_ms / 1000:.1f} s processor time"
        )
    return lines + proposal_lines(at, task)


def proposal_lines(at: here.Here, task: Task) -> list[str]:
    proposal = proposed(at, task)
    if proposal is None:
        return []
    return [f"  proposed   {proposal.memory} memory: {proposal.why}; take it: opencode-tasks limits {task.id} --accept"]
