"""The task's plan.md and decisions.md in its checkpoints."""

from opencode_tasks.checkpoints import known
from opencode_tasks.checkpoints.capture import Contents, capture
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.errors import TaskError
from opencode_tasks.proc import CommandError
from opencode_tasks.store import Store, files, plan, plan_edits
from opencode_tasks.values import replace

NAMES = ("plan.md", "decisions.md")


def kept(shadow: Shadow, found: Contents) -> Contents:
    """With the documents as they are now, read again only when they look different."""
    folder = shadow.store.layout.task(shadow.task_id)
    before = known.read(shadow)
    if before.memory.get("looks") != [files.stamp(folder / name) for name in NAMES]:
        shadow.store.decisions(shadow.task_id)  # edits by hand become decisions
    looks = [files.stamp(folder / name) for name in NAMES]
    if before.memory.get("looks") != looks:
        lines = []
        for name in NAMES:
            try:
                content_b = plan.read(folder / name)  # through no link
            except (OSError, TaskError):
                continue
            lines.append(f"100644 blob {_blob(shadow, content_b)}\t{name}")
        tree = shadow.git("mktree", stdin_b="\n".join(lines).encode()).out.strip()
        commit_id = shadow.git("commit-tree", tree, "-m", "memory").out.strip()
        now = {"looks": looks, "tree": tree, "commit": commit_id}
        before = replace(before, memory=now)
        known.write(shadow, before)
    return replace(found, extras=replace(found.extras, memory=before.memory["tree"]))


def contents(shadow: Shadow, *, thorough: bool = False) -> Contents:
    """What a checkpoint taken now holds: the files, as `capture`, and the documents."""
    return kept(shadow, capture(shadow, thorough=thorough))


def _blob(shadow: Shadow, content_b: bytes) -> str:
    return shadow.git("hash-object", "-w", "--no-filters", "--stdin", stdin_b=content_b).out.strip()


def commit(shadow: Shadow) -> str:
    """What keeps the objects of `Extras.memory` from being thrown away: a parent of the checkpoint's commit."""
    return str(known.read(shadow).memory["commit"])


def restore(store: Store, shadow: Shadow, extras: Extras, *, actor: str) -> list[str]:
    """Bring the documents back, decisions by events like any other. The names of those that were not so already."""
    done = []
    for name in NAMES:
        try:
            text = shadow.git("cat-file", "blob", f"{extras.memory}:{name}").out_b.decode(errors="surrogateescape")
        except CommandError:
            continue  # there was none
        if name == "decisions.md":
            is_other = store.restore_decisions(shadow.task_id, text, actor=actor)
        else:
            is_other = _restore_plan(store, shadow.task_id, text)
        if is_other:
            done.append(name)
    return done


def _restore_plan(store: Store, task_id: str, text: str) -> bool:
    was: list[str] = []

    def put(now: str) -> str:
        was.append(now)
        return text

    plan_edits.change(store, task_id, put)
    return was[-1] != text
