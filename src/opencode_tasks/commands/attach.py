"""`attach`: a lease on a task for one agent, so that no other writes to it without knowing."""

import shlex
from argparse import ArgumentParser, Namespace
from typing import get_args

from opencode_tasks.commands import Result, documents, here
from opencode_tasks.errors import UsageError
from opencode_tasks.store import leases
from opencode_tasks.store.leases import DEFAULT_TTL_S, started
from opencode_tasks.task import LEASE, Mode

HELP = "take the lease on a task for an agent"

_LONGEST_NAME = 100


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--agent", help="its name (default: that of the lease in the environment, else you)")
    parser.add_argument("--mode", choices=get_args(Mode), default="exclusive", help="alone (default), or beside others")
    parser.add_argument("--ttl", type=int, default=DEFAULT_TTL_S, metavar="SECONDS", help=f"default {DEFAULT_TTL_S}")
    parser.add_argument("--pid", type=int, help="the process that holds it: when it ends, so does the lease")
    parser.add_argument("--take-over", action="store_true", help="shut out who holds it, though it lives")
    here.add_expected_rev(parser)


def named(args: Namespace) -> str | None:
    """`--agent`, if it is given. Raises `UsageError` for a name that no message could show."""
    agent: str | None = args.agent
    if agent is not None and not (agent.strip() and agent.isprintable() and len(agent) <= _LONGEST_NAME):
        raise UsageError(f"--agent must be a name of at most {_LONGEST_NAME} printable characters")
    return agent


def run(args: Namespace) -> Result:
    if args.ttl < 1:
        raise UsageError("--ttl must be 1 or more seconds")
    if args.pid is not None and started(args.pid) is None:
        raise UsageError(f"--pid {args.pid}: there is no such process", hint="the process that works on the task")
    agent = named(args)
    at = here.ready()
    task = at.task(args.task)
    lease = at.store.attach(
        task.id,
        agent or at.agent,
        actor=at.actor,
        mode=args.mode,
        ttl_s=args.ttl,
        # Not who called us: agents run every command in a shell of its own, which has ended by now.
        pid=args.pid,
        take_over=args.take_over,
        expected_rev=args.expected_rev,
    )
    task = at.store.get(task.id)
    document = documents.task_document(at.store, task, documents.live_states(at.store, [task]))
    token = leases.text(task.id, lease)
    until = f"until process {lease.pid} ends" if lease.pid else f"for {lease.ttl_s} s after each use"
    lines = [
        f"{lease.agent} holds {task.id} ({lease.mode}, epoch {lease.epoch}, {until})",
        f"export {LEASE}={shlex.quote(token)}",
    ]
    return Result(document | {"lease": vars(lease) | {"token": token}}, "\n".join(lines))
