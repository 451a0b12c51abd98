"""`tasksh -c COMMAND`: what OpenCode takes for its shell. Where a task is at work the command goes into the task's
container or nowhere; anywhere else it goes to the user's own shell.

Every command of an agent waits for our start, so: while the plugin's child runs (see `opencode_hooks.bridge`), it does
the work with everything loaded, and we only hand over our standard streams. Nothing is imported for that but what is
built into the interpreter.
"""

import os
import sys

from opencode_tasks.opencode_hooks.names import BRIDGE, PLAIN, UNKNOWN

_HOOKS = "--opencode-hooks"
"""The plugin starts its child so, through the one file that knows which Python has the package."""
_SIGNALS = (1, 2, 3, 15)
_SHELLS = ("bash", "zsh", "ksh", "dash", "sh")


def main() -> int:
    """The exit code of the command; 126 when it was refused."""
    words = sys.argv[1:]
    if words[:1] == [_HOOKS]:
        from opencode_tasks.opencode_hooks import bridge

        return bridge.main(words[1:])
    code = _through_bridge(words)
    if code is None:
        from opencode_tasks.opencode_hooks import shell

        code = shell.run(words)
    if code == PLAIN:
        _become_plain(words)
    return code


def _become_plain(words: list[str]) -> None:
    """The user's shell, as without us."""
    wanted = os.environ.get("SHELL", "")
    known = [wanted] if wanted.rpartition("/")[2] in _SHELLS else []
    for path in (*known, "/bin/bash", "/bin/sh"):
        try:
            os.execv(path, [path, *words])  # noqa: S606 (a shell is what we are asked for)
        except OSError:
            continue


def _through_bridge(words: list[str]) -> int | None:
    """None: nobody listens there, or what we are to hand over is not complete."""
    path = os.environ.get(BRIDGE)
    if not path or not words or words[0] != "-c":
        return None
    import _socket

    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    fields_b = [_cwd(), b"%d" % len(words), *map(os.fsencode, words)]
    content_b = b"\0".join([*fields_b, *(k + b"=" + v for k, v in os.environb.items())])
    content_b = b"%d\n" % len(content_b) + content_b
    streams_b = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    try:
        link.connect(path)
        sent = link.sendmsg([content_b], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams_b)])
    except OSError:
        return None
    return _Waiting(link).end(content_b[sent:])


def _cwd() -> bytes:
    try:
        return os.getcwdb()
    except OSError:
        return b""


class _Waiting:
    """For the one who works for us. Signals that we get are for it."""

    def __init__(self, link: "object") -> None:
        self.link = link
        self.worker = 0
        self.signals: list[int] = []

    def end(self, rest_b: bytes) -> int:
        import _signal  # type: ignore[import-not-found]

        for number in _SIGNALS:
            _signal.signal(number, self._forward)
        seen_b = b""
        try:
            self.link.sendall(rest_b)  # type: ignore[attr-defined]
            while more_b := self.link.recv(4096):  # type: ignore[attr-defined]
                seen_b += more_b
                while b"\n" in seen_b:
                    line_b, _, seen_b = seen_b.partition(b"\n")
                    code = self._obey(*line_b.split())
                    if code is not None:
                        return code
        except OSError:
            pass
        os.write(2, b"opencode-tasks: whoever ran the command went away: how it ended is not known\n")
        return UNKNOWN

    def _obey(self, word_b: bytes, number_b: bytes = b"0") -> int | None:
        if word_b == b"exit":
            return int(number_b)
        if word_b == b"plain":
            return PLAIN
        self.worker = int(number_b)
        for number in self.signals:
            self._forward(number)
        return None

    def _forward(self, number: int, _frame: object = None) -> None:
        if not self.worker:
            self.signals.append(number)
            return
        try:
            os.kill(self.worker, number)
        except ProcessLookupError:
            return  # what it did is on its way to us
