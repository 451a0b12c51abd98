"""Programs that run another program which stands in their own arguments. Pure."""

from collections.abc import Callable, Mapping

from opencode_tasks.policy.arguments import after_options, names
from opencode_tasks.values import value

_Words = tuple[str, ...]
SHELLS = names("sh bash dash zsh ksh ash rbash")


@value
class Inner:
    """`words` are run, or `text` by a shell. `where`: on which machine or in which container, "" for here."""

    words: _Words = ()
    text: str | None = None
    where: str = ""


def name_of(words: _Words) -> str:
    """Of the program, without its directory."""
    return words[0].rpartition("/")[2] if words else ""


def inner(words: _Words) -> Inner | None:
    """What `words` runs, one layer deep; None when it is no wrapper."""
    name, rest = name_of(words), words[1:]
    if name in SHELLS:
        return _shell(rest)
    make = _MAKERS.get(name)
    if make is not None:
        return make(rest)
    if name in _PREFIXES:
        return Inner(after_options(rest, _PREFIXES[name]))
    return _runner(name, rest)


def _shell(rest: _Words) -> Inner | None:
    at = 0
    while at < len(rest) and rest[at][:1] in {"-", "+"} and rest[at] not in {"-", "--"}:
        if rest[at].startswith("-") and not rest[at].startswith("--") and "c" in rest[at]:
            after = after_options(rest[at + 1 :], ("-o", "-O"))
            return Inner(text=after[0] if after else "")
        at += 2 if rest[at] in {"-o", "+o", "-O", "+O", "--rcfile", "--init-file"} else 1
    return None


def _env(rest: _Words) -> Inner:
    at = 0
    while at < len(rest):
        word = rest[at]
        if word in {"-S", "--split-string"}:
            return Inner(text=" ".join(rest[at + 1 :]))
        if word in {"-u", "-C", "--unset", "--chdir"}:
            at += 1
        elif not word.startswith("-") and "=" not in word:
            break
        at += 1
    return Inner(rest[at:])


def _timed(rest: _Words) -> Inner:
    return Inner(after_options(rest, ("-k", "-s", "--signal", "--kill-after"))[1:])


def _text_or_words(rest: _Words, with_value: _Words = ()) -> Inner:
    """As `watch`: one word is a text, several are a command."""
    after = after_options(rest, with_value)
    return Inner(text=" ".join(after))


def _ssh(rest: _Words) -> Inner | None:
    after = after_options(rest, tuple(f"-{c}" for c in "bcDEeFIiJLlmOopQRSWw"))
    if not after:
        return None
    return Inner(text=" ".join(after[1:]), where=f"ssh {after[0]}") if after[1:] else Inner(where=f"ssh {after[0]}")


def _su(rest: _Words) -> Inner | None:
    for at, word in enumerate(rest):
        if word in {"-c", "--command"}:
            return Inner(text="".join(rest[at + 1 : at + 2]))
    return None


def _flock(rest: _Words) -> Inner | None:
    after = after_options(rest, ("-w", "--timeout", "-E"))
    if after[1:2] in (("-c",), ("--command",)):
        return Inner(text="".join(after[2:3]))
    return Inner(after[1:]) if len(after) > 1 else None


_FLAGS = names(
    "-i -t -it -ti -d -T -P --rm --privileged --init --interactive --tty --detach --no-deps --quiet -q --no-TTY"
)


def _container(rest: _Words) -> Inner | None:
    """`docker [compose] exec|run … NAME command`."""
    rest = _past(rest, {"-f", "-p", "--file", "--project-name", "--profile", "--env-file", "-H", "--context", "-c"})
    if rest[:1] == ("compose",):
        rest = _past(rest[1:], {"-f", "-p", "--file", "--project-name", "--profile", "--env-file"})
    if rest[:1] not in (("exec",), ("run",)):
        return None
    at = 1
    while at < len(rest) and rest[at].startswith("-"):
        at += 1 if rest[at] in _FLAGS or "=" in rest[at] else 2
    named = rest[at : at + 1]
    return Inner(rest[at + 1 :], where=f"container {named[0]}") if named and rest[at + 1 :] else None


def _kubectl(rest: _Words) -> Inner | None:
    if "exec" not in rest or "--" not in rest:
        return None
    return Inner(rest[rest.index("--") + 1 :], where="kubectl exec")


def _past(rest: _Words, with_value: set[str]) -> _Words:
    return after_options(rest, with_value) if rest[:1] != ("--",) else rest


