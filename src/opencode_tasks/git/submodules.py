"""The submodules that a checkout's index has, with what `.gitmodules` and git's configuration say of each.

`.gitmodules` is somebody else's text: names become folders below `.git/modules`, and paths are where files are
written. What git refuses of both (CVE-2018-11235 and those after it) is refused here, too, for we look at these places
before git does.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

from opencode_tasks.errors import TaskError
from opencode_tasks.git import discovery, plumbing
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.printable import printable
from opencode_tasks.values import value

FILE = ".gitmodules"
_TRUE = ("true", "yes", "on", "1", None)


@value
class Submodule:
    """`commit`: what the index records. `url` as `.gitmodules` has it, `own_url` as git's configuration has it.

    `is_wanted`: by the user's configuration it is to be checked out. `fault`: why nobody may go by its entry.
    """

    path: str
    commit: str
    name: str = ""
    url: str = ""
    own_url: str = ""
    is_wanted: bool = False
    is_left_out: bool = False
    fault: str = ""


@value
class Finding:
    """What is the matter with a submodule, in one sentence, and the next step."""

    path: str
    kind: str
    message: str
    hint: str

    @property
    def line(self) -> str:
        return f"submodule {printable(self.path)}: {self.message}; {self.hint}"


def has_any(checkout: Checkout) -> bool:
    """Costs one look at a file. A link is none that git would read."""
    try:
        return stat.S_ISREG((checkout.top / FILE).lstat().st_mode)
    except OSError:
        return False


def read(checkout: Checkout) -> list[Submodule]:
    """In the order of the index."""
    entries = [e for e in plumbing.git(checkout, "ls-files", "--stage", "-t", "-z").out.split("\0") if e]
    # `S` is what a sparse checkout leaves out.
    links = [
        (e[9:].split(" ")[0], e.partition("\t")[2]) for e in entries if e[2:].startswith("160000 ") and e[0] != "S"
    ]
    if not links:
        return []
    is_file = any(e[2:].startswith("100") and e.endswith(f"\t{FILE}") for e in entries)
    said = _settings(checkout, "config", f"--blob=:{FILE}", "-z", "--list") if is_file else {}
    own = _settings(checkout, "config", "-z", "--get-regexp", r"^submodule\.")
    names = {paths[-1]: name for name, paths in _by_name(said, "path").items() if paths[-1] is not None}
    listed = _listed_as_active(checkout, own)
    return [_submodule(checkout, path, commit, names.get(path), said, own, listed) for commit, path in links]


def git_dir(checkout: Checkout, name: str) -> Path:
    """Where git has the submodule's repository for this work tree."""
    return checkout.git_dir / "modules" / name


def is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def opened(checkout: Checkout, path: str) -> Checkout | None:
    """The submodule's own checkout, where its git directory is one that no container can write.

    A `.git` in the work tree may be anybody's, and git would obey what its configuration says.
    """
    place = checkout.top / path
    if fault_of_place(checkout, path) or not (place / ".git").is_file() or (place / ".git").is_symlink():
        return None
    try:
        inner = discovery.find(place, {})
    except (TaskError, OSError):
        return None
    kept = (checkout.git_dir / "modules", checkout.common_dir / "modules")
    return inner if inner.top == place and any(inner.git_dir.is_relative_to(k) for k in kept) else None


def fault_of_place(checkout: Checkout, path: str) -> str:
    """Whether something but folders leads there. Empty when not; nothing there is right as well."""
    place = checkout.top
    for part in path.split("/"):
        place /= part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return ""
        except OSError as e:
            return f"{place} cannot be looked at: {e.strerror}"
        if stat.S_ISLNK(mode):
            return f"{place.relative_to(checkout.top)} is a link"
        if not stat.S_ISDIR(mode):
            return f"{place.relative_to(checkout.top)} is no folder"
    return ""


def command(checkout: Checkout, *words: str) -> str:
    """For a person to type."""
    import shlex

    return printable(shlex.join(("git", "-C", str(checkout.top), *words)))


def _submodule(
    checkout: Checkout,
    path: str,
    commit: str,
    name: str | None,
    said: dict[str, list[str | None]],
    own: dict[str, list[str | None]],
    listed: set[str],
) -> Submodule:
    if name is None:
        return Submodule(path, commit, fault=f"{FILE} has no entry for it")
    update = _last(own, name, "update") or _last(said, name, "update")
    active = own.get(f"submodule.{name}.active")
    own_url = _last(own, name, "url")
    if active is not None:
        wanted = active[-1] is None or active[-1].lower() in _TRUE
    else:
        wanted = path in listed or bool(own_url)
    return Submodule(
        path,
        commit,
        name,
        url=_last(said, name, "url"),
        own_url=own_url,
        is_wanted=wanted and update != "none",
        is_left_out=update == "none" or (active is not None and not wanted),
        fault=_fault_of_name(checkout, name),
    )


def _fault_of_name(checkout: Checkout, name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if not name or ".." in parts or parts[0] == "" or "\0" in name:
        return f"its name {name!r} in {FILE} leads out of .git/modules"
    for root in (checkout.git_dir, checkout.common_dir):
        above = root / "modules"
        for part in parts[:-1]:
            above /= part
            if is_git_dir(above):
                return f"its name {name!r} in {FILE} lies inside another submodule's repository"
    return ""


def _settings(checkout: Checkout, *words: str) -> dict[str, list[str | None]]:
    """By key; a key without a value has None. Empty when git cannot read it, or there is nothing."""
    found: dict[str, list[str | None]] = {}
    for entry in plumbing.git(checkout, *words, check=False).out.split("\0"):
        key, is_set, value = entry.partition("\n")
        if key:
            found.setdefault(key, []).append(value if is_set else None)
    return found


def _by_name(settings: dict[str, list[str | None]], key: str) -> dict[str, list[str | None]]:
    ending = f".{key}"
    return {
        k.removeprefix("submodule.").removesuffix(ending): v
        for k, v in settings.items()
        if k.startswith("submodule.") and k.endswith(ending)
    }


def _last(settings: dict[str, list[str | None]], name: str, key: str) -> str:
    return settings.get(f"submodule.{name}.{key}", [""])[-1] or ""


def _listed_as_active(checkout: Checkout, own: dict[str, list[str | None]]) -> set[str]:
    patterns = [p for p in own.get("submodule.active", []) if p]
    if not patterns:
        return set()
    return set(plumbing.git(checkout, "ls-files", "-z", "--", *patterns, check=False).out.split("\0"))


def below(checkout: Checkout) -> Iterator[Checkout]:
    """Every submodule that is checked out here and whose git directory can be trusted, inner ones before outer ones."""
    for path in plumbing.gitlinks(checkout):
        inner = opened(checkout, path)
        if inner is not None:
            yield from below(inner)
            yield inner
