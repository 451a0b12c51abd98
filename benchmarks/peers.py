"""Other hook managers, installed as their users install them."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.repositories import Bench, Repo
from benchmarks.timing import BenchmarkError

HUSKY, LEFTHOOK, PRE_COMMIT = "husky", "lefthook", "pre-commit"


@dataclass(frozen=True)
class Peer:
    """Another hook manager: its tracked files for a command, and how its users install it."""

    files: Callable[[str], dict[str, str]]
    install: tuple[tuple[str, ...], ...]
    version: tuple[str, ...]


_NPM = ("npm", "install", "--save-dev", "--no-audit", "--no-fund")
_VERSION_OF = "console.log(require('./node_modules/' + process.argv[1] + '/package.json').version)"
_PRE_COMMIT = (sys.executable, "-m", "pre_commit")

PEERS = {
    HUSKY: Peer(
        lambda command: {".husky/post-checkout": f"{command}\n"},
        ((*_NPM, "husky"), ("node_modules/.bin/husky",)),
        ("node", "-e", _VERSION_OF, "husky"),
    ),
    LEFTHOOK: Peer(
        lambda command: {"lefthook.yml": f"post-checkout:\n  commands:\n    nothing:\n      run: '{command}'\n"},
        ((*_NPM, "lefthook"), ("node_modules/.bin/lefthook", "install", "post-checkout")),
        ("node", "-e", _VERSION_OF, "lefthook"),
    ),
    PRE_COMMIT: Peer(
        lambda command: {".pre-commit-config.yaml": _pre_commit_config(command)},
        ((*_PRE_COMMIT, "install", "--hook-type", "post-checkout"),),
        (*_PRE_COMMIT, "--version"),
    ),
}


def _pre_commit_config(command: str) -> str:
    hook = {
        "id": "nothing",
        "name": "nothing",
        "language": "system",
        "entry": command,
        "always_run": True,
        "pass_filenames": False,
        "stages": ["post-checkout"],
    }
    return json.dumps({"repos": [{"repo": "local", "hooks": [hook]}]}, indent=2)  # JSON is YAML


def installed(bench: Bench, name: str) -> Repo:
    """A repository whose post-checkout hook, under `name`, runs `true`.

    Its command leaves a trace first: what does not run must not be measured.
    """
    peer, trace = PEERS[name], bench.root / f"{name}.ran"
    env = {"PRE_COMMIT_HOME": str(bench.root / "pre-commit-home")}
    repo = bench.repo(name, peer.files(f"touch {trace}"), env)
    for argv in peer.install:
        try:
            repo.run(*argv)
        except (BenchmarkError, OSError) as e:
            raise BenchmarkError(f"{name} could not be installed; --without {name} leaves it out. {e}") from e
    repo.commit("installed")
    repo.git("checkout", "--quiet", "-b", "probe")
    if not trace.exists():
        raise BenchmarkError(f"{name} is installed, but its post-checkout hook did not run")
    repo.git("checkout", "--quiet", "main")
    repo.write(peer.files("true"))
    repo.commit("does nothing")
    repo.branch_off("other")
    return repo


def version(bench: Bench, name: str) -> str:
    return Repo(bench.root / name, bench.env).run(*PEERS[name].version).split()[-1]
