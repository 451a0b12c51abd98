"""The `Task-Id:` trailer, for the two hooks that can write it."""

import re
from pathlib import Path

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout

KEY = "Task-Id"
_SCISSORS = re.compile(rb"^. -{8,} >8 -{8,}$", re.MULTILINE)


def has_text(message_b: bytes, comment_b: bytes) -> bool:
    """Whether anybody has written anything: not only comments and the verbose diff."""
    cut = _SCISSORS.search(message_b)
    body = message_b[: cut.start()] if cut else message_b
    return any(line.strip() and not line.startswith(comment_b) for line in body.splitlines())


def add(checkout: Checkout, message: Path, task_id: str) -> None:
    """Add the trailer to a message that has text and none yet.

    A message without text stays without: git takes one that is only a trailer for
    written, and quitting the editor would no longer abort the commit.
    """
    path = checkout.top / message
    comment = plumbing.git(checkout, "config", "--get", "core.commentChar", check=False).out.strip()
    if has_text(path.read_bytes(), b"#" if comment in ("", "auto") else comment.encode()):
        trailer = f"{KEY}: {task_id}"
        plumbing.git(
            checkout,
            "interpret-trailers",
            "--in-place",
            "--if-exists",
            "doNothing",
            "--trailer",
            trailer,
            str(path),
        )
