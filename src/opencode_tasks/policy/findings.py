"""What is found out about a command line while it is gone through, and where its paths lead. Pure, and lexical: no
link is followed, no file looked at.
"""

import posixpath

from opencode_tasks.policy.script import LISTED, UNKNOWN
from opencode_tasks.printable import printable
from opencode_tasks.values import value

_MARKS = frozenset((UNKNOWN, LISTED))
_PATTERN = frozenset("*?[{")
# A container's own: nothing there is anybody's work.
_SCRATCH = ("/tmp/", "/var/tmp/", "/dev/shm/", "/dev/fd/", "/proc/self/fd/")  # noqa: S108 (names, nothing is put there)
STREAMS = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty", "/dev/stdin", "/dev/zero"))
_LONGEST = 120


class Findings:
    """Grows as commands are looked at. `is_elsewhere`: what is looked at now runs on another machine or in another
    container, where no path means what it means here.
    """

    def __init__(self, workspace: str, *, is_elsewhere: bool = False) -> None:
        self.labels: set[str] = set()
        self.beyond: dict[str, None] = {}
        self.mutates = False
        self.is_elsewhere = is_elsewhere
        self.workspace = posixpath.normpath(workspace)
        self._home = _home_of(self.workspace)

    def take(self, other: "Findings") -> None:
        self.labels |= other.labels
        self.beyond |= other.beyond
        self.mutates = self.mutates or other.mutates

    def label(self, name: str) -> None:
        self.labels.add(name)
        self.mutates = True

    def lost(self, why: str, what: str) -> None:
        """A checkpoint of the workspace does not bring it back: `why` is one of a few, `what` the command or path."""
        self.mutates = True
        self.beyond[f"{why}: {shown(what)}"] = None

    def changed(self, path: str, cwd: str | None, *, is_tree: bool = False) -> None:
        """By a command in `cwd`; None: nobody knows where that is. `is_tree`: all below `path` is deleted."""
        self.mutates = True
        if self.is_elsewhere or path in STREAMS:
            return
        known, is_whole = self._known(path, cwd)
        if known is None:
            return
        covers = known == self.workspace or self.workspace.startswith(known.rstrip("/") + "/")
        is_inside = known == self.workspace or known.startswith(self.workspace + "/")
        is_all = is_tree and is_whole and known == self.workspace
        if is_all or (is_inside and ".git" in known[len(self.workspace) :].split("/")):
            self.lost("git's own files", path)
        elif not is_inside and (covers or not f"{known}/".startswith(_SCRATCH)):
            self.lost("outside the workspace", path)

    def _known(self, path: str, cwd: str | None) -> tuple[str | None, bool]:
        """The part of it that is written out, and whether that is all."""
        head, is_whole = path, True
        for n, sign in enumerate(path):
            if sign in _MARKS or sign in _PATTERN:
                head, is_whole = path[: path.rfind("/", 0, n) + 1], False
                if not head and sign in _MARKS and n == 0:
                    return None, False
                break
        if head == "~" or head.startswith("~/"):
            head = (self._home or "/~") + head[1:]
        elif head.startswith("~"):
            head = "/~" + head
        elif not head.startswith("/"):
            if cwd is None:
                return None, False
            head = f"{cwd}/{head}"
        # "//x" is "/x" on every system that we run on.
        return posixpath.normpath("/" + head.lstrip("/")), is_whole


@value
class Look:
    """At one command: `cwd` as far as it is known. `roots`: where the names come from that are listed to it."""

    found: Findings
    cwd: str | None
    roots: tuple[str, ...] = ()

    def label(self, name: str) -> None:
        self.found.label(name)

    def changed(self, *paths: str, is_tree: bool = False) -> None:
        for path in paths:
            if path.startswith(LISTED) and self.roots:
                for root in self.roots:
                    self.found.changed(f"{root}/{path}", self.cwd)
            else:
                self.found.changed(path, self.cwd, is_tree=is_tree)


def _home_of(workspace: str) -> str | None:
    """The home that the workspace lies in, if it does in one."""
    parts = workspace.split("/")
    if parts[1:2] == ["root"]:
        return "/root"
    return "/".join(parts[:3]) if parts[1:2] in (["home"], ["Users"]) and len(parts) > 3 else None


def shown(text: str) -> str:
    """On one line, of bounded length, with what is not known as `…`."""
    cut = text[: 4 * _LONGEST].replace(UNKNOWN, "…").replace(LISTED, "…")
    cut = printable(cut)
    return cut if len(cut) <= _LONGEST else cut[: _LONGEST - 1] + "…"
