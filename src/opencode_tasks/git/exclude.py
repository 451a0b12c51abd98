"""Lines in `<git common dir>/info/exclude`, added once and taken out to the byte."""

from collections.abc import Sequence
from pathlib import Path

from opencode_tasks.git.discovery import Checkout
from opencode_tasks.store import files
from opencode_tasks.values import value

LINE = "/.tasks"  # no trailing slash: a link is not a directory to git


@value
class Added:
    """`text` as it was appended; empty when the lines were there before us."""

    text: str
    made_file: bool
    made_directory: bool


def path_of(checkout: Checkout) -> Path:
    # People keep it as a link to a file of theirs.
    return (checkout.common_dir / "info" / "exclude").resolve()


def has_line(checkout: Checkout) -> bool:
    return not missing(checkout, (LINE,))


def missing(checkout: Checkout, lines: Sequence[str]) -> list[str]:
    """Of `lines` those that are not there."""
    try:
        there = set(path_of(checkout).read_bytes().splitlines())
    except FileNotFoundError:
        return list(lines)
    return [line for line in lines if line.encode() not in there]


def plan(checkout: Checkout, lines: Sequence[str] = (LINE,)) -> Added | None:
    """What `add` is going to do; None when they are there already."""
    wanted = missing(checkout, lines)
    if not wanted:
        return None
    path = path_of(checkout)
    before_b = path.read_bytes() if path.exists() else b""
    text = "".join(f"{line}\n" for line in wanted)
    text = ("\n" if before_b and not before_b.endswith(b"\n") else "") + text
    return Added(text, made_file=not path.exists(), made_directory=not path.parent.is_dir())


def add(checkout: Checkout, planned: Added) -> None:
    path = path_of(checkout)
    with files.refused_writes(path):
        path.parent.mkdir(exist_ok=True)
        before_b = b"" if planned.made_file else path.read_bytes()
        files.replace(path, before_b + planned.text.encode())


def remove(checkout: Checkout, added: Added) -> None:
    path = path_of(checkout)
    if not added.text or not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    last = -1
    for said in reversed(added.text.encode().split()):
        ours = [n for n, line in enumerate(lines) if line.rstrip(b"\r\n") == said]
        if ours:
            last = ours[-1]
            del lines[last]
    rest_b = b"".join(lines)
    if added.text.startswith("\n") and last == len(lines):
        rest_b = rest_b.removesuffix(b"\n")  # nobody has written after us: the line before had no end
    with files.refused_writes(path):
        if added.made_file and not rest_b:
            path.unlink()
            if added.made_directory and not any(path.parent.iterdir()):
                path.parent.rmdir()
        else:
            files.replace(path, rest_b)
