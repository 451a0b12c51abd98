"""`task-status`: one task, as it is now."""

from argparse import ArgumentParser, Namespace

from opencode_tasks.commands import Result, documents, here

HELP = "show one task: status, container, plan, checkpoints"


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    live = documents.live_states(at.store, [task])
    document = documents.task_document(at.store, task, live)
    container = document["container"]
    engine = "" if live is not None else " (last known: no engine answers)"
    plan, checkpoints = document["plan"], document["checkpoints"]
    lines = [
        f"{task.id}  {task.status}",
        f"  title        {task.title}",
        f"  branch       {task.branch}, from {task.base.branch or 'no branch'} at {task.base.commit[:9]}",
        f"  workspace    {task.workspace.path} ({task.workspace.kind})",
        f"  container    {container['state']}{engine}" + (f", {container['image']}" if container["image"] else ""),
        f"  plan         {plan['done']} of {plan['total']} steps, {at.store.layout.plan(task.id)}",
        f"  checkpoints  {checkpoints['count']}" + (f", last {checkpoints['last']}" if checkpoints["last"] else ""),
        f"  commits      {task.commits.count}",
        f"  updated      {task.updated_at}, revision {task.rev}",
    ]
    if task.container.error:
        lines.insert(5, f"  failed       {task.container.error}; try again: opencode-tasks reconcile {task.id}")
    return Result(document, "\n".join(lines))
