"""Agents on a task: who holds it, and who may not write any more."""

from opencode_tasks.errors import TaskError
from opencode_tasks.store.tasks import Tasks
from opencode_tasks.task import Lease, Mode, Task


class Agents(Tasks):
    """`leases` decides; here it is done, under the task's lock."""

    def attach(
        self,
        task_id: str,
        agent: str,
        *,
        actor: str,
        mode: Mode = "exclusive",
        ttl_s: int | None = None,
        pid: int | None = None,
        take_over: bool = False,
        expected_rev: int | None = None,
    ) -> Lease:
        """A lease for `agent`, which process `pid` of this machine holds, if one does.

        Raises `ConflictError` (code `held`) naming the holder that lives and is in the way.
        """
        from opencode_tasks.store import leases

        path = self.layout.lease(task_id)
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            self._require_rev(task, expected_rev)
            if not task.is_open:
                raise TaskError(f"Task {task.id} is {task.status}: nobody works on it any more", code="not_running")
            who, ttl_s = leases.process(pid), ttl_s or leases.DEFAULT_TTL_S
            made = leases.decide(task, agent, mode, ttl_s, who, leases.lives(task, path), take_over=take_over)
            if isinstance(made, Lease):
                leases.renew(path, task, made)
                return made
            task = self._append(task_id, loaded, (made,), actor, None)
            lease = task.leases[-1]
            leases.renew(path, task, lease)
            return lease

    def renew(self, task_id: str, lease: Lease) -> None:
        """Say that the lease is in use. Raises `FencedError` when it is not held any more."""
        from opencode_tasks.store import leases

        with self._locked_task(task_id) as (task, _):
            leases.require_held(task, lease)
            leases.renew(self.layout.lease(task_id), task, lease)

    def detach(self, task_id: str, agent: str, *, actor: str, epoch: int | None = None, reason: str = "") -> Task:
        """End the agent's lease; no change when it has none (any more)."""
        with self._locked_task(task_id) as loaded:
            task = loaded[0]
            held = [h for h in task.leases if h.agent == agent and epoch in (None, h.epoch)]
            if not held:
                return task
            data = {"agent": agent, "epoch": held[0].epoch, "since": held[0].since, "reason": reason}
            return self._append(task_id, loaded, (("lease.released", data),), actor, None)
