"""Taking a checkpoint, and finding it again."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from opencode_tasks.checkpoints import extras, known, layer, memory, seeding
from opencode_tasks.checkpoints.capture import Contents, capture
from opencode_tasks.checkpoints.extras import Extras
from opencode_tasks.checkpoints.layer import Layer
from opencode_tasks.checkpoints.shadow import Shadow, empty_tree, words_of
from opencode_tasks.checkpoints.walk import Skipped
from opencode_tasks.errors import TaskError
from opencode_tasks.events import New, dumps
from opencode_tasks.git import discovery, plumbing, sparse
from opencode_tasks.proc import CommandError
from opencode_tasks.store import Store, files
from opencode_tasks.task import Task
from opencode_tasks.values import replace, value

Kind = Literal["manual", "auto", "pre-restore", "milestone"]
PINNED = ("manual", "milestone")
"""Kinds that are kept however old they are."""
MANY_FILES, MANY_LINES = 20, 500
"""An automatic checkpoint is kept, too, when more than this changed after it."""


@value
class Checkpoint:
    """`changed`: paths that differ from the checkpoint before; `size_bytes`: of the files that were read for it.
    `head` and `branch` are only noted. `extras`: SHA-256 of what there is beside `tree`. `parent`: the checkpoint that
    the files came from. `risk`: what the command that came next was feared for.

    `sparse`: a sparse checkout left tracked files out, of which this says nothing. `layer`: the container's own files;
    `layer_gone`: they are no longer kept.
    """

    id: str
    kind: str
    label: str
    created_at: str
    changed: int
    commit: str
    tree: str
    head: str | None
    branch: str | None
    memory_rev: int
    skipped: tuple[Skipped, ...] = ()
    sparse: bool = False
    extras: str = ""
    parent: str | None = None
    size_bytes: int = 0
    risk: tuple[str, ...] = ()
    layer: Layer | None = None
    layer_gone: bool = False

    @property
    def number(self) -> int:
        return int(self.id[1:])

    @property
    def is_pinned(self) -> bool:
        return self.kind in PINNED or bool(self.risk)


def take(
    store: Store,
    task: Task,
    *,
    kind: Kind,
    label: str,
    actor: str,
    risk: Sequence[str] = (),
    ignored: Sequence[str] = (),
    own: Layer | None = None,
) -> tuple[Checkpoint, bool]:
    """The checkpoint, and whether it is new: without a label, an unchanged workspace gives the last one, if
    that has what there is of the container's `own`, too.

    The caller holds the task's container still.
    """
    from opencode_tasks.checkpoints import restore

    with store.checkpoint_lock(task.id):
        shadow = open_shadow(store, task, durable=kind != "auto", ignored=ignored)
        restore.finish(store, task, shadow, actor=actor)
        found = memory.contents(shadow, thorough=kind in PINNED)
        last = newest(store, task, shadow)
        is_same = last and (last.tree, last.extras, own or last.layer) == (found.tree, found.extras.digest, last.layer)
        if last and is_same and not label and (last.is_pinned or not risk):
            return last, False
        return commit(store, shadow, task, found, kind=kind, label=label, actor=actor, risk=risk, own=own), True


def changed_since(store: Store, task: Task, *, ignored: Sequence[str] = ()) -> tuple[str, int] | None:
    """The checkpoint that the files come from, and how many paths differ from it. The container is held still."""
    with store.checkpoint_lock(task.id):
        shadow = open_shadow(store, task, durable=False, ignored=ignored)
        found = capture(shadow)
        of = known.read(shadow).of
        base = next((one for one in listed(store, task.id) if one.id == of), None)
        return None if base is None else (base.id, _changed(shadow, base, found))


def open_shadow(store: Store, task: Task, *, durable: bool = True, ignored: Sequence[str] = ()) -> Shadow:
    """Under the task's checkpoint lock. `durable`: a power loss takes nothing of what is written.

    `ignored`: patterns of ignored files that are kept, too.
    """
    workspace = Path(task.workspace.path)
    if not workspace.is_dir():
        raise TaskError(f"The workspace of {task.id} is gone: {workspace}", code="workspace")
    shadow = Shadow(store, task.id, discovery.find(workspace, {}))
    shadow.is_durable, shadow.ignored = durable, ignored
    shadow.ensure()
    with suppress(FileNotFoundError):
        dropping = seeding.dropping(shadow.dir)
        dropping.rename(seeding.borrowed(shadow.dir))
    return shadow


def commit(
    store: Store,
    shadow: Shadow,
    task: Task,
    found: Contents,
    *,
    kind: Kind,
    label: str,
    actor: str,
    risk: Sequence[str] = (),
    own: Layer | None = None,
    spared: Layer | None = None,
) -> Checkpoint:
    """Give what was found, of `memory.contents`, an id, a ref of its own and a place in the log, in this order: a kill
    loses no content. `own`: the container's; for that others may go, but not the one that is `spared`.
    """
    last = newest(store, task, shadow)
    number = max(task.checkpoints.count, shadow.newest()) + 1
    title = f"c{number} {label or kind}"
    try:
        commit_id, changed, lines = _committed(shadow, found, title, last)
    except CommandError:  # the documents' objects may have been thrown away since
        known.write(shadow, replace(known.read(shadow), memory={}))
        found = memory.kept(shadow, found)
        commit_id, changed, lines = _committed(shadow, found, title, last)
    number = shadow.give(commit_id, number)
    source = shadow.source
    data: dict[str, Any] = {
        "id": f"c{number}",
        "kind": kind,
        "label": label,
        "changed": changed,
        "commit": commit_id,
        "tree": found.tree,
        "head": plumbing.head_commit(source),
        "branch": plumbing.head_branch(source),
        "memory_rev": task.rev,
        "skipped": [vars(s) for s in found.skipped],
        "parent": known.read(shadow).of,
        "size_bytes": found.size_b,
        **({"extras": found.extras.digest} if found.extras.digest else {}),
        **({"risk": list(risk)} if risk else {}),
        **({"sparse": True} if sparse.left_out(source) else {}),
        **({"layer": vars(own)} if own else {}),
    }
    events: list[New] = [("checkpoint.created", data)]
    if last and last.kind == "auto" and not last.is_pinned and (changed > MANY_FILES or lines > MANY_LINES):
        events.append(("checkpoint.pinned", {"id": last.id, "risk": ["many-changes"]}))
    if own:
        events += layer.dropping(store, [*listed(store, task.id), _of_data(data, "")], spared=spared)
    now = store.record(task.id, *events, actor=actor)
    made = _of_data(data, now.updated_at)
    path = store.layout.checkpoint(task.id, made.id)
    path.parent.mkdir(exist_ok=True)
    files.replace(path, (dumps({**data, "created_at": made.created_at}) + "\n").encode())
    now_known = known.read(shadow)
    known.write(
        shadow,
        replace(
            now_known,
            roots=found.roots,
            last=data,
            at=made.created_at,
            of=made.id,
            extras=found.extras.text,
            trees={"": found.tree, **found.extras.roots},
        ),
    )
    return made


def _committed(shadow: Shadow, found: Contents, title: str, last: Checkpoint | None) -> tuple[str, int, int]:
    """The commit, how many paths differ from `last`, and how many lines, where these are not too many to count."""
    tree, roots = found.tree, found.extras.roots
    if roots:
        lines = [f"040000 tree {tree}\tfiles", *(f"040000 tree {root}\t{at}" for at, root in enumerate(roots.values()))]
        tree = shadow.git("mktree", stdin_b="\n".join(lines).encode()).out.strip()
    message_b = f"{title}\n\n{found.extras.text}".encode(errors="replace")
    parent = ("-p", memory.commit(shadow)) if found.extras.memory else ()
    commands = _diffs(shadow, last, found)
    made, *diffs = shadow.beside(
        (*shadow.durably, "commit-tree", tree, *parent, "-F", "-"), *commands, stdin_b=message_b
    )
    changed = [word for diff in diffs for word in words_of(diff)]
    touched = sum(int(n) for word in changed if "\t" in word for n in word.split("\t")[:2] if n.isdigit())
    return made.out.strip(), len(changed) + _beside_trees(shadow, last, found), touched


def _changed(shadow: Shadow, last: Checkpoint, found: Contents) -> int:
    """How many paths differ."""
    diffs = shadow.together(*_diffs(shadow, last, found))
    return sum(len(paths) for paths in diffs) + _beside_trees(shadow, last, found)


def _diffs(shadow: Shadow, last: Checkpoint | None, found: Contents) -> list[tuple[str, ...]]:
    """The commands that name the differing paths, of each root; with their lines, when they are few."""
    was = {"": last.tree, **extras_of(shadow, last).roots} if last else {}
    now = {"": found.tree, **found.extras.roots}
    how = "--numstat" if last and found.touched <= MANY_FILES else "--name-only"
    words = ("diff-tree", "-r", "-z", "--no-renames", "--no-textconv", how)
    pairs = [(was.get(path) or empty_tree(tree), tree) for path, tree in now.items()]
    return [(*words, one, other) for one, other in pairs if one != other]


def _beside_trees(shadow: Shadow, last: Checkpoint | None, found: Contents) -> int:
    before = extras_of(shadow, last) if last else Extras()
    more = [(before.big, found.extras.big), (before.modes, found.extras.modes)]
    return sum(1 for one, other in more for path in {*one, *other} if one.get(path) != other.get(path))


def extras_of(shadow: Shadow, checkpoint: Checkpoint) -> Extras:
    """What the checkpoint holds beside its tree. Raises `TaskError` (code `damaged`) when that cannot be read."""
    if not checkpoint.extras:
        return Extras()
    now = known.read(shadow)
    if now.last is not None and now.last["commit"] == checkpoint.commit:
        text = now.extras
    else:
        message = shadow.git("cat-file", "commit", checkpoint.commit).out.partition("\n\n")[2]
        text = message.partition("\n\n")[2].strip()
    try:
        found = extras.parse(text)
    except ValueError as e:
        raise TaskError(f"What checkpoint {checkpoint.id} holds cannot be read", code="damaged") from e
    if found.digest != checkpoint.extras:
        raise TaskError(f"What checkpoint {checkpoint.id} holds is not what it held", code="damaged")
    return found


def newest(store: Store, task: Task, shadow: Shadow) -> Checkpoint | None:
    """The last one of the task that can be compared with. Nothing is, where somebody removed the shadow repository."""
    told = known.read(shadow)
    if told.last is not None and told.last["id"] == f"c{shadow.newest()}":
        return _of_data(told.last, told.at)
    last = next(reversed(listed(store, task.id)), None)
    is_there = last is not None and shadow.git("cat-file", "-e", f"{last.commit}^{{tree}}", check=False).code == 0
    return last if is_there else None


def listed(store: Store, task_id: str) -> list[Checkpoint]:
    """Every checkpoint of the task that is kept, oldest first, as the log has them."""
    found: dict[str, Checkpoint] = {}
    for event in store.history(task_id):
        if event.type == "checkpoint.created":
            one = _of_data(event.data, event.ts)
            found[one.id] = one
        elif event.type == "checkpoint.pinned":
            pinned = found.get(event.data["id"])
            if pinned is not None:
                found[pinned.id] = replace(pinned, risk=(*pinned.risk, *event.data["risk"]))
        elif event.type == "checkpoint.dropped":
            for each in event.data["ids"]:
                found.pop(each, None)
            for each in found.keys() & event.data.get("layers", ()):
                found[each] = replace(found[each], layer=None, layer_gone=True)
    return list(found.values())


def named(store: Store, task: Task, text: str) -> Checkpoint:
    """By id (`c3`, `3`), by `latest`, or by label (the newest that has it). Raises `TaskError`."""
    found = listed(store, task.id)
    wanted = f"c{text}" if text.isdigit() else text
    for checkpoint in reversed(found):
        if wanted in (checkpoint.id, checkpoint.label) or wanted == "latest":
            return checkpoint
    there = ", ".join(c.id for c in found[-10:])
    raise TaskError(
        f"Task {task.id} has no checkpoint {text!r}",
        hint=f"the newest are {there}" if there else "opencode-tasks checkpoint",
        code="no_checkpoint",
    )


def _of_data(data: Any, created_at: str) -> Checkpoint:
    skipped = tuple(Skipped(**s) for s in data["skipped"])
    plain = {k: v for k, v in data.items() if k not in ("skipped", "risk", "layer")}
    risk, own = tuple(data.get("risk", ())), Layer(**data["layer"]) if data.get("layer") else None
    return Checkpoint(**plain, created_at=created_at, skipped=skipped, risk=risk, layer=own)