def _compose(rest: _Words) -> Inner | None:
    return _container(("compose", *rest))


def _python(rest: _Words) -> Inner | None:
    """`python -m ruff`, `python manage.py`: named for what they run."""
    after = after_options(rest, ("-W", "-X", "-c", "-m")) if rest[:1] != ("-m",) else ()
    if rest[:1] == ("-m",) and rest[1:]:
        return Inner(rest[1:]) if name_of(rest[1:]) in _MODULES else None
    return Inner(after) if name_of(after) == "manage.py" else None


_MODULES = names("ruff black isort autopep8 alembic flask django autoflake pyupgrade lib2to3 pre_commit")


def _script_of(rest: _Words) -> Inner | None:
    after = after_options(rest, ("-d",))
    return Inner(after) if name_of(after) in {"artisan", "console", "php-cs-fixer"} else None


def _runner(name: str, rest: _Words) -> Inner | None:
    """`npx x`, `uv run x`, `bundle exec x`, `pnpm --filter y exec x`: the tool, if it is one by its name."""
    if name in {"npx", "bunx", "uvx", "pnpx"}:
        tool, *more = after_options(rest, ("-p", "--package", "--from", "--with")) or ("",)
        return Inner((name_of((tool,)).partition("@")[0] or tool, *more))
    if name not in _RUNNERS:
        return None
    after = after_options(
        rest, ("--filter", "-C", "--dir", "--prefix", "--cwd", "-F", "--directory", "-p", "--project")
    )
    if after[:1] in [(verb,) for verb in _RUNNERS[name]]:
        return Inner(after_options(after[1:], ("--with", "--group", "--extra", "--env-file", "-n", "--package", "-p")))
    if name in {"yarn", "pnpm", "bun"} and after[:1] and after[0] in _TOOLS:
        return Inner(after)
    return None


_RUNNERS: Mapping[str, _Words] = {
    "npm": ("exec", "x"),
    "pnpm": ("exec", "dlx"),
    "yarn": ("exec", "dlx"),
    "bun": ("x",),
    "uv": ("run",),
    "poetry": ("run",),
    "pdm": ("run",),
    "hatch": ("run",),
    "rye": ("run",),
    "pipenv": ("run",),
    "bundle": ("exec",),
    "conda": ("run",),
    "mise": ("exec", "x"),
    "asdf": ("exec",),
    "direnv": ("exec",),
    "op": ("run",),
    "doppler": ("run",),
    "dotenv": ("run",),
}
_TOOLS = names(
    "rimraf prettier eslint biome prisma typeorm knex sequelize sequelize-cli drizzle-kit jscodeshift del-cli "
    "shx supabase"
)
# Each with its options that take the next word.
_PREFIXES: Mapping[str, _Words] = {
    "sudo": ("-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "--user", "--group"),
    "doas": ("-u", "-C"),
    "nohup": (),
    "setsid": (),
    "command": (),
    "builtin": (),
    "exec": ("-a",),
    "time": ("-f", "-o", "--format", "--output"),
    "nice": ("-n", "--adjustment"),
    "ionice": ("-c", "-n", "--class", "--classdata"),
    "chrt": (),
    "stdbuf": ("-i", "-o", "-e"),
    "strace": ("-e", "-o", "-s"),
    "unbuffer": (),
    "chronic": (),
    "caffeinate": (),
    "then": (),
    "busybox": (),
    "shx": (),
    "coproc": (),
    "dotenvx": (),
}
_MAKERS: Mapping[str, Callable[[_Words], Inner | None]] = {
    "env": _env,
    "cross-env": _env,
    "timeout": _timed,
    "gtimeout": _timed,
    "watch": lambda rest: _text_or_words(rest, ("-n", "--interval")),
    "eval": lambda rest: Inner(text=" ".join(rest)),
    "trap": lambda rest: Inner(text="".join(after_options(rest)[:1])) if len(after_options(rest)) > 1 else None,
    "ssh": _ssh,
    "su": _su,
    "runuser": _su,
    "script": _su,
    "flock": _flock,
    "chroot": lambda rest: Inner(after_options(rest)[1:], where="chroot"),
    "docker": _container,
    "podman": _container,
    "docker-compose": _compose,
    "podman-compose": _compose,
    "kubectl": _kubectl,
    "python": _python,
    "python3": _python,
    "php": _script_of,
}
