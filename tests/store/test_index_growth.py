"""An index that grew with its store is the one that is made anew from it."""

import random

import pytest

from opencode_tasks.store import Store
from tests.store.conftest import new
from tests.store.indexes import contents


class _Random:
    """Whatever may happen to the tasks of a store."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.rnd = store, random.Random(seed)

    def step(self) -> None:
        ids = [t.id for t in self.store.all()]
        kinds = [self.create, self.create_many]
        if ids:
            kinds += [
                self.status,
                self.update,
                self.command,
                self.decide,
                self.by_hand,
                self.plan,
                self.delete,
                self.batch,
            ]
        self.rnd.choice(kinds)(*((self.rnd.choice(ids),) if ids else ("",)))

    def word(self) -> str:
        return f"word{self.rnd.randrange(1000)} é"

    def create(self, _: str) -> None:
        self.store.create(new(f"t-{self.rnd.randrange(10**6):06d}", title=self.word()), actor="test")

    def create_many(self, parent: str) -> None:
        many = [new(f"m-{self.rnd.randrange(10**6):06d}", parent=parent or None) for _ in range(2)]
        self.store.create_many(many, actor="test")

    def status(self, task_id: str) -> None:
        to = {"pending": "running", "running": "paused", "paused": "running"}.get(self.store.get(task_id).status)
        if to:
            self.store.ensure_status(task_id, to, reason="x", actor="test")  # type: ignore[arg-type]

    def update(self, task_id: str) -> None:
        self.store.update(task_id, {"title": self.word(), "owner": self.word()}, actor="test")

    def command(self, task_id: str) -> None:
        run = {"run": "r", "argv": ["make", self.word()], "cwd": "/"}
        done = {"run": "r", "exit_code": 1, "duration_ms": 3, "output_tail": "", "signals": []}
        self.store.record(task_id, ("command.started", run), ("command.finished", done), actor="test")

    def decide(self, task_id: str) -> None:
        self.store.decide(task_id, self.word(), actor="test")

    def by_hand(self, task_id: str) -> None:
        path = self.store.layout.decisions(task_id)
        path.write_text(path.read_text() + f"\n{self.word()}\n")
        _ = self.store.decisions(task_id)

    def plan(self, task_id: str) -> None:
        self.store.layout.plan(task_id).write_text(self.word())
        self.store.index.find("word", limit=1)

    def delete(self, task_id: str) -> None:
        if self.rnd.random() < 0.2:
            self.store.delete(task_id, reason="x", actor="test")

    def batch(self, task_id: str) -> None:
        self.store.record_many({task_id: [("note.added", {})]}, actor="test")


@pytest.mark.parametrize("seed", range(4))
def test_a_rebuilt_index_is_the_one_that_grew(store: Store, seed: int) -> None:
    changes = _Random(store, seed)
    for n in range(60):
        changes.step()
        if n % 3 == 0:
            store.index.count()
    grown = contents(store)
    store.index.rebuild()
    assert contents(store) == grown
    store.layout.index.unlink()
    assert contents(store) == grown
    assert {key.split()[0] for key in grown} == {"waiting", *store.ids()}
