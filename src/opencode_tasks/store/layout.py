"""Which file is where below the git common directory."""

import os
from pathlib import Path

FOLDER = "opencode-tasks"
LINK = ".tasks"
UNFINISHED = ".new-"
"""What a task's folder is called before it is whole."""


class Layout:
    """Paths only; nothing is read or made."""

    def __init__(self, common_dir: Path) -> None:
        self.common_dir = common_dir
        self.root = common_dir / FOLDER
        self.store = self.root / "store"
        self.allowed = self.root / "allowed.jsonl"
        self.locks = self.root / "locks"
        self._locks = str(self.locks)
        self.clone = self.root / "clone"
        self.installed = self.root / "installed.json"
        self.branches = self.root / "branches"
        self.deleting = self.root / "deleting"
        self.ties = self.root / "ties.json"
        self.settings = self.root / "settings.json"
        self.checkpoints_git = self.root / "checkpoints.git"
        self.background_log = self.root / "background.log"
        self.errors_log = self.root / "errors.log"
        self.approved = self.root / "approved.json"
        self.progress = self.root / "progress.json"
        self.feed = self.root / "feed"
        self.index = self.root / "index.db"
        self.leases = self.root / "leases"
        self.transactions = self.root / "transactions"
        self._transactions = str(self.transactions)
        self.trash = self.root / "trash"
        self.reconciled = self.root / "reconciled"
        self.plugin_stamp = self.root / "plugin.json"
        self.sessions = self.root / "sessions.json"
        self.memory_git = self.root / "memory.git"
        self.memory_place = self.memory_git / "opencode-tasks-place"

    def task(self, task_id: str) -> Path:
        return self.store / task_id

    def state(self, task_id: str) -> Path:
        return self.task(task_id) / "state.json"

    def log(self, task_id: str) -> Path:
        return self.task(task_id) / "log"

    def plan(self, task_id: str) -> Path:
        return self.task(task_id) / "plan.md"

    def decisions(self, task_id: str) -> Path:
        return self.task(task_id) / "decisions.md"

    def any_transaction(self) -> bool:
        """Whether one is committed and not carried out; while there is none there is no folder."""
        return os.path.lexists(self._transactions)

    def lock(self, name: str) -> str:
        """`name`: a task's id, or one of registry, create, checkpoints, index, memory, merging, approved,
        submodules.*.
        """
        return f"{self._locks}/{name}.lock"

    def lease(self, task_id: str) -> Path:
        return self.leases / f"{task_id}.json"

    def ready(self, task_id: str) -> Path:
        """What `containers.ready` knows of the task's container."""
        return self.root / "ready" / f"{task_id}.json"

    def held(self, task_id: str) -> Path:
        """Which of the times that everything was held still has been decided on."""
        return self.root / "held" / task_id

    def set_up(self, task_id: str) -> Path:
        """What the project wants run in the task's container, as far as it has been."""
        return self.root / "set-up" / f"{task_id}.json"

    def private_git(self, task_id: str) -> Path:
        """The git directory that the task's container sees; beside it what is known of it, which no container sees."""
        return self.root / "private" / task_id / "git"

    def merging(self, task_id: str) -> Path:
        """A merge of the task's branch into its base that is under way."""
        return self.root / "merging" / f"{task_id}.json"

    def trial(self, task_id: str) -> Path:
        """The files of a merge's result while they are tested."""
        return self.root / "trials" / task_id

    def changed(self, task_id: str) -> Path:
        """Which files the task's branch changed, as far as somebody had to know."""
        return self.root / "overlaps" / f"{task_id}.json"

    def overlaps_told(self, task_id: str) -> Path:
        """Which overlaps with other tasks were told at the task's last commit."""
        return self.root / "overlaps" / f"{task_id}.told"

    def layer_pending(self, task_id: str) -> Path:
        """That the container's own files are being brought back, or were when the process was killed."""
        return self.checkpoints_git / "ix" / task_id / "layer-restoring.json"

    def checkpoint(self, task_id: str, checkpoint_id: str) -> Path:
        return self.task(task_id) / "checkpoints" / f"{checkpoint_id}.json"
