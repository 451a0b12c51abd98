"""What is decided in a task, kept in its events and shown in `decisions.md`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, CorruptError, New, encode
from opencode_tasks.store.log import now
from opencode_tasks.store.tasks import Tasks, login
from opencode_tasks.task import Lease, Task

if TYPE_CHECKING:
    from opencode_tasks.decisions import Decision, Decisions


class Deciding(Tasks):
    """Edits that people make by hand in the document are taken in before anything is written to it."""

    def decide(
        self,
        task_id: str,
        text: str,
        *,
        actor: str,
        because: str = "",
        alternatives: Sequence[str] = (),
        expected_rev: int | None = None,
        lease: Lease | None = None,
    ) -> "Decision":
        """Record a decision; `decisions.md` shows it. Edits made by hand are taken in before."""
        from opencode_tasks.store import documents

        with self._locked_task(task_id) as (task, _):
            lease = self._require_current(task, expected_rev, lease)
            made = next(documents.new_ids(self._decisions(task_id, task)))
            loaded = self._sound(task_id)  # the log may have been mended
            data = {"id": made, "text": text, "because": because, "alternatives": list(alternatives)}
            self._append(task_id, loaded, (("decision.added", data),), actor, lease)
            return next(d for d in self._project_decisions(task_id).items if d.id == made)

    def decisions(self, task_id: str) -> "Decisions":
        """What was decided, by command or by hand, in the order of the document."""
        from opencode_tasks import decisions
        from opencode_tasks.store import documents

        task = self.get(task_id)
        known = decisions.fold(task.title, self.history(task_id) if task.decision_events else ())
        edits, _ = documents.hand_edits(self.layout.decisions(task_id), known)
        if not edits:
            return known
        try:
            with self._locked_task(task_id):
                return self._project_decisions(task_id)
        except TaskError as e:
            if e.code not in ("read_only", "disk_full", "deleted"):
                raise
            return _with(known, edits, self.writer)

    def restore_decisions(self, task_id: str, text: str, *, actor: str) -> bool:
        """Make them what a `decisions.md` of before says; whether they were not."""
        from opencode_tasks import decisions

        heads = decisions.made_from(text)
        if heads is None:
            return False
        with self._locked_task(task_id):
            known = self._project_decisions(task_id)
            events = decisions.back(known, known.at(heads))
            if events:
                self._append(task_id, self._sound(task_id), events, actor, None)
                self._project_decisions(task_id)
            return bool(events)

    def _decisions(self, task_id: str, task: Task) -> "Decisions":
        """Under the task's lock. A damaged log is mended: nothing is to be appended to what was loaded before."""
        from opencode_tasks import decisions

        if not task.decision_events:
            return decisions.fold(task.title, ())  # no need to read the log
        try:
            return decisions.fold(task.title, self._stream(task_id).events())
        except CorruptError as e:
            self._mend(task_id, e)
            return decisions.fold(task.title, self._stream(task_id).events())

    def _project_decisions(self, task_id: str) -> "Decisions":
        """Take in what was edited by hand, and write the document. Under the task's lock."""
        from opencode_tasks.store import documents

        path = self.layout.decisions(task_id)
        for _ in range(10):
            known = self._decisions(task_id, self._sound(task_id)[0])
            loaded = self._sound(task_id)  # the log may have been mended
            edits, read_b = documents.hand_edits(path, known)
            if edits:
                self._append(task_id, loaded, edits, f"user:{login()}", None)
                known = self._decisions(task_id, self._sound(task_id)[0])
            if documents.write_decisions(path, known, read_b):
                break
        # Edited without end: what was decided is in the log, and the next change writes it.
        return known


def _with(known: "Decisions", edits: Sequence[New], writer: str) -> "Decisions":
    """As if the edits were recorded, where nothing can be."""
    from opencode_tasks import decisions

    seq = known.heads.get(writer, 0)
    made = [
        encode(writer, seq + n, 1, now(), f"user:{login()}", 0, type_, data, GENESIS)[0]
        for n, (type_, data) in enumerate(edits, 1)
    ]
    return decisions.fold(known.title, (*known.events, *made))
