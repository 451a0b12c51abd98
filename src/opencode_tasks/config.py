"""Settings: flag > `OPENCODE_TASKS_<SECTION>_<KEY>` > `.opencode/tasks.toml` > default.

Read once into a frozen value and passed on; nothing reads the environment at import.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opencode_tasks.durations import seconds_or_never
from opencode_tasks.errors import TaskError
from opencode_tasks.values import value

if TYPE_CHECKING:  # few settings have any
    from opencode_tasks.references import Reference, Table

FILE = Path(".opencode", "tasks.toml")
PRESET = re.compile("[a-z][a-z0-9-]*")
"""A name without a dot is a group of hosts, of `templates/network.yaml`."""
LIKE = "write it like pypi.org, *.example.com, github.com:22 or 192.0.2.7, or name a preset: pypi, npm, debian, github"
_ENV_PREFIX = "OPENCODE_TASKS_"
_NOTHING: Mapping[str, str] = MappingProxyType({})


OBEYED = (".opencode", ".envrc", ".vscode", ".mcp.json", "opencode.json", "opencode.jsonc")
"""Of a workspace: what they say, programs do on the host with the user's rights."""


@value
class BranchConfig:
    """`prefix`: a new branch that begins with it becomes a task. `pattern`: a regular expression that the whole name
    of a branch has to match to be committed on; empty: any. `protected`: branches that are not committed on.
    """

    prefix: str = "task/"
    pattern: str = ""
    protected: tuple[str, ...] = ()


@value
class GitConfig:
    """`overlaps`: a commit says which other open tasks changed the same files."""

    overlaps: bool = True


@value
class WorkspaceConfig:
    """`worktrees`: where a task's own worktree goes, relative to the main checkout."""

    worktrees: str = "../{repository}.worktrees/{id}"


@value
class ContainerConfig:
    """`image`: empty is our base image. `autostart`: start it in the background at checkout.

    `limits`: name of a set in `templates/limits.yaml`. `protected`: what else of the workspace is read-only
    inside, relative to its root. `idle_stop`: how long nothing may have happened in it before it is stopped.
    `devcontainer`: the base commit's `devcontainer.json` says what the container is. `caches`: names of
    `templates/caches.yaml`; `cache_scope`: whose they are, `task` or `project`.
    """

    image: str = ""
    autostart: bool = True
    limits: str = "default"
    protected: tuple[str, ...] = ()
    idle_stop: str = "2h"
    devcontainer: bool = False
    caches: tuple[str, ...] = ()
    cache_scope: str = "task"


@value
class HooksConfig:
    """`without`: git hooks that `init` does not install."""

    without: tuple[str, ...] = ()


@value
class LimitsConfig:
    """Instead of what the set says: sizes like `4g`, numbers as text; empty is the set's."""

    memory: str = ""
    memory_max: str = ""
    soft: str = ""
    cpus: str = ""
    pids: str = ""
    tmp: str = ""
    home: str = ""
    disk_free: str = ""


@value
class NetworkConfig:
    """`allow`: hosts and presets that every task may reach. `private`: networks that a name may lead to although they
    are not public. `through`: the engine's network that the proxy is in.
    """

    allow: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    through: str = "bridge"


@value
class PlanConfig:
    """`match_words`: a commit checks the step of `plan.md` that its subject has all words of."""

    match_words: bool = True


@value
class Config:
    branch: BranchConfig = BranchConfig()
    git: GitConfig = GitConfig()
    workspace: WorkspaceConfig = WorkspaceConfig()
    container: ContainerConfig = ContainerConfig()
    hooks: HooksConfig = HooksConfig()
    limits: LimitsConfig = LimitsConfig()
    network: NetworkConfig = NetworkConfig()
    plan: PlanConfig = PlanConfig()
    environment: Mapping[str, str] = _NOTHING
    secrets: Mapping[str, str] = _NOTHING

    @property
    def references(self) -> "list[Reference]":
        from opencode_tasks import references

        return references.of({"environment": self.environment, "secrets": self.secrets})


