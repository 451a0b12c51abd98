"""What is in an index, for tests that compare two."""

import sqlite3

from opencode_tasks.store import Store


def opened(store: Store) -> sqlite3.Connection:
    return sqlite3.connect(store.layout.index, isolation_level=None)


def contents(store: Store) -> dict[str, object]:
    """All rows and texts by the task's id; brought up to date first."""
    store.index.count()
    db = opened(store)
    db.row_factory = sqlite3.Row
    ids = dict(db.execute("select n, id from tasks").fetchall())
    found: dict[str, object] = {"waiting": [tuple(row) for row in db.execute("select * from waiting")]}
    for table in ("tasks", "docs", "texts"):
        key = "rowid" if table == "texts" else "n"
        for row in db.execute(f"select {key} as key, * from {table}"):  # noqa: S608 (names of our own)
            values = dict(zip(row.keys(), row, strict=True))
            found[f"{ids[row['key']]} {table}"] = {k: v for k, v in values.items() if k not in ("key", "n")}
    assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
    db.execute("insert into texts (texts) values ('integrity-check')")
    db.close()
    return found
