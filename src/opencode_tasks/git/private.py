"""The git directory that a task's container has over the real one: its own refs, index and objects, beside ours.

Made here, and from then on the container's to write: the host never runs git in it and believes nothing it says. What
the host knows of it lies beside it, where no container sees it.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import clean_git_env, run
from opencode_tasks.store import files
from opencode_tasks.store.layout import Layout
from opencode_tasks.store.locks import locked
from opencode_tasks.values import value

OBJECTS = "/run/opencode-objects"
"""Where the container sees the real objects."""
TAKEN = "refs/opencode-tasks/private/"
"""With a task's id: the last commit that came from its container, while it is not on our branch."""
AGREED = "refs/opencode-tasks/agreed/"
"""With a task's id: the last commit that the branch was at on both sides."""
REWRITTEN = "refs/opencode-tasks/rewritten/"
"""With a task's id: what a person let the container's commits replace, or what the container gave up."""
_COPIED = ("info/exclude", "info/attributes", "info/sparse-checkout", "info/grafts", "shallow")
# What a file looks like, who commits it and how it is merged. What names a program only runs inside.
_SETTINGS = (
    r"^(user|author|committer|i18n|merge|pull|rebase|rerere|filter)\."
    r"|^core\.(autocrlf|eol|safecrlf|filemode|ignorecase|symlinks|precomposeunicode|quotepath|whitespace|abbrev"
    r"|sparsecheckout|sparsecheckoutcone|commentchar|repositoryformatversion)$"
    r"|^(diff\.(algorithm|renames)|extensions\.objectformat|index\.version|init\.defaultbranch)$"
)
_TRAILER = """#!/bin/sh
# Which task a commit is of.
[ -s "$1" ] || exit 0
git interpret-trailers --in-place --if-exists doNothing --trailer "Task-Id: $OPENCODE_TASK_ID" "$1"
"""
# A folder changed so recently may change again without its time showing it.
_CLOCK_NS = 100_000_000
_PATIENCE_S = 60.0


@value
class Seen:
    """`inside`: what the private directory looked like when its commits were last taken; `refs`: ours, when they were
    last told. `refused`: why commits were not let in; `problem`: why the branch was not moved to those that were.
    """

    inside: list[Any] | None = None
    refs: list[Any] | None = None
    refused: str = ""
    problem: str = ""


def ensure(layout: Layout, checkout: Checkout, task_id: str, branch: str) -> Path:
    """Made when it is not there, whole or not at all. `checkout`: the task's work tree, with `branch` checked out.

    Raises `LockTimeout` when another process makes it and does not come to an end.
    """
    path = layout.private_git(task_id)
    if path.is_dir() and not path.is_symlink():
        return path
    import shutil

    new = path.with_name(".new")  # where a kill may have left one
    with files.refused_writes(path), locked(layout.lock(f"{task_id}.git-new"), timeout_s=_PATIENCE_S, hot=True):
        if path.is_dir():
            return path  # another process was first
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            refs = our_refs(checkout)
            _fill(new, layout, checkout, branch, refs)
            tip = plumbing.commit_of(checkout, f"refs/heads/{branch}")
            if tip is not None:
                note(checkout, AGREED, task_id, tip)
            remember_refs(layout, task_id, refs)
            remember(layout, task_id, Seen(_inside(new, branch), refs_stamp(checkout)))
            new.rename(path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return path


def _fill(new: Path, layout: Layout, checkout: Checkout, branch: str, refs: dict[str, str]) -> None:
    for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "hooks", "info", "logs"):
        (new / folder).mkdir(parents=True)
    # What is mounted there: without a place the engine makes one, as root.
    for folder in ("modules", str(layout.store.relative_to(layout.common_dir))):
        (new / folder).mkdir(parents=True)
    (new / "HEAD").write_bytes(os.fsencode(f"ref: refs/heads/{branch}\n"))
    (new / "config").write_text(_config(checkout))
    borrowed = [Path(OBJECTS), *alternates(checkout.common_dir / "objects")]
    (new / "objects/info/alternates").write_bytes(b"".join(os.fsencode(p) + b"\n" for p in borrowed))
    lines = [f"{sha} {name}\n" for name, sha in sorted(refs.items())]
    (new / "packed-refs").write_bytes(os.fsencode("# pack-refs with: sorted \n" + "".join(lines)))
    for name in _COPIED:
        source = checkout.git_dir if name == "info/sparse-checkout" else checkout.common_dir
        with suppress(FileNotFoundError):
            (new / name).write_bytes((source / name).read_bytes())
    (new / "hooks/prepare-commit-msg").write_text(_TRAILER)
    (new / "hooks/prepare-commit-msg").chmod(0o755)
    _copy_index(checkout, new / "index")


def _copy_index(checkout: Checkout, to: Path) -> None:
    """With its time, by which git tells which files may have changed since. Nothing, where there is none."""
    import shutil

    source = checkout.git_dir / "index"
    with suppress(FileNotFoundError):
        shutil.copy2(source, to)
        if any(checkout.git_dir.glob("sharedindex.*")):
            env = clean_git_env({"GIT_INDEX_FILE": str(to)})
            words = ("-c", "core.splitIndex=false", "update-index", "--no-split-index")
            run(("git", *plumbing.QUIET, *words), cwd=checkout.top, env=env)