_SECTIONS: dict[str, type[Any]] = {
    "branch": BranchConfig,
    "git": GitConfig,
    "workspace": WorkspaceConfig,
    "container": ContainerConfig,
    "hooks": HooksConfig,
    "limits": LimitsConfig,
    "network": NetworkConfig,
    "plan": PlanConfig,
}

# Of any names: see `references`.
_TABLES: "tuple[Table, ...]" = ("environment", "secrets")


Through = Callable[[Path, Callable[[], dict[str, Any]]], dict[str, Any]]


def load(top: Path, environ: Mapping[str, str] | None = None, *, through: Through | None = None) -> Config:
    """The settings for the checkout at `top`. `through`: reads the file at a path, or knows what reading it gave.

    Raises `TaskError` (code `config`) that names the file, the key and the nearest known key.
    """
    path = top / FILE
    found = _read(path) if through is None else through(path, lambda: _read(path))
    tables: dict[str, Any] = {table: _free_form(top, table, found.pop(table, {})) for table in _TABLES}
    for section, values in found.items():
        if section in _SECTIONS and not isinstance(values, dict):
            raise TaskError(f"{top / FILE}: {section} is not a table", hint=f"write it as [{section}]", code="config")
    for section, keys in _from_environ(os.environ if environ is None else environ).items():
        found.setdefault(section, {}).update(keys)
    made: dict[str, Any] = {}
    for section, values in found.items():
        kind = _SECTIONS.get(section)
        if kind is None:
            raise _unknown(section, {**_SECTIONS, **tables}, top)
        known = {name: type(default) for name, default in vars(kind()).items()}
        for key, said in values.items():
            if key not in known:
                raise _unknown(f"{section}.{key}", {f"{section}.{k}": 0 for k in known}, top)
            if known[key] is tuple and isinstance(said, list) and all(isinstance(s, str) for s in said):
                values[key] = tuple(said)
            elif not isinstance(said, known[key]):
                wanted = _KINDS[known[key]]
                raise TaskError(
                    f"{top / FILE}: {section}.{key} must be {wanted}",
                    hint=f"the default is {json.dumps(getattr(kind(), key))}",
                    code="config",
                )
        made[section] = kind(**values)
    return _checked(Config(**made, **tables), top)


def _free_form(top: Path, table: "Table", said: object) -> Mapping[str, str]:
    if said == {}:
        return _NOTHING
    from opencode_tasks import references

    if not isinstance(said, dict):
        raise TaskError(f"{top / FILE}: {table} is not a table", hint=f"write it as [{table}]", code="config")
    faults = (references.fault(table, name, one) for name, one in said.items())
    for what, hint in filter(None, faults):
        raise TaskError(f"{top / FILE}: {table}: {what}", hint=hint, code="config")
    if len(said) > references.MOST:
        raise TaskError(
            f"{top / FILE}: {table} has {len(said)} entries",
            hint=f"at most {references.MOST}; a file can hold many values",
            code="config",
        )
    return MappingProxyType(said)


_KINDS = {bool: "true or false", str: "a string", tuple: "a list of strings"}


def defaults() -> dict[str, dict[str, Any]]:
    """Every key with its default, as `init` writes it."""
    return {s: dict(vars(kind())) for s, kind in _SECTIONS.items()}


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb", opener=_not_through_a_link) as f:
            return tomllib.load(f)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise TaskError(
            f"{path} cannot be read: {e.strerror}", hint="make it an ordinary file that you may read", code="config"
        ) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TaskError(f"{path} is not valid TOML: {e}", hint="mend the line named above", code="config") from e


def _not_through_a_link(path: str, flags: int) -> int:
    # The file lies in a directory that other tools write to.
    return os.open(path, flags | os.O_NOFOLLOW)


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for section, kind in _SECTIONS.items():
        for key, default in vars(kind()).items():
            name = f"{_ENV_PREFIX}{section}_{key}".upper()
            said = environ.get(name)
            if said is not None:
                found.setdefault(section, {})[key] = _converted(name, said, default)
    return found


