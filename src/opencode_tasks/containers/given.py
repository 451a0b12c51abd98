"""What a command is given of the host's: variables and secret files, read at the time of use and not written here."""

import os
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from opencode_tasks import references
from opencode_tasks.config_sections import Config
from opencode_tasks.containers.session import Given
from opencode_tasks.errors import TaskError
from opencode_tasks.masking import SHORTEST, Mask
from opencode_tasks.references import Reference
from opencode_tasks.store import approvals, files
from opencode_tasks.store.approvals import Approval
from opencode_tasks.store.layout import Layout

LARGEST_B = 64 * 1024


class MissingError(TaskError):
    """The host does not have what a reference names."""

    code = "secret_missing"


def given(config: Config, main: Path, layout: Layout) -> Given:
    """What the settings say is given to every command. `main`: where relative paths begin.

    Raises `TaskError`, code `not_approved` or `secret_missing`, which names all that are.
    """
    plain = {name: said for name, said in config.environment.items() if not references.is_reference(said)}
    if not config.references:
        return Given(plain)
    approved = approvals.load(layout)
    _require_approved(config.references, main, approved)
    found: dict[Reference, bytes] = {}
    missing: list[TaskError] = []
    for reference in config.references:
        try:
            found[reference] = read(reference, main)
        except TaskError as e:
            missing.append(e)
    if missing:
        hint = "; ".join(dict.fromkeys(e.hint for e in missing))
        raise MissingError("\n  ".join(e.message for e in missing), hint=hint)
    variables = {r.name: value_b.decode() for r, value_b in found.items() if r.table == "environment"}
    secret_files = {r.name: value_b for r, value_b in found.items() if r.table == "secrets"}
    mask = Mask((r.name, value_b) for r, value_b in found.items())
    return Given({**plain, **variables}, secret_files, mask)


def _require_approved(wanted: Iterable[Reference], main: Path, approved: list[Approval]) -> None:
    new = [r for r in wanted if not is_approved(r, main, approved)]
    if new:
        said = [f"[{r.table}] {r.name} = {r.source}" for r in new]
        words = " ".join(shlex.quote(r.said) for r in new)
        raise TaskError(
            "The settings ask for values of the host that nobody has approved:\n  " + "\n  ".join(said),
            hint=f"if the container may have them: opencode-tasks secrets approve {words}",
            code="not_approved",
        )


def is_approved(reference: Reference, main: Path, approved: Iterable[Approval]) -> bool:
    """A file also has to be where it was then: a folder on the way may have become a link."""
    key = (reference.name, reference.source, place(reference, main))
    return any((one.name, one.source, one.path) == key for one in approved)


def place(reference: Reference, main: Path) -> str:
    """Where a file is, with the links above it followed; empty for a variable."""
    if reference.variable is not None:
        return ""
    said = reference.path
    path = Path.home() / said[2:] if said.startswith("~/") else main / said
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (".." must stay to be refused)


def read(reference: Reference, main: Path) -> bytes:
    """Raises `MissingError`. A variable's text ends without line breaks, as in `$(cat file)`."""
    if reference.variable is not None:
        value_b = _of_environment(reference)
    else:
        value_b = _of_file(reference, place(reference, main))
    if reference.table == "environment":
        value_b = value_b.rstrip(b"\n")
        if b"\0" in value_b or not _is_text(value_b):
            raise MissingError(
                f"{reference.said} is no text, and cannot be a variable",
                hint=f"give it as a file: {reference.name} in [secrets]",
            )
    return value_b


def _of_environment(reference: Reference) -> bytes:
    variable = str(reference.variable)
    said = os.environ.get(variable)
    if said is None:
        raise MissingError(f"{reference.said}: {variable} is not set here", hint=f"export {variable}=…")
    value_b = os.fsencode(said)
    if len(value_b) > LARGEST_B:
        raise _too_large(reference, variable)
    return value_b


def _of_file(reference: Reference, path: str) -> bytes:
    try:
        fd = files.open_without_links(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
    except OSError as e:
        why, hint = f"cannot be read: {e.strerror}", f"make {path}"
        if Path(path).is_symlink():
            why, hint = "is a link", f"name the file itself: {os.path.realpath(path)}"
        raise MissingError(f"{reference.said}: {path} {why}", hint=hint) from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise MissingError(f"{reference.said}: {path} is no ordinary file", hint="name a file")
        with open(fd, "rb", closefd=False) as f:
            value_b = f.read(LARGEST_B + 1)
    finally:
        os.close(fd)
    if len(value_b) > LARGEST_B:
        raise _too_large(reference, path)
    return value_b


def _too_large(reference: Reference, where: str) -> MissingError:
    return MissingError(
        f"{reference.said}: {where} has more than {LARGEST_B // 1024} KiB", hint="name something smaller"
    )


def _is_text(value_b: bytes) -> bool:
    try:
        value_b.decode()
    except UnicodeDecodeError:
        return False
    return True


def warning(reference: Reference, main: Path) -> str:
    """What the person should know of a reference; empty when all is well. Raises `MissingError`."""
    value_b = read(reference, main)
    if reference.variable is None:
        path = place(reference, main)
        if Path(path).lstat().st_mode & 0o077:
            return f"others may read {path}: chmod 600 {shlex.quote(path)}"
    if len(value_b.strip()) < SHORTEST:
        return f"shorter than {SHORTEST} bytes: it is not masked in what is recorded"
    return ""
