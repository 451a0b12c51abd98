"""Layer 1: `state.json`, a checksummed projection of the log, replaced atomically."""

import hashlib
import json
import time
from pathlib import Path

from opencode_tasks.events import SCHEMA, CorruptError, from_json, newer_schema, state_line, to_json
from opencode_tasks.store import files
from opencode_tasks.store.log import Head
from opencode_tasks.task import Task


def write(path: Path, task: Task, head: Head) -> None:
    """Not synced: a torn file fails its checksum and is rebuilt from the log."""
    files.replace(path, render(task, head))


def render(task: Task, head: Head) -> bytes:
    document = {"v": SCHEMA, "task": to_json(task), "log": vars(head)}
    body = state_line(document)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{body[:-1]},"sha256":"{digest}"}}\n'.encode()


def read(path: Path) -> tuple[Task, Head]:
    """Raises `FileNotFoundError`, `CorruptError` for anything but what `write` wrote, or `newer_schema`."""
    content_b = path.read_bytes()
    at = content_b.rfind(b',"sha256":"')
    try:
        document = json.loads(content_b)
        digest = hashlib.sha256(content_b[:at] + b"}").hexdigest()
        if at < 0 or document["sha256"] != digest:
            raise CorruptError(f"{path} does not match its checksum")
        if document["v"] > SCHEMA:
            raise newer_schema(path.name, document["v"])
        return from_json(document["task"]), Head(**document["log"])
    except (ValueError, KeyError, TypeError) as e:
        raise CorruptError(f"{path} is not a state") from e


def keep_corrupt(path: Path) -> Path:
    """Move a damaged file aside, for a person to look at."""
    kept = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.replace(kept)
    return kept
