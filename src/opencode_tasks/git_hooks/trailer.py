"""The `Task-Id:` trailer, for the two hooks that can write it."""

import re
from pathlib import Path

from opencode_tasks.git import plumbing
from opencode_tasks.git.discovery import Checkout

KEY = "Task-Id"
_TEMPLATE = "opencode-task-template"
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
    message_b = path.read_bytes()
    if has_text(message_b, b"#" if comment in ("", "auto") else comment.encode()):
        if not message_b.endswith(b"\n"):
            # A merge's: interpret-trailers would put its line right under the subject.
            path.write_bytes(message_b + b"\n")
        trailer = f"{KEY}: {task_id}"
        plumbing.git(
            checkout,
            "interpret-trailers",
            "--in-place",
            "--no-divider",  # `---` in a message is text, not the end of it
            "--if-exists",
            "doNothing",
            "--trailer",
            trailer,
            str(path),
        )


def remember_template(checkout: Checkout, message: Path | None) -> None:
    """Keep the template that the editor begins with, for `is_untouched_template`; None: there is none."""
    kept = checkout.git_dir / _TEMPLATE
    if message is None:
        kept.unlink(missing_ok=True)
    else:
        kept.write_bytes((checkout.top / message).read_bytes())


def is_untouched_template(checkout: Checkout, message: Path) -> bool:
    """Whether git is about to abort because nothing was written into the template; a trailer would hide that."""
    kept = checkout.git_dir / _TEMPLATE
    try:
        template_b = kept.read_bytes()
    except FileNotFoundError:
        return False
    kept.unlink(missing_ok=True)
    return _stripped(checkout, template_b) == _stripped(checkout, (checkout.top / message).read_bytes())


def _stripped(checkout: Checkout, text_b: bytes) -> bytes:
    cut = _SCISSORS.search(text_b)
    body_b = text_b[: cut.start()] if cut else text_b
    return plumbing.git(checkout, "stripspace", "--strip-comments", stdin_b=body_b).out_b
