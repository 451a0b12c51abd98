"""What the project says of its tasks' containers: `devcontainer.json` of the commit that a task began from.

The file of the work tree is the agent's to write, and is never read.
"""

import hashlib
from collections.abc import Mapping

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import devcontainer, devcontainer_file, given, images, project_image, volumes
from opencode_tasks.containers.devcontainer import DevContainer, Facts
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import Additions, Volume
from opencode_tasks.errors import TaskError
from opencode_tasks.git import trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import approvals
from opencode_tasks.store.layout import Layout
from opencode_tasks.task import Task


def approved(checkout: Checkout, config: Config) -> set[tuple[str, str]]:
    """Variables of commands, and those of the host that a person lets them have."""
    wanted = [r for r in config.references if r.variable is not None and r.table == "environment"]
    known = approvals.load(Layout(checkout.common_dir)) if wanted else []
    return {(r.name, str(r.variable)) for r in wanted if given.is_approved(r, checkout.top, known)}


def read(checkout: Checkout, config: Config, commit: str, *, workspace: str, owner: str) -> DevContainer | None:
    """`owner`: what `${devcontainerId}` is made of. Raises `TaskError` for a file that is none."""
    found = trees.first(checkout, commit, devcontainer.PATHS)
    if found is None:
        return None
    path = found.path
    if not found.is_file or found.size_bytes > devcontainer_file.LARGEST_BYTES:
        raise TaskError(
            f"{path} of commit {commit[:9]} is no ordinary file of at most {devcontainer_file.LARGEST_BYTES >> 10} KiB",
            hint="mend it and commit, then make a task from there; or: container.devcontainer = false",
            code="devcontainer",
        )
    (text_b,) = trees.contents(checkout, [found])
    known = hashlib.sha256(owner.encode()).hexdigest()[:40]
    return devcontainer_file.parse(text_b, Facts(path, workspace, known, approved(checkout, config)))


def of(checkout: Checkout, config: Config, task: Task, clone: str) -> DevContainer | None:
    """The one that the task's container is made by. Raises `TaskError` for one that is refused."""
    if not devcontainer.is_used(task.image, setting=config.container.devcontainer):
        return None
    owner = f"{clone} {task.id}"
    found = read(checkout, config, task.base.commit, workspace=task.workspace.path, owner=owner)
    if found is None and task.image == devcontainer.IMAGE:
        raise missing(task.base.commit)
    return None if found is None else found.required()


def missing(commit: str) -> TaskError:
    return TaskError(
        f"Commit {commit[:9]} has no {' or '.join(devcontainer.PATHS)}",
        hint="commit one first; what is only in the work tree is not used",
        code="devcontainer",
    )


def image(engine: Engine, checkout: Checkout, config: Config, task: Task, found: DevContainer | None) -> str:
    """The reference to create the container from."""
    if found is not None and found.build is not None:
        return project_image.resolve(engine, project_image.recipe(checkout, task.base.commit, found.build))
    if found is not None and found.image:
        return images.resolve(engine, found.image)
    return images.resolve(
        engine, config.container.image if task.image in (None, "", devcontainer.IMAGE) else task.image
    )


def additions(
    engine: Engine, config: Config, task: Task, clone: str, tag: str, found: DevContainer | None
) -> Additions:
    """Volumes and environment: the settings' caches, and what the project adds."""
    shared = config.container.cache_scope == "project"
    caches = volumes.caches(config.container.caches, clone=clone, task_id=task.id, shared=shared)
    if found is None:
        return caches
    own = tuple(
        Volume(volumes.name_of(f"own.{name}", clone=clone, task_id=task.id, shared=shared), path, f"own.{name}", shared)
        for name, path in found.volumes
    )
    taken = {v.path for v in caches.volumes} & {v.path for v in own}
    if taken:
        raise TaskError(
            f"{found.path} has a volume where a cache of container.caches is: {', '.join(sorted(taken))}",
            hint="take one of them away",
            code="devcontainer",
        )
    return Additions({**caches.environment, **_environment(engine, tag, found)}, caches.volumes + own)


def _environment(engine: Engine, tag: str, found: DevContainer) -> Mapping[str, str]:
    made = dict(found.environment)
    refers = any("${containerEnv:" in said for said in found.remote.values() if said)
    inside = {**(images.environment(engine, tag) if refers else {}), **made}
    for name, said in found.remote.items():
        if said is None:
            made.pop(name, None)
        else:
            made[name] = devcontainer.resolved(said, inside)
    return made
