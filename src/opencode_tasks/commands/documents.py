"""The `--json` document of a task (DESIGN: the contract), and its live container state."""

from collections.abc import Mapping
from typing import Any

from opencode_tasks.errors import NoEngineError
from opencode_tasks.store import Store, plan_progress
from opencode_tasks.task import ContainerState, Task

Live = Mapping[str, ContainerState] | None


def live_states(store: Store, tasks: list[Task]) -> Live:
    """What the engine says of this clone's containers; None when no engine answers.

    Costs nothing while no task has a container.
    """
    if all(task.container.id is None for task in tasks):
        return {}
    from opencode_tasks.containers.engine import Engine

    try:
        return Engine(timeout_s=10).states(store.clone_id)
    except NoEngineError:
        return None


def container_state(task: Task, live: Live) -> ContainerState:
    """`lost`: we made one and the engine has none. Without an engine, the state we last knew."""
    if live is None:
        return task.container.state
    if task.id in live:
        return live[task.id]
    return "none" if task.container.id is None else "lost"


def task_document(store: Store, task: Task, live: Live) -> dict[str, Any]:
    return {
        "id": task.id,
        "title": task.title,
        "branch": task.branch,
        "base": vars(task.base),
        "status": task.status,
        "workspace": vars(task.workspace),
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "rev": task.rev,
        "agents": list(task.agents),
        "parent": task.parent,
        "children": list(task.children),
        "depends_on": list(task.depends_on),
        "container": {
            "state": container_state(task, live),
            "id": task.container.id,
            "image": task.container.image or task.image,
            "error": task.container.error,
        },
        "plan": vars(plan_progress.of_task(store.layout, task.id)),
        "checkpoints": vars(task.checkpoints),
        "blocked": list(task.blocked),
        "owner": task.owner,
        "decisions": task.decisions.count,
        "conflicts": [vars(c) for c in task.conflicts],
        "degraded": list(task.degraded),
    }
