"""The shadow repository: one per project, one index per task, raw bytes.

It never reads the workspace's git configuration, HEAD or index: an agent may have written
them, and git runs what a configuration names (filters, fsmonitor, hooks).
"""

import os
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.proc import CommandError, Completed, clean_git_env, run
from opencode_tasks.store import Store, files

# No conversion of any kind, above every .gitattributes of the workspace.
_ATTRIBUTES = b"* -text -filter -ident -working-tree-encoding -eol\n"
_SETTINGS = {
    "core.bare": "false",
    "core.autocrlf": "false",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.looseCompression": "1",
    # Names that git refuses for the sake of other systems are files like any other here.
    "core.protectHFS": "false",
    "core.protectNTFS": "false",
    "gc.auto": "0",
}
_IDENTITY = {
    "GIT_AUTHOR_NAME": "opencode-tasks",
    "GIT_AUTHOR_EMAIL": "opencode-tasks@localhost",
    "GIT_COMMITTER_NAME": "opencode-tasks",
    "GIT_COMMITTER_EMAIL": "opencode-tasks@localhost",
}
_TIMEOUT_S = 3600.0


class Shadow:
    """Every method under the store's checkpoint lock."""

    def __init__(self, store: Store, task_id: str, source: Checkout) -> None:
        self.dir = store.layout.checkpoints_git
        self.source = source
        self.workspace = source.top
        self.task_id = task_id
        self.index = self.dir / "ix" / task_id

    def ensure(self) -> None:
        """Make it when missing; take over what the project ignores; clear what a killed git left."""
        with files.refused_writes(self.dir):
            if not (self.dir / "HEAD").exists():
                self.dir.mkdir(parents=True, exist_ok=True)
                env = clean_git_env({"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})
                run(("git", "init", "--quiet", "--bare", "--template=", "."), cwd=self.dir, env=env)
            (self.dir / "info").mkdir(exist_ok=True)
            self.index.parent.mkdir(exist_ok=True)
        files.replace(self.dir / "info" / "attributes", _ATTRIBUTES)
        files.replace(self.dir / "info" / "exclude", _exclude(self.source))
        # We hold the lock, so no git of ours is running: this one's owner is dead.
        self.index.with_name(f"{self.index.name}.lock").unlink(missing_ok=True)
        self.excludes_file = _excludes_file(self.source)

    def git(self, *args: str, stdin_b: bytes = b"", check: bool = True) -> Completed:
        settings = {**_SETTINGS, "core.excludesFile": self.excludes_file}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        env = clean_git_env(
            {
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_CONFIG_SYSTEM": os.devnull,
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_INDEX_FILE": str(self.index),
                **_IDENTITY,
            }
        )
        argv = ("git", f"--git-dir={self.dir}", f"--work-tree={self.workspace}", *options, *args)
        with files.refused_writes(self.dir):
            done = run(argv, cwd=self.workspace, env=env, stdin_b=stdin_b, check=False, timeout_s=_TIMEOUT_S)
        if done.code != 0 and b"No space left on device" in done.err_b:
            raise TaskError(
                f"The disk is full: `git {args[0]}` stopped; every earlier checkpoint is whole",
                hint=f"free space on the file systems of {self.dir} and {self.workspace}, then run the command again",
                code="disk_full",
            )
        if check and done.code != 0:
            raise CommandError(done)
        return done

    def paths(self, *args: str, stdin_b: bytes = b"") -> list[str]:
        """The NUL-separated output of a git command."""
        return [os.fsdecode(p) for p in self.git(*args, stdin_b=stdin_b).out_b.split(b"\0") if p]

    def ref(self, number: int) -> str:
        return f"refs/ckpt/{self.task_id}/{number}"

    def numbers(self) -> list[int]:
        listed = self.git("for-each-ref", "--format=%(refname:lstrip=3)", f"refs/ckpt/{self.task_id}/")
        return sorted(int(line) for line in listed.out.split())

    def tree_of(self, revision: str) -> str:
        return self.git("rev-parse", "--verify", f"{revision}^{{tree}}").out.strip()


def pathspec_input(paths: list[str]) -> bytes:
    return b"".join(os.fsencode(p) + b"\0" for p in paths)


def _exclude(source: Checkout) -> bytes:
    try:
        own = (source.common_dir / "info" / "exclude").read_bytes()
    except FileNotFoundError:
        own = b""
    return own + b"\n/.tasks\n"


def _excludes_file(source: Checkout) -> str:
    found = run(
        ("git", "config", "--get", "--type=path", "core.excludesFile"),
        cwd=source.top,
        env=clean_git_env(),
        check=False,
    )
    if found.code == 0:
        return found.out.removesuffix("\n")
    config_home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return f"{config_home}/git/ignore"
