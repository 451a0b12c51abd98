"""What a command may do: the risks in it, whether it changes anything, what undo does not bring back. Pure.

It answers from the line alone, in bounded time, for any bytes. The line is no sandbox and this is no guard: a
program may do anything under any name. What it serves for is said in docs/risk-labels.md.
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from opencode_tasks.policy import git_calls, reading, shell
from opencode_tasks.policy.findings import STREAMS, Findings, Look
from opencode_tasks.policy.script import LISTED, UNKNOWN, Simple
from opencode_tasks.policy.wrappers import SHELLS, Inner, inner, name_of
from opencode_tasks.values import value

_Words = tuple[str, ...]
LABELS = (
    "codemod",
    "disk",
    "docker-volumes",
    "find-delete",
    "git-branch-delete",
    "git-checkout-force",
    "git-checkout-paths",
    "git-clean",
    "git-history",
    "git-push-force",
    "git-rebase",
    "git-reset-hard",
    "git-restore",
    "git-stash",
    "git-worktree-remove",
    "migration",
    "overwrite",
    "permissions",
    "remote-delete",
    "remote-script",
    "rm-recursive",
    "unparsed",
)
# Texts within texts, commands and bytes that one line may come to: no real one does.
_DEEPEST, _MOST_COMMANDS, _MOST_WORDS, _MOST_B = 8, 20_000, 200_000, 4 * shell.LONGEST
_MOST_BEYOND = 32
_FETCHERS = frozenset(("curl", "wget", "fetch"))
_SCRIPTED = frozenset(("python", "python3", "node", "perl", "ruby", "deno", "bun"))
_TREES = (
    "shutil.rmtree(",
    "FileUtils.rm_rf",
    "FileUtils.rm_r(",
    "fs.rmdirSync(",
    "fse.removeSync(",
    "recursive: true, force: true",
)


@value
class Assessment:
    """`labels`: of `LABELS`, sorted. `mutates`: False only where every command is known to read. `beyond`: why a
    checkpoint of the workspace's files would not undo it, each as "reason: path or command"; empty when it does.
    """

    labels: tuple[str, ...]
    mutates: bool
    beyond: tuple[str, ...] = ()


def assess(command: Sequence[str], *, workspace: PurePath, cwd: PurePath) -> Assessment:
    """`command` as it is executed. Both paths are absolute; they are compared as they are written."""
    assessing = _Assessing(str(workspace))
    assessing.words(Simple(tuple(word.replace(UNKNOWN, "").replace(LISTED, "") for word in command)), str(cwd), 0)
    found = assessing.found
    beyond = tuple(sorted(found.beyond))[:_MOST_BEYOND]
    return Assessment(tuple(sorted(found.labels)), found.mutates, beyond)


class _Assessing:
    def __init__(self, workspace: str) -> None:
        self.found = Findings(workspace)
        self._commands = self._words = self._read_b = 0

    def text(self, text: str, cwd: str | None, depth: int, fed: tuple[Simple, ...] = ()) -> str | None:
        """Gives the directory it ends in."""
        self._read_b += len(text)
        if depth > _DEEPEST or self._read_b > _MOST_B:
            self.found.label("unparsed")
            return None
        script = shell.read(text)
        if not script.whole:
            self.found.label("unparsed")
            # What cannot be read takes longest: of that there is no more than one text's length.
            self._read_b += len(text) * (_MOST_B // shell.LONGEST)
        where: dict[tuple[int, ...], str | None] = {(): cwd}
        for simple in script.commands:
            scope = simple.scope
            while scope not in where:
                scope = scope[:-1]
            here = where[scope]
            there = self.words(simple if simple.fed or not fed else _fed(simple, fed), here, depth)
            if there != here:
                where[simple.scope] = there
        return where[()]

    def words(self, simple: Simple, cwd: str | None, depth: int) -> str | None:
        """Looks at one command. Gives the directory that the next one runs in."""
        self._commands += 1
        self._words += len(simple.words)
        if self._commands > _MOST_COMMANDS or self._words > _MOST_WORDS:
            self.found.label("unparsed")
            return cwd
        words = simple.words
        for path in simple.writes:
            self._written(path, cwd, empties=words in {(":",), ("cat", "/dev/null")})
        if not words or not words[0]:
            return cwd
        name = name_of(words)
        if name in {"cd", "pushd", "chdir"}:
            return _moved(words, cwd)
        if name == "popd":
            return None
        wrapped = inner(words) if words[:2] != ("command", "-v") else Inner()
        if wrapped is not None:
            self._inner(wrapped, simple, cwd, depth)
        elif name in SHELLS:
            self._fed_shell(simple, cwd, depth)
        else:
            self._program(name, simple, cwd, depth)
        return cwd

    def _written(self, path: str, cwd: str | None, *, empties: bool) -> None:
        if path in STREAMS:
            return
        if empties:
            self.found.label("overwrite")
        self.found.changed(path, cwd)

    def _inner(self, wrapped: Inner, simple: Simple, cwd: str | None, depth: int) -> None:
        if wrapped.where:
            self._elsewhere(wrapped, simple, depth)
            return
        if wrapped.text is not None:
            if _fetches(simple.within) and (UNKNOWN in wrapped.text or LISTED in wrapped.text):
                self.found.label("remote-script")
            elif wrapped.text.strip(f"{UNKNOWN}{LISTED} \n") == "" and wrapped.text:
                self.found.mutates = True
            self.text(wrapped.text, cwd, depth + 1, simple.fed)
        if wrapped.words:
            if depth > 4 * _DEEPEST:
                self.found.label("unparsed")
                return
            self.words(_with(simple, wrapped.words), cwd, depth + 1)

    def _elsewhere(self, wrapped: Inner, simple: Simple, depth: int) -> None:
        """On another machine, or in another container: its risks are named, its paths mean nothing here."""
        mine, self.found = self.found, Findings(self.found.workspace, is_elsewhere=True)
        self.found.mutates = True
        text = wrapped.text if wrapped.text is not None or wrapped.words else simple.text
        if text is not None:
            self.text(text if simple.text is None else f"{text}\n{simple.text}", None, depth + 1)
        if wrapped.words:
            self.words(_with(simple, wrapped.words), None, depth + 1)
        theirs, self.found = self.found, mine
        mine.take(theirs)
        if theirs.labels and wrapped.where.startswith(("ssh", "kubectl")):
            mine.lost("remote", wrapped.where)

    def _fed_shell(self, simple: Simple, cwd: str | None, depth: int) -> None:
        """A shell that reads its text from a pipe, a here-document, or a file that is not looked at."""
        self.found.mutates = True
        if _fetches(simple.fed) or _fetches(simple.within):
            self.found.label("remote-script")
        for text in (simple.text, _printed(simple.fed)):
            if text is not None:
                self.text(text, cwd, depth + 1)

    def _program(self, name: str, simple: Simple, cwd: str | None, depth: int) -> None:
        words = simple.words
        if reading.only_reads(words):
            return
        # Most commands only read, and then none of the rules is needed.
        from opencode_tasks.policy import programs

        self.found.mutates |= name not in {"xargs", "gxargs"}
        here = _git_cwd(words, cwd) if name == "git" else cwd
        look = Look(self.found, here, _roots(simple.fed))
        for more in programs.look_at(words, simple.text or _printed(simple.fed), look):
            self._inner(more, simple, here, depth + 1)
        if name in _SCRIPTED and (_fetches(simple.fed) or _fetches(simple.within)) and _reads_script(words):
            self.found.label("remote-script")
        if name in _SCRIPTED and any(call in text for text in (*words[1:], simple.text or "") for call in _TREES):
            self.found.label("rm-recursive")


def _git_cwd(words: _Words, cwd: str | None) -> str | None:
    for folder in git_calls.call(words).within:
        cwd = _joined(cwd, folder)
    return cwd


def _moved(words: _Words, cwd: str | None) -> str | None:
    operands = [word for word in words[1:] if not word.startswith("-") or word == "-"]
    if not operands and name_of(words) == "cd":
        return "~"
    return _joined(cwd, operands[0]) if operands and operands[0] != "-" else None


def _joined(cwd: str | None, folder: str) -> str | None:
    if UNKNOWN in folder or LISTED in folder:
        return None
    if folder.startswith(("/", "~")):
        return folder
    return None if cwd is None else f"{cwd}/{folder}"


def _fed(simple: Simple, fed: tuple[Simple, ...]) -> Simple:
    return Simple(simple.words, simple.writes, simple.text, fed, simple.within, simple.scope)


def _with(simple: Simple, words: _Words) -> Simple:
    return Simple(words, (), simple.text, simple.fed, simple.within, simple.scope)


def _fetches(commands: Iterable[Simple]) -> bool:
    return any(name_of(command.words) in _FETCHERS for command in commands)


def _reads_script(words: _Words) -> bool:
    """From its input, or from what another command prints: no file and no text is named."""
    return all(word in {"-", UNKNOWN} for word in words[1:2])


def _printed(fed: tuple[Simple, ...]) -> str | None:
    """What `echo`, `printf` or a here-document at the end of a pipe says."""
    if not fed:
        return None
    last = fed[-1]
    if name_of(last.words) in {"echo", "printf"}:
        said = last.words[2:] if last.words[1:2] in (("-n",), ("-e",), ("-ne",), ("--",)) else last.words[1:]
        return " ".join(said).replace("\\n", "\n")
    return last.text if name_of(last.words) in {"cat", "tee"} else None


def _roots(fed: tuple[Simple, ...]) -> _Words:
    """Where the `find` at the beginning of a pipe looks."""
    for command in fed:
        if name_of(command.words) == "find":
            found = []
            for word in command.words[1:]:
                if word[:1] in {"-", "(", "!"}:
                    break
                found.append(word)
            return tuple(found) or (".",)
    return ()
