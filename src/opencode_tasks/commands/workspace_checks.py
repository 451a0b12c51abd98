"""What `doctor` finds out about work trees: whether all is well, the finding, the fix. Changes nothing."""

import os

from opencode_tasks.commands.here import Here
from opencode_tasks.config import FILE
from opencode_tasks.git import gone, plumbing, sparse, submodule_conflicts, workspaces


def worktrees(at: Here) -> tuple[bool, str, str]:
    tops = workspaces.work_trees(at.checkout)
    lost = [
        task
        for task in at.store.all()
        if task.is_open and gone.is_gone(task) and not any(workspaces.holds(task, top, at.checkout) for top in tops)
    ]
    damaged = [str(found) for found in plumbing.worktrees(at.checkout)[1:] if gone.pointer(found) is None]
    said = [f"{task.id}: {task.workspace.path} is gone" for task in lost]
    said += [f"{path} does not say where its files are" for path in damaged]
    fixes = [f"{task.id}: {gone.way_back(at.checkout, task)}" for task in lost]
    fixes += ["git worktree repair, in the worktree it belongs to"] if damaged else []
    return not said, "; ".join(said) or "every open task that has a worktree has it still", "; ".join(fixes)


def settings_left_out(at: Here) -> str:
    """Empty unless the repository has settings that a sparse checkout keeps from this work tree."""
    if not os.path.lexists(at.checkout.top / FILE) and str(FILE) in sparse.left_out(at.checkout):
        return f"a sparse checkout leaves {FILE} out: the defaults are in force here"
    return ""


def submodules(at: Here) -> tuple[bool, str, str]:
    found = submodule_conflicts.found(at.checkout)
    grave = [finding for finding in found if finding.kind in submodule_conflicts.GRAVE]
    detail = "; ".join(f"{f.path}: {f.message}" for f in found) or "nothing is the matter with them, or there are none"
    return not grave, detail, "; ".join(f"{f.path}: {f.hint}" for f in grave)
