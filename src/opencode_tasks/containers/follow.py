"""Brings one task's container to where the task's status wants it.

Looks at the state, acts, looks again: whoever changes the status while we act is seen.
Idempotent, and safe when several do it at once.
"""

from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import holds, limits, network, place, project, sidecar
from opencode_tasks.containers.engine import Engine, Found
from opencode_tasks.containers.spec import LABEL, ContainerSpec, build, container_name
from opencode_tasks.errors import ConflictError, TaskError
from opencode_tasks.git import discovery
from opencode_tasks.store import Store
from opencode_tasks.task import Container, Task


def spec_of(store: Store, engine: Engine, config: Config, task: Task) -> ContainerSpec:
    workspace = Path(task.workspace.path)
    if not workspace.is_dir():
        raise TaskError(
            f"The workspace of task {task.id} is gone: {workspace}",
            hint=f"git worktree add {workspace} {task.branch}",
            code="workspace",
        )
    checkout = discovery.find(workspace, {})
    wanted = project.of(checkout, config, task, store.clone_id)
    image = project.image(engine, checkout, config, task, wanted)
    return build(
        task,
        image,
        limits.of(config, task.limits),
        place.of(store, checkout, task.id, config.container.protected),
        project.additions(engine, config, task, store.clone_id, image, wanted),
    )


def bring_up(store: Store, engine: Engine, config: Config, task: Task, *, actor: str) -> Found:
    """A running container for a running task; recorded when anything had to be done."""
    sidecar.serve(store, engine, config, task.id)
    # Not while somebody holds it still.
    with holds.still(store, task.id):
        found = engine.ensure_running(
            lambda: spec_of(store, engine, config, task),
            when_unused=lambda do: holds.when_unused(store, task.id, do),
        )
    record(store, engine, task, found, actor)
    return found


def is_current(store: Store, engine: Engine, config: Config, task: Task, found: Found) -> bool:
    """Not so when it was kept because a command runs in it."""
    return found.labels.get(f"{LABEL}.spec") == spec_of(store, engine, config, task).digest


def follow(store: Store, engine: Engine, config: Config, task_id: str, *, actor: str) -> Task:
    """Raises `TaskError` when the engine refuses; the task's status is never changed here."""
    for _ in range(10):
        task = store.get(task_id)
        _act(store, engine, config, task, actor)
        after = store.get(task_id)
        if after.status == task.status:
            return after
    raise ConflictError(f"The status of task {task_id} keeps changing", hint="try again")


def _act(store: Store, engine: Engine, config: Config, task: Task, actor: str) -> None:
    if task.status == "running":
        bring_up(store, engine, config, task, actor=actor)
        return
    if not task.is_open:
        network.close(store, task.id)
    found = engine.find(container_name(task.id))
    if found is None:
        record(store, engine, task, None, actor)
        return
    if task.status == "paused" and found.state == "running":
        engine.pause(found.id)
    elif not task.is_open and found.state in ("running", "paused"):
        engine.stop(found.id, frozen=found.state == "paused")
    record(store, engine, task, engine.find(found.name), actor)


def record(store: Store, engine: Engine, task: Task, found: Found | None, actor: str) -> None:
    now = Container()
    if found is not None:
        now = Container(found.state, found.id, found.name, found.image, engine.address)
    if now != store.get(task.id).container:
        store.record(task.id, ("container.changed", vars(now)), actor=actor)
