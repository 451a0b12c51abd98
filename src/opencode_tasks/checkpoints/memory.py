"""The task's plan.md and decisions.md in its checkpoints."""

from opencode_tasks.checkpoints import known
from opencode_tasks.checkpoints.capture import Contents
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.shadow import Shadow
from opencode_tasks.proc import CommandError
from opencode_tasks.store import Store, files, plan_edits
from opencode_tasks.values import replace

NAMES = ("plan.md", "decisions.md")


def kept(shadow: Shadow, found: Contents) -> Contents:
    """With the documents as they are now, read again only when they look different."""
    folder = shadow.store.layout.task(shadow.task_id)
    looks = [files.stamp(folder / name) for name in NAMES]
    before = known.read(shadow)
    if before.memory.get("looks") != looks:
        lines = []
        for name in NAMES:
            try:
                content_b = (folder / name).read_bytes()
            except OSError:
                continue
            lines.append(f"100644 blob {_blob(shadow, content_b)}\t{name}")
        tree = shadow.git("mktree", stdin_b="\n".join(lines).encode()).out.strip()
        commit_id = shadow.git("commit-tree", tree, "-m", "memory").out.strip()
        now = {"looks": looks, "tree": tree, "commit": commit_id}
        before = replace(before, memory=now)
        known.write(shadow, before)
    return replace(found, extras=replace(found.extras, memory=before.memory["tree"]))


def _blob(shadow: Shadow, content_b: bytes) -> str:
    return shadow.git("hash-object", "-w", "--no-filters", "--stdin", stdin_b=content_b).out.strip()


def commit(shadow: Shadow) -> str:
    """What keeps the objects of `Extras.memory` from being thrown away: a parent of the checkpoint's commit."""
    return str(known.read(shadow).memory["commit"])


def restore(store: Store, shadow: Shadow, extras: Extras) -> list[str]:
    """Bring the documents back; the log takes in what that changes, as it does edits by hand. The names of those that
    were not so already.
    """
    done = []
    for name in NAMES:
        path = store.layout.task(shadow.task_id) / name
        try:
            wanted_b = shadow.git("cat-file", "blob", f"{extras.memory}:{name}").out_b
        except CommandError:
            continue  # there was none
        if path.read_bytes() == wanted_b:
            continue
        done.append(name)
        if name == "plan.md":
            text = wanted_b.decode(errors="surrogateescape")
            plan_edits.change(store, shadow.task_id, lambda _, text=text: text)  # type: ignore[misc]
        else:
            store.decisions(shadow.task_id)
            files.replace(path, wanted_b)
            store.decisions(shadow.task_id)
    return done
