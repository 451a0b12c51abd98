"""Does what `reconciling` decided, each deed after a second look under the locks of its task.

Safe when several do it at once, and beside whoever creates, runs or removes tasks: what was done
meanwhile is not done again, and what somebody holds is left.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from opencode_tasks.config_sections import Config
from opencode_tasks.containers import follow, handover, holds, reconciling, sockets, survey
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.reconciling import Action, Facts
from opencode_tasks.containers.spec import LABEL, container_name
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from opencode_tasks.store.locks import LockTimeout
from opencode_tasks.task import is_id
from opencode_tasks.values import replace, value

_EVERY_S = 60.0


@value
class Doer:
    """`patience_s`: how long to wait for somebody who holds a container."""

    store: Store
    engine: Engine
    config: Config
    facts: Facts
    actor: str
    force: bool = False
    patience_s: float = 5.0

    def do(self, action: Action) -> Action:
        """As it was done, or why not. Raises `TaskError` when the engine refuses."""
        if action.action == "leave":
            return action
        try:
            if action.what == "container":
                done = self._remove(action) if action.deletes else self._bring(action)
            else:
                done = self._delete(action)
        except LockTimeout:
            done = False
        return replace(action, done=done) if done else replace(action, action="leave", why=f"{action.why}; {_BUSY}")

    def _bring(self, action: Action) -> bool:
        task_id = str(action.task)
        if action.action in ("start", "resume"):
            follow.follow(self.store, self.engine, self.config, task_id, actor=self.actor)
            return True
        with holds.still(self.store, task_id, timeout_s=self.patience_s):
            task, found, wanted = survey.of_one(self.facts, self.store, self.engine, task_id)
            if wanted is None:
                return True  # somebody did it
            if wanted.action != action.action:
                return False
            if found is not None and wanted.action == "pause":
                self.engine.pause(found.id)
            if found is not None and wanted.action == "stop":
                container, frozen = found.id, found.state == "paused"
                if task.is_open and not holds.when_unused(
                    self.store, task_id, lambda: self._stop_unused(task_id, container, frozen)
                ):
                    return False
                if not task.is_open:
                    self.engine.stop(container, frozen=frozen)
            found = self.engine.find(action.name)
            follow.record(self.store, self.engine, task, found, self.actor)
            return wanted.action != "stop" or found is None or found.state not in ("running", "paused")

    def _stop_unused(self, task_id: str, container: str, frozen: bool) -> None:
        """A command may have come and gone before we kept commands away."""
        _, _, wanted = survey.of_one(self.facts, self.store, self.engine, task_id)
        if wanted is not None and wanted.action == "stop":
            self.engine.stop(container, frozen=frozen)

    def _remove(self, action: Action) -> bool:
        """By its id: another may have its name by now."""
        found = self.engine.find(action.id)
        if found is None:
            return True
        busy = found.state in ("running", "paused") and survey.programs(self.engine, found.id)
        if busy and not self.force:
            return False
        is_ours = found.labels.get(f"{LABEL}.clone") == self.facts.clone
        if not is_ours or action.task is None or not is_id(action.task):
            self.engine.remove(found.id)
            return True
        task_id = action.task
        with holds.still(self.store, task_id, timeout_s=self.patience_s):
            task = self.facts.tasks.get(task_id)
            is_own = found.name == container_name(task_id)
            if task is None and not survey.is_orphan(self.store, task_id):
                return False
            if not holds.when_unused(self.store, task_id, lambda: self.engine.remove(found.id)):
                return False
            if is_own:
                sockets.remove(self.facts.clone, task_id)
                self.store.layout.ready(task_id).unlink(missing_ok=True)
            if task is not None and is_own:
                follow.record(self.store, self.engine, task, None, self.actor)
        return True

    def _delete(self, action: Action) -> bool:
        if action.what == "half-made task":
            with self.store.registry_lock():
                self.store.sweep_unfinished()
        elif not survey.is_orphan(self.store, action.name):
            return False
        elif action.what == "sockets":
            sockets.remove(self.facts.clone, action.name)
        elif action.what == "ready mark":
            self.store.layout.ready(action.name).unlink(missing_ok=True)
        return True


_BUSY = "somebody is at it right now"


def quick(store: Store, engine: Engine, config: Config, *, actor: str) -> list[Action]:
    """What is cheap, starts nothing and deletes nothing: pause what should be, stop what is closed or idle."""
    _touch(store)
    facts = survey.of_those_up(store, engine, config)
    doer = Doer(store, engine, config, facts, actor, patience_s=0)
    done = []
    for action in reconciling.cheap(facts):
        with suppress(TaskError):  # the next time, or a person's `reconcile`, which tells
            done.append(doer.do(action))
    return [a for a in done if a.done]


def in_passing(store: Store, engine: Engine, config: Config, top: Path) -> None:
    """Before a command: see whether there is anything for `quick`, and have it done by a process nobody waits for.

    One list request, once a minute for the whole clone.
    """
    if not is_due(store):
        return
    _touch(store)
    with suppress(TaskError):
        facts = survey.of_those_up(store, engine, config)
        if reconciling.cheap(facts):
            handover.quick_later(store, top)


def is_due(store: Store) -> bool:
    try:
        return not 0 <= time.time() - store.layout.reconciled.stat().st_mtime < _EVERY_S
    except OSError:
        return True


def _touch(store: Store) -> None:
    with suppress(OSError):
        fd = os.open(store.layout.reconciled, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.utime(fd)
        finally:
            os.close(fd)
