"""`/run/secrets` in a task's container: a folder in memory, written before each command.

Always, and not only when something changed: the files go with the container's memory, the agent may delete them, and
a digest that tells a change would lie on the host's disk. Through the supervisor it takes some milliseconds.
"""

from collections.abc import Mapping

from opencode_tasks.containers import quiet
from opencode_tasks.containers.session import Session
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store

FOLDER = "/run/secrets"
# Read from stdin, so that nothing of it is in an argument. Each file comes whole, by a rename.
_BEGIN = f"""\
set -eu
umask 077
[ -d {FOLDER} ] || mkdir {FOLDER}
cd {FOLDER}
[ "$(pwd -P)" = {FOLDER} ] || {{ echo "{FOLDER} is a link" >&2; exit 1; }}
new=.new.$$
mkdir "$new"
trap 'rm -rf "$new"' EXIT
umask 377
"""
_END = """\
mv -f "$new"/* .
for name in * .[!.]*; do
  case "$name" in
    KEPT) ;;
    .new.*) ;;
    *) rm -rf -- "$name" ;;
  esac
done
"""


def put(store: Store, task_id: str, session: Session, files: Mapping[str, bytes]) -> None:
    """Have exactly `files` there, readable by the task's user only. Raises `TaskError`."""
    text_b = script(files)
    try:
        code, said_b = quiet.run(store, task_id, session, ["/bin/sh"], stdin_b=text_b)
    except (OSError, EOFError, ValueError, TypeError) as e:
        code, said_b = 1, str(e).encode()
    if code != 0:
        said = said_b.decode(errors="replace").strip() or f"exit code {code}"
        raise TaskError(
            f"The secrets could not be put into {FOLDER} of the container: {said}",
            hint="the image needs /bin/sh with mkdir, mv and rm; then run the command again",
            code="secrets_not_given",
        )


def script(files: Mapping[str, bytes]) -> bytes:
    """For any POSIX shell. Names are checked by `references`."""
    lines = [f"printf '{_octal(content_b)}' >\"$new\"/{name}\n" for name, content_b in files.items()]
    return "".join([_BEGIN, *lines, _END.replace("KEPT", "|".join(files))]).encode()


def _octal(content_b: bytes) -> str:
    return "".join(chr(n) if chr(n).isascii() and chr(n).isalnum() else f"\\{n:03o}" for n in content_b)
