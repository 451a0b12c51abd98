"""The agent's list of what is to do: its plan says the same."""

from opencode_tasks import plans
from opencode_tasks.errors import TaskError
from opencode_tasks.opencode_hooks import memory
from opencode_tasks.opencode_hooks.world import Reply, Said, World
from opencode_tasks.store import plan_edits

_MOST = 50


def run(world: World, said: Said) -> Reply:
    listed = said.get("todos")
    found = world.working(said)
    if found is None or not isinstance(listed, list):
        return {}
    at, task, _ = found
    todos = [
        (str(todo.get("content") or ""), todo.get("status") == "completed")
        for todo in listed[:_MOST]
        if isinstance(todo, dict) and todo.get("status") != "cancelled"
    ]
    changed: list[int] = []

    def edit(text: str) -> str:
        made, changed[:] = plans.with_list(text, todos)
        return made

    try:
        plan_edits.change(at.store, task.id, edit)
        if changed:
            data = {"steps": changed, "by": "todo", "commit": None}
            at.store.record(task.id, ("plan.updated", data), actor=at.actor, has_happened=True)
    except TaskError as e:
        return {"log": e.message}
    return world.state(said) | {"memory": memory.text(at, at.store.get(task.id))}
