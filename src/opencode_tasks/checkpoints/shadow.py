"""The shadow repository: one per project, one index per task and root, raw bytes.

It never reads the workspace's git configuration, HEAD or index but once, at the first checkpoint of a task: an agent
may have written them, and git runs what a configuration names (filters, fsmonitor, hooks).
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from opencode_tasks.checkpoints import users_git
from opencode_tasks.errors import TaskError
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import CommandError, Completed, clean_git_env, run, run_together
from opencode_tasks.store import Store, files
from opencode_tasks.store.locks import locked

# No conversion of any kind, above every .gitattributes of the workspace.
_ATTRIBUTES = b"* -text -filter -ident -working-tree-encoding -eol\n"
_SETTINGS = {
    "core.bare": "false",
    "core.autocrlf": "false",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.attributesFile": os.devnull,
    "core.looseCompression": "1",
    # Names that git refuses for the sake of other systems are files like any other here.
    "core.protectHFS": "false",
    "core.protectNTFS": "false",
    "checkout.workers": "0",
    "index.version": "4",
    "index.skipHash": "true",
    "gc.auto": "0",
}
_DURABLE = ("-c", "core.fsync=all", "-c", "core.fsyncMethod=batch")
# Trees are on their way to the disk, and there when the commit is.
_UNDER_WAY = ("-c", "core.fsync=all", "-c", "core.fsyncMethod=writeout-only")
_IDENTITY = {
    "GIT_AUTHOR_NAME": "opencode-tasks",
    "GIT_AUTHOR_EMAIL": "opencode-tasks@localhost",
    "GIT_COMMITTER_NAME": "opencode-tasks",
    "GIT_COMMITTER_EMAIL": "opencode-tasks@localhost",
}
_TIMEOUT_S = 3600.0
MANY = 1000
"""More new files than this go into one pack, instead of a file each."""


class Shadow:
    """What git keeps of one root of a task's workspace: the workspace itself, or a repository inside it.

    `path`: of the root, from the workspace's top; empty, or ended by a slash. Every method under the task's checkpoint
    lock.
    """

    def __init__(self, store: Store, task_id: str, source: Checkout, *, path: str = "") -> None:
        self.store = store
        self.dir = store.layout.checkpoints_git
        self.source = source
        self.path = path
        self.workspace = source.top / path if path else source.top
        self.task_id = task_id
        self.place = self.dir / "ix" / task_id
        self.index = self.place / (f"root-{_short(path)}" if path else "index")
        self.settings: dict[str, str] = {}
        """Of the user's git, as far as they say which files are ignored or converted."""
        self.is_durable = True
        self.ignored: Sequence[str] = ()
        """Patterns of ignored files that are kept, too."""

    def inner(self, path: str) -> "Shadow":
        """Of a repository inside; `path` from the workspace's top."""
        shadow = Shadow(self.store, self.task_id, self.source, path=path)
        shadow.settings, shadow.is_durable, shadow.ignored = self.settings, self.is_durable, self.ignored
        self.clear_lock(shadow.index)
        return shadow

    def of(self, root: str) -> "Shadow":
        """Of any root of the workspace, whose own this is."""
        return self.inner(root) if root else self

    def ensure(self) -> None:
        """Make it when missing; take over what the project ignores; clear what a killed git left."""
        with files.refused_writes(self.dir):
            if not (self.dir / "HEAD").exists():
                self.settings = users_git.settings(self.source)
                with locked(self.store.layout.lock("checkpoints-new"), hot=True, timeout_s=60):
                    self._make()
            self.place.mkdir(parents=True, exist_ok=True)
        _keep(self.dir / "info" / "exclude", users_git.exclude(self.source))
        # We hold the lock, so no git of ours is running: this one's owner is dead.
        self.clear_lock(self.index)
        self.settings = users_git.settings_at(self.place / "settings.json", self.source)

    @property
    def object_format(self) -> str:
        """Of the user's repository: `sha1` or `sha256`."""
        return self.settings.get("extensions.objectformat", "sha1")

    def _make(self) -> None:
        if (self.dir / "HEAD").exists():
            return
        if os.path.lexists(self.dir) and (self.dir.is_symlink() or not self.dir.is_dir()):
            raise TaskError(
                f"{self.dir} is no folder: there is no place for checkpoints",
                hint=f"move it away: mv {self.dir} {self.dir}.old",
                code="damaged",
            )
        new = self.dir.with_name(f".new-{self.dir.name}")
        files.remove_tree(new)
        new.mkdir(parents=True, mode=0o700)
        env = clean_git_env({"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})
        words = ("git", "init", "--quiet", "--bare", "--template=", f"--object-format={self.object_format}")
        run((*words, "."), cwd=new, env=env)
        (new / "info").mkdir()
        (new / "info" / "attributes").write_bytes(_ATTRIBUTES)
        files.sync_dir(new)
        if self.dir.exists():  # what a killed process of an older version left
            files.remove_tree(self.dir)
        new.rename(self.dir)

    @staticmethod
    def clear_lock(index: Path) -> None:
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)

    def argv(self, *args: str) -> tuple[str, ...]:
        settings = {
            **_SETTINGS,
            "core.excludesFile": self.settings.get("core.excludesfile", users_git.personal("ignore")),
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return ("git", f"--git-dir={self.dir}", f"--work-tree={self.workspace}", *options, *args)

    def _cwd(self) -> Path:
        """A repository inside may be gone: its objects are not."""
        return self.workspace if self.workspace.is_dir() else self.dir

    def env(self) -> dict[str, str]:
        return clean_git_env(
            {
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_CONFIG_SYSTEM": os.devnull,
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_INDEX_FILE": str(self.index),
                **_IDENTITY,
            }
        )

    def git(self, *args: str, stdin_b: bytes = b"", check: bool = True) -> Completed:
        with files.refused_writes(self.dir):
            done = run(
                self.argv(*args),
                cwd=self._cwd(),
                env=self.env(),
                stdin_b=stdin_b,
                check=False,
                timeout_s=_TIMEOUT_S,
            )
        return self._judged(done, check=check)

    def together(self, *commands: Sequence[str]) -> list[list[str]]:
        """The NUL-separated output of git commands that only look, each beside the others."""
        return [words_of(done) for done in self.beside(*commands)]

    def beside(self, *commands: Sequence[str], stdin_b: bytes = b"") -> list[Completed]:
        """Git commands that do not disturb each other, all with the same input."""
        argvs = [self.argv(*words) for words in commands]
        with files.refused_writes(self.dir):
            done = run_together(argvs, cwd=self._cwd(), env=self.env(), stdin_b=stdin_b, timeout_s=_TIMEOUT_S)
        return [self._judged(each, check=True) for each in done]

    def _judged(self, done: Completed, *, check: bool) -> Completed:
        if done.code != 0 and b"No space left on device" in done.err_b:
            raise TaskError(
                f"The disk is full: `git {_command(done.argv)}` stopped; every earlier checkpoint is whole",
                hint=f"free space on the file systems of {self.dir} and {self.workspace}, then run the command again",
                code="disk_full",
            )
        if check and done.code != 0:
            raise CommandError(done)
        return done

    def paths(self, *args: str, stdin_b: bytes = b"") -> list[str]:
        """The NUL-separated output of a git command."""
        return words_of(self.git(*args, stdin_b=stdin_b))

    def update(self, gone: Sequence[str], present: Sequence[str]) -> None:
        """Bring the index to the disk at these paths, all from the root."""
        if gone:
            self.git("update-index", "-z", "--force-remove", "--stdin", stdin_b=pathspec_input(gone))
        if present:
            packed = ("-c", "core.bigFileThreshold=1", "-c", "pack.compression=1") if len(present) > MANY else ()
            words = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
            self.git(*packed, *self.durably, *words, stdin_b=pathspec_input(present))

    def write_tree(self) -> str:
        return self.git(*(_UNDER_WAY if self.is_durable else ()), "write-tree").out.strip()

    @property
    def durably(self) -> tuple[str, ...]:
        """What makes git wait until the disk has what it wrote."""
        return _DURABLE if self.is_durable else ()

    def ref(self, number: int) -> str:
        return f"refs/ckpt/{self.task_id}/{number}"

    def give(self, commit: str, number: int) -> int:
        """A ref to `commit`, of this number or the next that is free. As git writes one, without a process."""
        folder = self.dir / "refs/ckpt" / self.task_id
        with files.refused_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
            temp = folder / f"{os.getpid()}.lock"  # git takes no such name for a ref
            files.replace(temp, f"{commit}\n".encode(), durable=self.is_durable)
            try:
                while True:
                    with suppress(FileExistsError):
                        os.link(temp, folder / str(number))
                        if self.is_durable:
                            files.sync_dir(folder)
                        return number
                    number += 1  # of a checkpoint that was killed before it was in the log
            finally:
                temp.unlink(missing_ok=True)

    def newest(self) -> int:
        """The highest number that a ref of the task has; 0: none. Packed ones are in the task's memory, too."""
        try:
            names = [path.name for path in (self.dir / "refs/ckpt" / self.task_id).iterdir()]
        except FileNotFoundError:
            return 0
        return max((int(name) for name in names if name.isdigit()), default=0)


def words_of(done: Completed) -> list[str]:
    """Of output that NULs end."""
    return [os.fsdecode(word) for word in done.out_b.split(b"\0") if word]


def pathspec_input(paths: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(p) + b"\0" for p in paths)


def empty_tree(like: str) -> str:
    """Of the same hash as the object `like`; git knows it in every repository."""
    return _EMPTY if len(like) == len(_EMPTY) else _EMPTY_SHA256


_EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_EMPTY_SHA256 = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"


def _short(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


def _command(argv: Sequence[str]) -> str:
    words = iter(argv[1:])
    for word in words:
        if word == "-c":
            next(words)
        elif not word.startswith("-"):
            return word
    return ""


def _keep(path: Path, content_b: bytes) -> None:
    try:
        if path.read_bytes() == content_b:
            return
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
    files.replace(path, content_b)