def _converted(name: str, said: str, default: object) -> object:
    if isinstance(default, tuple):
        return [part.strip() for part in said.split(",") if part.strip()]
    return _truth(name, said) if isinstance(default, bool) else said


def _truth(name: str, value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value == "":
        return False
    if value.lower() not in words:
        raise TaskError(
            f"{name}={value!r} is neither true nor false", hint=f"use one of {', '.join(words)}", code="config"
        )
    return words[value.lower()]


def _unknown(key: str, known: Mapping[str, object], top: Path) -> TaskError:
    from difflib import get_close_matches

    near = get_close_matches(key, known, n=1, cutoff=0.0)
    return TaskError(f"{top / FILE}: unknown key {key}", hint=f"the nearest known key is {near[0]}", code="config")


def _checked(config: Config, top: Path) -> Config:
    prefix = config.branch.prefix
    if not prefix or prefix.startswith(("-", "/")) or any(c.isspace() or c in "~^:?*[\\" for c in prefix):
        raise TaskError(
            f"{top / FILE}: branch.prefix {prefix!r} cannot begin a branch name",
            hint='use something like "task/"',
            code="config",
        )
    for path in config.container.protected:
        if path.startswith("/") or not path.strip("/.") or ".." in path.split("/") or "\0" in path:
            raise TaskError(
                f"{top / FILE}: container.protected {path!r} is no path inside the workspace",
                hint='write it relative to the workspace, like "ci/scripts"',
                code="config",
            )
    if config.container.cache_scope not in ("task", "project"):
        raise TaskError(
            f"{top / FILE}: container.cache_scope {config.container.cache_scope!r} is neither task nor project",
            hint='"task" keeps tasks from changing what others install; "project" shares between them',
            code="config",
        )
    _check_network(config.network, top)
    try:
        re.compile(config.branch.pattern)
    except re.error as e:
        raise TaskError(
            f"{top / FILE}: branch.pattern {config.branch.pattern!r} is no regular expression: {e}",
            hint="write it in single quotes, like 'task/[a-z0-9-]+|main'",
            code="config",
        ) from e
    try:
        seconds_or_never(config.container.idle_stop)
    except ValueError as e:
        raise TaskError(
            f"{top / FILE}: container.idle_stop {config.container.idle_stop!r} is not a length of time",
            hint='for example "30m", "2h" or "never"',
            code="config",
        ) from e
    try:
        config.workspace.worktrees.format(repository="", id="")
    except (ValueError, LookupError, AttributeError) as e:
        raise TaskError(
            f"{top / FILE}: workspace.worktrees {config.workspace.worktrees!r} is no pattern",
            hint="it may hold {repository} and {id}, and no other braces",
            code="config",
        ) from e
    return config


def _check_network(network: NetworkConfig, top: Path) -> None:
    if network == NetworkConfig():
        return
    # An agent may have planted it where there was none.
    if (top / FILE).parent.is_symlink():
        raise TaskError(
            f"{(top / FILE).parent} is a link: what may be reached is not taken from where it leads",
            hint="make it an ordinary directory",
            code="config",
        )
    for word in network.allow:
        _check_with(_host, word, f"{top / FILE}: network.allow", LIKE)
    for word in network.private:
        _check_with(_network, word, f"{top / FILE}: network.private", 'write it like "10.20.0.0/16" or "10.20.0.7/32"')
    through = network.through
    if through in ("", "host", "none") or ":" in through:
        raise TaskError(
            f"{top / FILE}: network.through {through!r} is no network for the proxy",
            hint='name one of those that the engine has; the default is "bridge"',
            code="config",
        )


def _check_with(reads: Callable[[str], object], word: str, where: str, hint: str) -> None:
    try:
        reads(word)
    except ValueError as e:
        raise TaskError(f"{where}: {word!r} is {e}", hint=hint, code="config") from e


def _host(word: str) -> object:
    from opencode_tasks import hosts

    return PRESET.fullmatch(word) or hosts.entry(word)


def _network(word: str) -> object:
    import ipaddress

    try:
        return ipaddress.ip_network(word)
    except ValueError as e:
        raise ValueError("not a network") from e
