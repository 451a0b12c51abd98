"""The tables of `index.db`. It holds no truth: another version makes it anew."""

from opencode_tasks import fold

VERSION = f"2 {fold.VERSION}"
PARTS = ("title", "branch", "plan", "decisions", "commands")
TABLES = """
create table meta (key text primary key, value text) without rowid;
create table waiting (id text primary key, rev integer) without rowid;
create table tasks (
    n integer primary key, id text not null, branch text, owner text, status text, parent text, created_at text,
    updated_at text, deleted integer, open integer, commands integer, failures integer, command_ms integer,
    checkpoints integer, decisions integer, pending_ms integer, running_ms integer, paused_ms integer,
    since_ms integer, decided integer, cpu_ms integer, memory_bytes integer, oom_kills integer, held integer,
    plan_stamp text, damage text
);
create table docs (n integer primary key, doc text, crc integer, at text);
create virtual table texts using fts5 (
    title, branch, plan, decisions, commands, tokenize = "unicode61 remove_diacritics 2"
);
"""
INDEXES = """
create unique index by_id on tasks (id);
create index by_time on tasks (deleted, created_at, id);
create index by_update on tasks (deleted, updated_at, id);
create index by_status_time on tasks (status, deleted, created_at, id);
create index by_status_update on tasks (status, deleted, updated_at, id);
create index by_owner_time on tasks (owner, status, deleted, created_at, id);
create index by_owner_update on tasks (owner, status, deleted, updated_at, id);
create index by_branch on tasks (branch);
create index by_parent on tasks (parent) where parent is not null;
create index by_open on tasks (open, updated_at, id, plan_stamp);
create index by_damage on tasks (id) where damage is not null;
"""
COLUMNS = (
    *("id", "branch", "owner", "status", "parent", "created_at", "updated_at", "deleted", "open", "commands"),
    *("failures", "command_ms", "checkpoints", "decisions", "pending_ms", "running_ms", "paused_ms", "since_ms"),
    *("decided", "cpu_ms", "memory_bytes", "oom_kills", "held", "plan_stamp", "damage"),
)
INSERT = f"insert into tasks ({', '.join(COLUMNS)}) values ({', '.join('?' * len(COLUMNS))})"
UPDATE = f"update tasks set {', '.join(f'{c} = ?' for c in COLUMNS)} where n = ?"
INSERT_DOC = "insert or replace into docs values (?, ?, ?, ?)"
INSERT_TEXTS = f"insert into texts (rowid, {', '.join(PARTS)}) values (?{', ?' * len(PARTS)})"