def _config(checkout: Checkout) -> str:
    found = plumbing.git(checkout, "config", "-z", "--includes", "--get-regexp", _SETTINGS, check=False)
    lines = ["[core]", "\tbare = false", "\tlogAllRefUpdates = true"]
    for entry in found.out.split("\0"):
        key, has_value, said = entry.partition("\n")
        if not key:
            continue
        section, _, name = key.rpartition(".")
        outer, _, inner = section.partition(".")
        lines.append(f"[{outer} {_quoted(inner)}]" if inner else f"[{outer}]")
        lines.append(f"\t{name} = {_quoted(said)}" if has_value else f"\t{name}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def alternates(objects: Path) -> list[Path]:
    """Where else the objects are looked for, as `objects/info/alternates` says."""
    try:
        lines = (objects / "info" / "alternates").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [(objects / os.fsdecode(line)).resolve() for line in lines if line and not line.startswith(b"#")]


def our_refs(checkout: Checkout) -> dict[str, str]:
    """Name to object of everything but what is ours alone."""
    listed = plumbing.git(checkout, "for-each-ref", "--format=%(refname) %(objectname)").out.splitlines()
    pairs = (line.rpartition(" ") for line in listed)
    return {name: sha for name, _, sha in pairs if not name.startswith("refs/opencode-tasks/")}


def refs_stamp(checkout: Checkout) -> list[Any] | None:
    """Another one when a ref of ours changed since. None: nobody can tell yet."""
    common = checkout.common_dir
    paths = [common / "packed-refs", common / "reftable/tables.list"]
    for folder, names, _ in os.walk(common / "refs"):
        names[:] = sorted(name for name in names if name != "opencode-tasks")
        paths.append(Path(folder))
    stamps = [files.stamp(path) for path in paths]
    newest = max((stamp[1] for stamp in stamps if stamp), default=0)
    return [[str(p) for p in paths], stamps] if time.time_ns() - newest > _CLOCK_NS else None


def inside_stamp(layout: Layout, task_id: str, branch: str) -> list[Any]:
    """Another one when the branch moved inside. The container can put anything there: it is only looked at."""
    return _inside(layout.private_git(task_id), branch)


def _inside(path: Path, branch: str) -> list[Any]:
    return [files.stamp(path / name) for name in ("HEAD", "logs/HEAD", f"refs/heads/{branch}", "packed-refs")]


def is_due(layout: Layout, checkout: Checkout, task_id: str, branch: str) -> bool:
    """Whether anything moved on either side since; costs a few looks at files."""
    now = seen(layout, task_id)
    if now.problem or now.inside != inside_stamp(layout, task_id, branch):
        return True
    return not now.refused and (now.refs is None or now.refs != refs_stamp(checkout))


def untaken(layout: Layout, task_id: str, branch: str) -> str:
    """Why there may be commits in it that are not on our branch, as far as the host knows; empty: there are none."""
    if not layout.private_git(task_id).is_dir():
        return ""
    now = seen(layout, task_id)
    if now.refused or now.problem:
        return now.refused or now.problem
    has_moved = now.inside != inside_stamp(layout, task_id, branch)
    return "something was committed there since its commits were last taken" if has_moved else ""


def noted(checkout: Checkout, what: str, task_id: str) -> str | None:
    """`what`: one of `TAKEN`, `AGREED`, `REWRITTEN`."""
    return plumbing.commit_of(checkout, f"{what}{task_id}")


def note(checkout: Checkout, what: str, task_id: str, tip: str) -> None:
    plumbing.git(checkout, "update-ref", f"{what}{task_id}", tip)


def seen(layout: Layout, task_id: str) -> Seen:
    with suppress(OSError, ValueError, TypeError):
        return Seen(**json.loads((layout.private_git(task_id).parent / "seen.json").read_bytes()))
    return Seen()


def remember(layout: Layout, task_id: str, now: Seen) -> None:
    files.replace(layout.private_git(task_id).parent / "seen.json", json.dumps(vars(now)).encode())


def told_refs(layout: Layout, task_id: str) -> dict[str, str]:
    """Our refs as they were when they were last told."""
    with suppress(OSError):
        lines = os.fsdecode((layout.private_git(task_id).parent / "refs").read_bytes()).splitlines()
        return dict(line.split(" ") for line in lines)
    return {}


def remember_refs(layout: Layout, task_id: str, refs: dict[str, str]) -> None:
    lines = "".join(f"{name} {sha}\n" for name, sha in refs.items())
    files.replace(layout.private_git(task_id).parent / "refs", os.fsencode(lines))


def updates(told: dict[str, str], refs: dict[str, str], *, but: str) -> Iterator[str]:
    """What `git update-ref --stdin` is told, all of it, so that what was told is what is."""
    yield from (f"delete {name}" for name in told if name not in refs and name != but)
    yield from (f"update {name} {sha}" for name, sha in refs.items() if told.get(name) != sha and name != but)


def put_away(layout: Layout, task_id: str, folder: Path) -> None:
    """With all that is in it; its container is gone. `folder`: where `bring_back` finds it."""
    place = layout.private_git(task_id).parent
    if place.is_dir() and not (folder / _AWAY).exists():
        with files.refused_writes(folder):
            place.rename(folder / _AWAY)
    files.remove_tree(place)


def bring_back(layout: Layout, task_id: str, folder: Path) -> None:
    place = layout.private_git(task_id).parent
    if (folder / _AWAY).is_dir() and not place.exists():
        place.parent.mkdir(exist_ok=True)
        (folder / _AWAY).rename(place)


def forget(checkout: Checkout, what: str, task_id: str) -> None:
    plumbing.git(checkout, "update-ref", "-d", f"{what}{task_id}")


def drop(checkout: Checkout, task_id: str) -> None:
    """What keeps its commits."""
    for what in (TAKEN, AGREED, REWRITTEN):
        forget(checkout, what, task_id)


_AWAY = "private"
