"""`/run/secrets` in a task's container: a folder in memory, written before each command.

Always, and not only when something changed: the files go with the container's memory, the agent may delete them, and
a digest that tells a change would lie on the host's disk. Through the supervisor it takes some milliseconds.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Mapping

from opencode_tasks.containers import links, sockets
from opencode_tasks.containers.linked import LinkedSession
from opencode_tasks.containers.links import Link
from opencode_tasks.containers.session import Session
from opencode_tasks.errors import TaskError
from opencode_tasks.store import Store
from opencode_tasks.store.files import write_all

FOLDER = "/run/secrets"
_WITHIN_S = 30.0
_SAID_BYTES = 4096
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
        if isinstance(session, LinkedSession):
            code, said_b = _through_the_supervisor(store, task_id, text_b)
        else:
            code, said_b = _through_the_engine(session.container, text_b)
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


def _through_the_supervisor(store: Store, task_id: str, stdin_b: bytes) -> tuple[int, bytes]:
    folder = sockets.folder(store.clone_id, task_id)
    link = None if folder is None else links.connect(folder)
    if link is None:
        return 1, b"its supervisor does not answer any more"
    reader, writer = os.pipe()
    stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with link.socket, os.fdopen(reader, "rb", buffering=0) as said:
        try:
            write_all(stdin, stdin_b)
            os.lseek(stdin, 0, os.SEEK_SET)
            link.socket.settimeout(_WITHIN_S)
            link.send({"argv": ["/bin/sh"], "cwd": "/", "env": {}, "size": None}, [stdin, writer, writer])
        finally:
            os.close(writer)
            os.close(stdin)
        code = _exit_code(link)
        os.set_blocking(reader, False)
        return code, (said.read(_SAID_BYTES) or b"") if select.select([reader], [], [], 0)[0] else b""


def _exit_code(link: Link) -> int:
    until = time.monotonic() + _WITHIN_S
    while True:
        link.socket.settimeout(max(0.001, until - time.monotonic()))
        for kind, content in link.messages():
            if kind == b"J" and "exit" in content:
                return int(content["exit"])


def _through_the_engine(container: str, stdin_b: bytes) -> tuple[int, bytes]:
    from opencode_tasks.containers.engine import Engine

    engine = Engine()
    exec_id = engine.new_exec(container, ["/bin/sh"], cwd="/", env={}, stdin=True, tty=False)
    with engine.start_exec(exec_id, tty=False) as stream:
        stream.settimeout(_WITHIN_S)
        stream.sendall(stdin_b)
        stream.shutdown(socket.SHUT_WR)
        said_b = b""
        while chunk := stream.recv(_SAID_BYTES):
            said_b = (said_b + chunk)[: 2 * _SAID_BYTES]
    return engine.exec_code(exec_id) or 0, _payload(said_b)


def _payload(framed_b: bytes) -> bytes:
    """Without the engine's heads of 8 bytes."""
    said_b = b""
    while len(framed_b) >= 8:
        size = struct.unpack(">xxxxL", framed_b[:8])[0]
        said_b += framed_b[8 : 8 + size]
        framed_b = framed_b[8 + size :]
    return said_b
