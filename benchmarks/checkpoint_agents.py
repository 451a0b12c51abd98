"""What agents run for a snapshot, and to go back: the commands of each, in its order.

The sources were read in 2026; what they say was written anew. No line of theirs is here.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.checkpoint_peers import Peer, Ran
from benchmarks.timing import BenchmarkError


class Gemini(Peer):
    """packages/core/src/services/gitService.ts of google-gemini/gemini-cli: setupShadowGitRepository,
    createFileSnapshot, restoreProjectFromSnapshot.
    """

    name = "Gemini CLI"

    def _git(self, *args: str) -> str:
        env = {"GIT_DIR": str(self.place / ".git"), "GIT_WORK_TREE": str(self.repo.top)}
        return self.run("git", *args, env={**env, **self._settings()})

    def _settings(self) -> dict[str, str]:
        return {
            "GIT_CONFIG_GLOBAL": str(self.place / ".gitconfig"),
            "GIT_CONFIG_SYSTEM": str(self.place / ".gitconfig_system_empty"),
        }

    def take(self) -> str:
        if not self.place.exists():
            self._init()
        self._git("add", ".")
        # As simple-git asks for it: a first line for the branch, then what is not clean.
        if len(self._git("status", "--porcelain", "-b", "-u", "--null").rstrip("\0").split("\0")) > 1:
            self._git("commit", "--no-verify", "--message", "snapshot")
        return self._git("rev-parse", "HEAD").strip()

    def _init(self) -> None:
        self.place.mkdir(parents=True)
        (self.place / ".gitconfig").write_text(
            "[user]\n  name = Gemini CLI\n  email = gemini-cli@google.com\n[commit]\n  gpgsign = false\n"
        )
        (self.place / ".gitconfig_system_empty").touch()
        here = ("git", "-C", str(self.place))
        self.run(*here, "init", "--initial-branch", "main", env=self._settings())
        self.run(*here, "commit", "--allow-empty", "--message", "Initial commit", env=self._settings())

    def back(self, taken: str) -> None:
        self._git("restore", "--source", taken, ".")
        self._git("clean", "-f", "-d")


class Cline(Peer):
    """sdk/packages/core/src/hooks/checkpoint-hooks.ts (createWorktreeStashCommit) and src/session/checkpoint-restore.ts
    (beginWorktreeRestoreTransaction, applyCheckpointToWorktree) of cline/cline.
    """

    name = "Cline"
    _MESSAGE = "cline checkpoint session=benchmark run=1"

    def _git(self, *args: str, codes: Sequence[int] = (0,), index: Path | None = None) -> str:
        env = {} if index is None else {"GIT_INDEX_FILE": str(index)}
        return self.run("git", "-C", str(self.repo.top), *args, codes=codes, env=env).strip()

    def forget(self) -> None:
        super().forget()
        for ref in self._git("for-each-ref", "--format=%(refname)", "refs/cline/").splitlines():
            self._git("update-ref", "-d", ref)
        self.runs = 0

    def take(self) -> str:
        self.runs += 1
        head = self._git("rev-parse", "HEAD")
        try:
            stash = self._git("stash", "create", self._MESSAGE)
            untracked = self._untracked()
        except BenchmarkError:
            return head  # so it does there, and logs a warning
        if not stash and not untracked:
            return head
        if not untracked:
            made = stash
        elif stash:
            tree, base, index = (self._git("rev-parse", f"{stash}{at}") for at in ("^{tree}", "^1", "^2"))
            made = self._commit(tree, base, index, untracked)
        else:
            tree = self._git("rev-parse", "HEAD^{tree}")
            made = self._commit(tree, head, self._commit(tree, head), untracked)
        self._git("update-ref", f"refs/cline/checkpoints/benchmark/{self.runs}", made)
        return made

    def _untracked(self) -> str:
        listed = self._git("ls-files", "--others", "--exclude-standard", "-z")
        if not listed:
            return ""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        index, paths = self.place / "index", self.place / "pathspec"
        paths.write_bytes(os.fsencode(listed))
        self._git("add", "--force", "--pathspec-from-file", str(paths), "--pathspec-file-nul", index=index)
        return self._git("commit-tree", self._git("write-tree", index=index), "-m", "untracked", index=index)

    def _commit(self, tree: str, *parents: str) -> str:
        return self._git("commit-tree", tree, *(w for p in parents for w in ("-p", p)), "-m", self._MESSAGE)

    def back(self, taken: str) -> None:
        self._git("rev-parse", "--verify", "HEAD")
        before = self._git("rev-parse", "--verify", "--quiet", "refs/stash", codes=(0, 1))
        self._git("stash", "push", "--include-untracked", "--message", "cline restore transaction")
        kept = self._git("rev-parse", "--verify", "--quiet", "refs/stash", codes=(0, 1))
        if kept and kept != before:
            self._git("update-ref", "refs/cline/restore-transactions/1", kept)
            self._git("stash", "drop", "stash@{0}")
        parents = self._git("show", "-s", "--format=%P", taken).split()
        is_stash = len(parents) > 1 and self._MESSAGE in self._git("show", "-s", "--format=%B", taken)
        self._git("cat-file", "-e", f"{taken}^{{commit}}")
        self._git("reset", "--hard", parents[0] if is_stash else taken)
        if is_stash and len(parents) > 2:
            self._git("clean", "-fd")
        if is_stash:
            self._git("stash", "apply", taken)
        if kept and kept != before:
            self._git("update-ref", "-d", "refs/cline/restore-transactions/1")


class OpenCode(Peer):
    """packages/opencode/src/snapshot/index.ts (seed, add, track, patch, revert) and src/session/revert.ts of
    anomalyco/opencode: undo takes a snapshot, then takes back what each step since then has changed.
    """

    name = "OpenCode"
    _LARGE_B = 2 << 20
    _CORE = ("-c", "core.longpaths=true", "-c", "core.symlinks=true")
    _PLAIN = ("-c", "core.autocrlf=false", *_CORE)
    _QUOTE = (*_PLAIN, "-c", "core.quotepath=false")
    _CONFIG = (
        "\n[core]\n\tautocrlf = false\n\tlongpaths = true\n\tsymlinks = true\n\tfsmonitor = false\n"
        "\tuntrackedCache = true\n[feature]\n\tmanyFiles = true\n[index]\n\tversion = 4\n\tthreads = true\n"
    )

    def forget(self) -> None:
        super().forget()
        self.steps: list[tuple[str, list[str]]] = []
        self.at = ""

    def _git(self, settings: Sequence[str], *args: str, stdin: str = "") -> Ran:
        where = ("--git-dir", str(self.place), "--work-tree", str(self.repo.top))
        return self.ran("git", *settings, *where, *args, stdin=stdin)

    def take(self) -> str:
        if not self.place.exists():
            self._init()
        self._add()
        self.at = self._git((), "write-tree").required().strip()
        return self.at

    def _init(self) -> None:
        self.place.mkdir(parents=True)
        self.run("git", "init", env={"GIT_DIR": str(self.place), "GIT_WORK_TREE": str(self.repo.top)})
        with (self.place / "config").open("a") as config:
            config.write(self._CONFIG)
        common = Path(self.run("git", "rev-parse", "--path-format=absolute", "--git-common-dir").strip())
        alternates = self.place / "objects" / "info" / "alternates"
        alternates.parent.mkdir(parents=True, exist_ok=True)
        alternates.write_text(f"{common / 'objects'}\n")
        if (common / "index").exists():
            shutil.copyfile(common / "index", self.place / "index")
        exclude = self.run("git", "rev-parse", "--path-format=absolute", "--git-path", "info/exclude")
        self.exclude = Path(exclude.strip())

    def _add(self) -> None:
        """Failures are logged there, and nothing else."""
        self._exclude([])
        words = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", ".")
        entries = [entry for entry in self._git(self._QUOTE, *words).out.split("\0") if entry]
        tracked = [entry[3:] for entry in entries if not entry.startswith("?? ") and entry[1] != " "]
        untracked = [entry[3:] for entry in entries if entry.startswith("?? ")]
        ignored = self._ignored(tracked)
        listed = ("--pathspec-from-file=-", "--pathspec-file-nul")
        if ignored:
            self._git(self._PLAIN, "rm", "--cached", "-f", "--ignore-unmatch", *listed, stdin=_literal(ignored))
        large = [name for name in untracked if self._size_b(name) > self._LARGE_B]
        if entries:
            self._exclude(large)
        files = [name for name in dict.fromkeys((*tracked, *untracked)) if name not in {*ignored, *large}]
        if files:
            self._git(self._PLAIN, "add", "--all", "--sparse", *listed, stdin=_literal(files))

    def _exclude(self, more: Iterable[str]) -> None:
        own = self.exclude.read_text().rstrip() if self.exclude.exists() else ""
        text = "\n".join(line for line in (own, *(f"/{name}" for name in more)) if line)
        target = self.place / "info" / "exclude"
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"{text}\n" if text else "")

    def _ignored(self, names: Sequence[str]) -> list[str]:
        if not names:
            return []
        where = ("--git-dir", str(self.repo.top / ".git"), "--work-tree", str(self.repo.top))
        words = ("check-ignore", "--no-index", "--stdin", "-z")
        given = (f"./{name}" if name.startswith(":") else name for name in names)
        found = self.ran("git", *self._QUOTE, *where, *words, stdin="".join(f"{name}\0" for name in given))
        if found.code != 0:
            return []
        return [name[2:] if name.startswith("./:") else name for name in found.out.split("\0") if name]

    def _size_b(self, name: str) -> int:
        path = self.repo.top / name
        return path.stat().st_size if path.is_file() else 0

    def edited(self) -> None:
        if self.at:
            self._add()
            words = ("diff", "--cached", "--no-ext-diff", "--name-only", self.at, "--", ".")
            found = self._git(self._QUOTE, *words).required()
            files = [line.strip() for line in found.strip().split("\n") if line.strip()]
            ignored = self._ignored(files)
            self.steps.append((self.at, [name for name in files if name not in ignored]))

    def back(self, taken: str) -> None:
        self.take()
        since = next(at for at, (tree, _) in enumerate(self.steps) if tree == taken)
        first: dict[str, str] = {}
        for tree, names in self.steps[since:]:
            first.update((name, tree) for name in names if name not in first)
        for tree, names in _runs(first):
            self._revert(tree, names)

    def _revert(self, tree: str, names: Sequence[str]) -> None:
        if len(names) == 1:
            self._revert_one(tree, names[0])
            return
        found = self._git(self._CORE, "ls-tree", "--name-only", tree, "--", *names)
        if found.code != 0:
            for name in names:
                self._revert_one(tree, name)
            return
        there = [name for name in names if name in found.out.strip().split("\n")]
        for at in range(0, len(there), 100):
            batch = there[at : at + 100]
            if self._git(self._CORE, "checkout", tree, "--", *self._full(batch)).code != 0:
                for name in batch:
                    self._revert_one(tree, name)
        for name in names:
            if name not in there:
                _remove(self.repo.top / name)

    def _revert_one(self, tree: str, name: str) -> None:
        if self._git(self._CORE, "checkout", tree, "--", *self._full([name])).code != 0:
            found = self._git(self._CORE, "ls-tree", tree, "--", name)
            if found.code != 0 or not found.out.strip():
                _remove(self.repo.top / name)

    def _full(self, names: Iterable[str]) -> list[str]:
        return [str(self.repo.top / name) for name in names]


def _runs(trees: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Names of one tree, of which none is a folder of another."""
    run: list[str] = []
    tree = ""
    for name, of in trees.items():
        if run and (of != tree or any(f"{name}/".startswith(f"{n}/") or f"{n}/".startswith(f"{name}/") for n in run)):
            yield tree, run
            run = []
        run.append(name)
        tree = of
    if run:
        yield tree, run


def _literal(names: Iterable[str]) -> str:
    return "".join(f":(top,literal){name}\0" for name in names)


def _remove(path: Path) -> None:
    """As Node's rm without options does: a file or a link; a folder stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
