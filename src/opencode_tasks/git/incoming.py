"""Commits that a container made: taken as a bundle, looked at in quarantine, and only then among our own objects.

Nothing in it is believed. How large its objects are is read before git sees them; git checks each of them and that
none is missing; and what the commits change is looked at, in every one of them, not only in the last: a person may
check out any.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, get_args

from opencode_tasks.config_sections import OBEYED
from opencode_tasks.errors import TaskError
from opencode_tasks.git import packs, plumbing, trees
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.plumbing import QUIET
from opencode_tasks.printable import printable
from opencode_tasks.proc import CommandError, Completed, clean_git_env, run
from opencode_tasks.store import files
from opencode_tasks.values import value

Kind = Literal["gitlinks", "links", "protected", "large"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_COMMITS = 5000
_ALL_B = 8 << 30
_LOOSE = 100
_HEAD_B = 64 * 1024
_SHA = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_AS_IS = ("-c", "protocol.allow=never", "--no-replace-objects")
_STRICT = ("--strict", f"--max-input-size={_ALL_B}")


class RefusedError(TaskError):
    """The commits stay where they are. `kinds`: what a person would have to accept; empty: nobody can."""

    code = "import_refused"

    def __init__(self, reasons: Sequence[str], kinds: Collection[Kind] = ()) -> None:
        super().__init__("\n  ".join(reasons))
        self.reasons = tuple(reasons)
        self.kinds = tuple(kind for kind in KINDS if kind in kinds)


@value
class Rules:
    """`protected`: paths of the work tree that no commit of a container changes. `accepted`: by a person, this time."""

    protected: tuple[str, ...]
    largest_b: int
    accepted: tuple[Kind, ...] = ()


@value
class _Change:
    mode: str
    sha: str
    path: str


def receive(checkout: Checkout, bundle: Path, place: Path, *, ref: str, since: Sequence[str], rules: Rules) -> str:
    """The tip of `ref` in the bundle; its objects are ours now. `since`: commits of ours that it may build on.

    `place`: a folder for the quarantine. Raises `RefusedError`; then nothing of the bundle was kept.
    """
    with bundle.open("rb", buffering=0) as f:  # git gets the descriptor
        tip = _tip(f, ref)
        start = f.tell()
        largest_b = max(rules.largest_b, _ALL_B) if "large" in rules.accepted else rules.largest_b
        try:
            count = packs.survey(f, hash_b=len(tip) // 2, largest_b=largest_b, all_b=_ALL_B)
        except packs.PackError as e:
            kinds: tuple[Kind, ...] = ("large",) if "larger than what may come" in e.message else ()
            raise RefusedError([e.message], kinds) from e
        f.seek(start)
        with _quarantine(checkout, place) as held:
            held.take(f, is_small=count < _LOOSE)
            held.require_whole(tip, since)
            _look(held, tip, since, rules)
            held.release()
    return tip


def _tip(f: BinaryIO, ref: str) -> str:
    """What the head of a bundle says of `ref`, which is all it may have. `f` is at the pack then.

    https://git-scm.com/docs/gitformat-bundle
    """
    head_b = f.read(_HEAD_B)
    end = head_b.find(b"\n\n")
    lines = head_b[: max(end, 0)].split(b"\n")
    if lines[0] not in (b"# v2 git bundle", b"# v3 git bundle"):
        raise RefusedError(["What the container sent is no bundle of commits"])
    named = [line.partition(b" ") for line in lines[1:] if not line.startswith((b"-", b"@"))]
    if len(named) != 1 or named[0][2] != os.fsencode(ref) or not _SHA.fullmatch(named[0][0]):
        raise RefusedError([f"The container sent other branches than {printable(ref)}"])
    f.seek(end + 2)
    return named[0][0].decode()


class _Held:
    """Objects beside ours, which see ours; git sees both."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self._checkout, self._folder = checkout, folder
        self._objects = checkout.common_dir / "objects"
        self._env = clean_git_env(
            {
                "GIT_OBJECT_DIRECTORY": str(folder),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(self._objects),
                "GIT_OPTIONAL_LOCKS": "0",
            }
        )

    def git(self, *args: str, stdin_b: bytes = b"", stdin: BinaryIO | None = None) -> Completed:
        argv = ("git", *QUIET, *_AS_IS, *args)
        return run(argv, cwd=self._checkout.top, env=self._env, stdin_b=stdin_b, stdin=stdin)

    def take(self, pack: BinaryIO, *, is_small: bool) -> None:
        words = ("unpack-objects", "-q") if is_small else ("index-pack", "--stdin", "--fix-thin")
        try:
            self.git(*words, *_STRICT, stdin=pack)
        except CommandError as e:
            raise RefusedError([f"git refuses the commits: {_last_line(e.done)}"]) from e

    def require_whole(self, tip: str, since: Sequence[str]) -> None:
        """Every object that the tip leads to is here."""
        try:
            self.git("rev-list", "--objects", "--quiet", tip, "--not", *since)
        except CommandError as e:
            raise RefusedError([f"Not all of the commits came: {_last_line(e.done)}"]) from e

    def release(self) -> None:
        """Packs last, and of a pack the index last: git finds what is whole."""
        with files.refused_writes(self._objects):
            for path in sorted(self._folder.rglob("*"), key=_order):
                if path.is_file():
                    to = self._objects / path.relative_to(self._folder)
                    to.parent.mkdir(exist_ok=True)
                    if not to.exists():
                        path.rename(to)


