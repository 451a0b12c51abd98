"""`task-status`: one task, as it is now."""

from argparse import ArgumentParser, Namespace
from typing import Any

from opencode_tasks.commands import Result, devcontainers, documents, here, importing, overlapping
from opencode_tasks.containers import network
from opencode_tasks.git import gone, private
from opencode_tasks.task import Task, Use

HELP = "show one task: status, container, plan, checkpoints"

_SHOWN = 10


def configure(parser: ArgumentParser) -> None:
    here.add_task(parser)
    parser.add_argument("--container", action="store_true", help="what its container is, or would be, made of")


def run(args: Namespace) -> Result:
    at = here.ready()
    task = at.task(args.task)
    live = documents.live_states(at.store, [task])
    document = documents.task_document(at.store, task, live)
    container = document["container"]
    way_back = gone.way_back(at.checkout, task) if task.is_open and gone.is_gone(task) else None
    document["workspace_gone"] = way_back
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
    own = private.seen(at.store.layout, task.id)
    if own.problem:
        lines.append(f"  import       {own.problem}")
    if own.refused:
        lines.append(
            f"  import       commits of the container were not taken: {own.refused}; {importing.command(task)}"
        )
    document["import"] = {"refused": own.refused or None, "problem": own.problem or None}
    if way_back:
        lines.insert(4, f"  gone         nothing is there; to have it again: {way_back}")
    if task.container.error:
        lines.insert(5, f"  failed       {task.container.error}; try again: opencode-tasks reconcile {task.id}")
    if task.is_open and task.use != Use():
        from opencode_tasks.commands import limits

        lines += limits.proposal_lines(at, task)
    devcontainer = devcontainers.known(at, task.base.commit, task.image)
    document["devcontainer"] = {"path": devcontainer.path or None, "used": devcontainer.is_used}
    if devcontainer.path:
        lines.append(f"  devcontainer {devcontainer.told}")
    allowed = network.of_task(at.store, network.settings_of(at.store, task, at.config), task)
    refused = network.refused(at.store, task.id)
    document["network"] = network.document(allowed, refused)
    hosts = ", ".join(dict.fromkeys(one.host for one in allowed))
    lines.append(f"  network      {hosts or 'none; a person may run: opencode-tasks allow HOST'}")
    lines += [f"  refused      {line}" for line in network.refusal_lines(refused[-_SHOWN:], task.id)]
    lines += overlapping.into(document, at, task)
    if args.container:
        if devcontainer.is_used:
            document["devcontainer"]["said"] = said = devcontainers.said(at, task.base.commit, task.workspace.path)
            lines += [f"    {sentence}" for sentence in said]
        document["container"]["spec"] = made_of = _made_of(at, task)
        lines += _shown(made_of)
    return Result(document, "\n".join(lines))


def _made_of(at: here.Here, task: Task) -> dict[str, Any]:
    from opencode_tasks.containers import follow, spec
    from opencode_tasks.containers.engine import Engine

    return spec.document(follow.spec_of(at.store, Engine(), at.config, task))


def _shown(made_of: dict[str, Any]) -> list[str]:
    lines = ["", "container"]
    for name, content in made_of.items():
        if isinstance(content, dict):
            lines += [f"  {name}", *(f"    {key} = {said}" for key, said in content.items())]
        elif name == "mounts":
            modes = {True: "ro", False: "rw"}
            lines += ["  mounts", *(f"    {modes[m['read_only']]} {m['path']}" for m in content)]
        else:
            lines.append(f"  {name} = {content}")
    return lines
