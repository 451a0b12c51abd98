"""Settings that have the right type, and yet cannot be."""

import re
from collections.abc import Callable
from pathlib import Path

from opencode_tasks.config_sections import Config, NetworkConfig, OpencodeConfig
from opencode_tasks.durations import seconds_or_never
from opencode_tasks.errors import TaskError

PRESET = re.compile("[a-z][a-z0-9-]*")
"""A name without a dot is a group of hosts, of `templates/network.yaml`."""
LIKE = "write it like pypi.org, *.example.com, github.com:22 or 192.0.2.7, or name a preset: pypi, npm, debian, github"


def check(config: Config, path: Path) -> None:
    """`path`: the file, for the messages. Raises `TaskError` (code `config`)."""
    prefix = config.branch.prefix
    if not prefix or prefix.startswith(("-", "/")) or any(c.isspace() or c in "~^:?*[\\" for c in prefix):
        raise TaskError(
            f"{path}: branch.prefix {prefix!r} cannot begin a branch name",
            hint='use something like "task/"',
            code="config",
        )
    for one in config.container.protected:
        if one.startswith("/") or not one.strip("/.") or ".." in one.split("/") or "\0" in one:
            raise TaskError(
                f"{path}: container.protected {one!r} is no path inside the workspace",
                hint='write it relative to the workspace, like "ci/scripts"',
                code="config",
            )
    if config.container.cache_scope not in ("task", "project"):
        raise TaskError(
            f"{path}: container.cache_scope {config.container.cache_scope!r} is neither task nor project",
            hint='"task" keeps tasks from changing what others install; "project" shares between them',
            code="config",
        )
    if config.checkpoint.automatic not in ("commands", "risky", "off"):
        raise TaskError(
            f"{path}: checkpoint.automatic {config.checkpoint.automatic!r} is none of commands, risky, off",
            hint='"commands" is the default',
            code="config",
        )
    _check_opencode(config.opencode, path)
    _check_network(config.network, path)
    try:
        re.compile(config.branch.pattern)
    except re.error as e:
        raise TaskError(
            f"{path}: branch.pattern {config.branch.pattern!r} is no regular expression: {e}",
            hint="write it in single quotes, like 'task/[a-z0-9-]+|main'",
            code="config",
        ) from e
    for key, said in (("container.idle_stop", config.container.idle_stop), ("cleanup.grace", config.cleanup.grace)):
        try:
            seconds_or_never(said)
        except ValueError as e:
            raise TaskError(
                f"{path}: {key} {said!r} is not a length of time",
                hint='for example "30m", "2h" or "never"',
                code="config",
            ) from e
    try:
        config.workspace.worktrees.format(repository="", id="")
    except (ValueError, LookupError, AttributeError) as e:
        raise TaskError(
            f"{path}: workspace.worktrees {config.workspace.worktrees!r} is no pattern",
            hint="it may hold {repository} and {id}, and no other braces",
            code="config",
        ) from e


def _check_opencode(opencode: OpencodeConfig, path: Path) -> None:
    if opencode.mode not in ("exclusive", "collaborative"):
        raise TaskError(
            f"{path}: opencode.mode {opencode.mode!r} is neither exclusive nor collaborative",
            hint='"exclusive" is the default: one agent at a time',
            code="config",
        )
    if not opencode.memory_tokens.isdecimal() or not 100 <= int(opencode.memory_tokens[:6]) <= 20_000:
        raise TaskError(
            f"{path}: opencode.memory_tokens {opencode.memory_tokens!r} is no number from 100 to 20000",
            hint='the default is "1500"',
            code="config",
        )


def _check_network(network: NetworkConfig, path: Path) -> None:
    if network == NetworkConfig():
        return
    # An agent may have planted it where there was none.
    if path.parent.is_symlink():
        raise TaskError(
            f"{path.parent} is a link: what may be reached is not taken from where it leads",
            hint="make it an ordinary directory",
            code="config",
        )
    for word in network.allow:
        _check_with(_host, word, f"{path}: network.allow", LIKE)
    for word in network.private:
        _check_with(_network, word, f"{path}: network.private", 'write it like "10.20.0.0/16" or "10.20.0.7/32"')
    through = network.through
    if through in ("", "host", "none") or ":" in through:
        raise TaskError(
            f"{path}: network.through {through!r} is no network for the proxy",
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
