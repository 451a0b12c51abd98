"""Commands that are known only to read. Whatever is not known is not among them. Pure."""

import re
from collections.abc import Callable, Mapping

from opencode_tasks.policy import git_calls
from opencode_tasks.policy.arguments import executed, given, names
from opencode_tasks.policy.wrappers import name_of

_Words = tuple[str, ...]

_READERS = names(
    # files and text
    "ls cat head tail more wc grep egrep fgrep zgrep ag ack file stat du df pwd nl tac rev cut tr "
    "column paste join fold fmt expand unexpand comm cmp diff colordiff md5sum sha1sum sha256sum sha512sum "
    "cksum b2sum base64 base32 hexdump od strings basename dirname realpath readlink seq yes bat batcat jless "
    "zcat bzcat xzcat tldr man cal pr "
    # the shell's own
    "echo printf true false : test [ [[ cd pushd popd dirs type hash set shopt export local declare typeset "
    "readonly unset return exit break continue read mapfile readarray shift wait getopts let ulimit umask alias "
    "unalias history jobs times caller compgen "
    # the system
    "which whereis whoami id groups hostname uname arch date printenv uptime ps pgrep pidof free nproc lscpu "
    "lsblk lsof ss netstat getconf locale tty tput sleep expr bc dig host nslookup ping vm_stat sw_vers getent "
    "column numfmt tsort"
)
_VERSIONED = names(
    "python python3 node npm npx yarn pnpm bun deno go cargo rustc java javac gcc g++ clang make cmake docker "
    "git ruff mypy pytest tsc pip pip3 uv poetry ruby gem bundle php composer perl bash sh zsh terraform "
    "kubectl helm gh jq rg"
)
_VERBS: Mapping[str, frozenset[str]] = {
    "npm": names("ls list view info outdated explain why"),
    "yarn": names("list why info"),
    "pnpm": names("ls list why outdated"),
    "pip": names("list show freeze check"),
    "pip3": names("list show freeze check"),
    "go": names("version env list doc"),
    "cargo": names("tree metadata search"),
    "docker": names("ps images logs inspect version info top stats port history"),
    "kubectl": names("get describe logs explain top version"),
    "brew": names("list info search"),
    "systemctl": names("status list-units is-active cat show"),
    "crontab": frozenset(("-l",)),
    "apt-cache": names("search show policy"),
}
_GH_VERBS = names("view list diff checks status")


_PLACES = ("/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/", "/opt/homebrew/bin/")


def only_reads(words: _Words) -> bool:
    if words and "/" in words[0] and not words[0].startswith(_PLACES):
        return False
    name, rest = name_of(words), words[1:]
    if len(rest) == 1 and rest[0] in {"--version", "--help", "-V"} and name in _VERSIONED:
        return True
    if name in _READERS:
        # `date -s`, `hostname NAME` and their like need a right that nobody has here.
        return not any(word.startswith("--output") for word in rest)
    if name == "git":
        return git_calls.only_looks(git_calls.call(words))
    if name in _VERBS:
        return "".join(rest[:1]) in _VERBS[name]
    check = _CHECKS.get(name)
    return check is not None and check(rest)


# Of sed's commands those that print, delete, quit or substitute without writing: `w` and `e` are among the rest.
_SED_ADDRESS = r"(?:\d+|\$|/(?:[^/\\]|\\.)*/)"
_SED_PART = r"(?:(?!(?P=mark))[^\\]|\\.)*(?P=mark)"
_SED_VERB = rf"[pdqQ=Dn]|s(?P<mark>[/|#,:]){_SED_PART}{_SED_PART}[gpiI0-9]*"
_SED_COMMAND = rf"(?:{_SED_ADDRESS}(?:,[+~]?{_SED_ADDRESS})?)?\s*!?\s*(?:{_SED_VERB})"
_SED_SAFE = rf"\s*{_SED_COMMAND}\s*\Z"


def _sed(rest: _Words) -> bool:
    said = given(rest, with_value="efl", valued=("--expression", "--file"))
    if any(name in {"-i", "-I", "-f", "--file", "-s"} or name.startswith("--in-place") for name, _ in said.options):
        return False
    texts = [text for name, text in said.options if name in {"-e", "--expression"}] or list(said.operands[:1])
    return bool(texts) and all(re.match(_SED_SAFE, part) for text in texts for part in text.split(";") if part.strip())


def _awk(rest: _Words) -> bool:
    said = given(rest, with_value="Fvf")
    script = "".join(said.operands[:1])
    return bool(script) and not said.has("-f", "-i") and not re.search(r">|\||system|getline|close", script)


def _find(rest: _Words) -> bool:
    if any(word in {"-delete", "-ok", "-okdir"} or word.startswith(("-fprint", "-fls")) for word in rest):
        return False
    return all(name_of(command) != "find" and only_reads(command) for command in executed(rest))


def _perl(rest: _Words) -> bool:
    said = given(rest, with_value="eEIMm")
    script = said.of("-e", "-E") or ""
    harmless = not re.search(r"system|exec|unlink|open|rename|rmdir|mkdir|qx|`|write|eval|>", script)
    return bool(script) and harmless and said.has("-n") and not said.has("-i", "-M", "-m", "-I")


_CURL_LOOKS = names("-s -S -f -L -I -i -v -k -4 --silent --fail --location --head --proto --tlsv1.2")


def _curl(rest: _Words) -> bool:
    """A plain GET, told to nobody but the server."""
    said = given(rest)
    letters = {name for name, _ in said.options}
    return letters <= _CURL_LOOKS


def _gh(rest: _Words) -> bool:
    return rest[1:2] != () and rest[1] in _GH_VERBS


def _sort(rest: _Words) -> bool:
    """-o names what is written."""
    return not any(
        word.startswith(("-o", "--output")) or (word[:1] == "-" and word[1:2] != "-" and "o" in word) for word in rest
    )


_CHECKS: Mapping[str, Callable[[_Words], bool]] = {
    "sed": _sed,
    "gsed": _sed,
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "perl": _perl,
    "find": _find,
    "fd": lambda rest: not {"-x", "-X", "--exec", "--exec-batch"} & set(rest),
    "fdfind": lambda rest: not {"-x", "-X", "--exec", "--exec-batch"} & set(rest),
    "sort": _sort,
    "shuf": _sort,
    "tree": _sort,
    "less": _sort,
    "rg": lambda rest: not any(word.startswith("--pre") for word in rest),
    "uniq": lambda rest: len(given(rest, with_value="fsw").operands) < 2,
    "xxd": lambda rest: len(given(rest, with_value="slcgo").operands) < 2 and "-r" not in rest,
    "jq": lambda _: True,
    "yq": lambda rest: not any(word.startswith(("-i", "--inplace", "--in-place")) for word in rest),
    "curl": _curl,
    "gh": _gh,
    "env": lambda rest: not rest,
}