def _order(path: Path) -> tuple[int, str]:
    return ({".pack": 1, ".rev": 2, ".idx": 3}.get(path.suffix, 0), str(path))


def _quoted(path: Path) -> str:
    """As git reads lists of directories: what has a colon in it stands in quotes."""
    text = str(path)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if ":" in text or text.startswith('"') else text


def _last_line(done: Completed) -> str:
    lines = [line for line in done.err.splitlines() if line.strip()]
    return printable(lines[0] if lines else f"exit code {done.code}")[:300]


@contextmanager
def _quarantine(checkout: Checkout, place: Path) -> Iterator[_Held]:
    """Beside our own objects: a rename is all it takes to let them in."""
    folder = place / f"incoming-{os.getpid()}"
    sweep(place)
    with files.refused_writes(folder):
        (folder / "pack").mkdir(parents=True)
    try:
        yield _Held(checkout, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(place: Path) -> None:
    """What a killed process left. Under the task's lock: no other is at it."""
    with suppress(OSError):
        for left in place.glob("incoming-*"):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def _look(held: _Held, tip: str, since: Sequence[str], rules: Rules) -> None:
    commits_b = held.git("rev-list", f"--max-count={MOST_COMMITS + 1}", tip, "--not", *since).out_b
    if commits_b.count(b"\n") > MOST_COMMITS:
        raise RefusedError([f"The container sent more than {MOST_COMMITS} commits at once"])
    found: dict[Kind | None, list[str]] = {}
    for change in _changes(held, commits_b):
        for kind, reason in _reasons(held, change, rules):
            if kind is None or kind not in rules.accepted:
                found.setdefault(kind, []).append(reason)
    if found:
        reasons = list(dict.fromkeys(reason for some in found.values() for reason in some))
        kinds = () if None in found else [kind for kind in found if kind is not None]
        raise RefusedError(_some(reasons), kinds)


def _changes(held: _Held, commits_b: bytes) -> Iterator[_Change]:
    """What each commit has that none of its parents has."""
    words = ("diff-tree", "--stdin", "-c", "-r", "--root", "-z", "--raw", "--no-renames", "--no-abbrev")
    fields = held.git(*words, "--no-ext-diff", "--ignore-submodules=none", stdin_b=commits_b).out.split("\0")
    rest, seen = iter(fields), set[_Change]()
    for field in rest:
        if field.startswith(":"):
            # A merge has as many colons as parents, and a mode and an object of each before its own.
            parents = len(field) - len(field.lstrip(":"))
            about = field[parents:].split(" ")
            change = _Change(about[parents], about[2 * parents + 1], next(rest))
            if change not in seen:
                seen.add(change)
                yield change


def _reasons(held: _Held, change: _Change, rules: Rules) -> Iterator[tuple[Kind | None, str]]:
    shown = printable(change.path)
    path = PurePosixPath(change.path.casefold())
    if path.parts[:1] == (".tasks",):
        yield None, f"{shown}: no commit has the tasks' memory in it"
    if any(path.is_relative_to(name.casefold()) for name in (*OBEYED, *rules.protected)):
        yield "protected", f"{shown}: programs on your machine do what it says"
    if change.mode == trees.SUBMODULE:
        yield "gitlinks", f"{shown}: a repository of its own, of which only a number comes"
    if change.mode == trees.LINK:
        target = held.git("cat-file", "blob", change.sha).out
        if trees.leaves(change.path, target):
            yield "links", f"{shown}: a link that leads out of the repository ({printable(target[:200])})"


def _some(reasons: list[str]) -> list[str]:
    more = len(reasons) - 20
    return [*reasons[:20], f"and {more} more"] if more > 0 else reasons


def commits(checkout: Checkout, tip: str, since: Sequence[str], *, most: int) -> list[tuple[str, list[str], str, str]]:
    """Id, parents, subject and body of what `tip` has and `since` has not, oldest first: the newest `most`."""
    words = ("log", "-z", "--no-show-signature", "--topo-order", f"--max-count={most}", "--format=%H%n%P%n%s%n%b")
    listed = plumbing.git(checkout, *_AS_IS, *words, tip, "--not", *since, "--").out
    found = []
    for text in listed.split("\0"):
        if text:
            sha, parents, subject, *body = text.split("\n", 3)
            found.append((sha, parents.split(), subject, body[0] if body else ""))
    return found[::-1]
