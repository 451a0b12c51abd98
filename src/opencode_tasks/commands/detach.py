"""`detach`: an agent's lease ends; the task and its memory stay as they are."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, documents, here

HELP = "end an agent's lease on a task"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--agent", help="whose (default: that in the environment, else yours)")
    parser.add_argument("--reason", default="", help="for the log")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    agent = at.agent if args.agent is None else args.agent
    held = agent in task.agents
    task = at.store.detach(task.id, agent, actor=at.actor, reason=args.reason)
    document = documents.task_document(at.store, task, documents.live_states(at.store, [task]))
    return Result(document, f"{agent} {'left' if held else 'did not hold'} {task.id}")
