"""What is the matter with the submodules of a checkout: told before a task starts there, and by `doctor`.

Submodules are looked into one by one, and only where their git directory is one that no container can write: git would
otherwise do what the configuration there says.
"""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from opencode_tasks.errors import TaskError
from opencode_tasks.git import plumbing, submodules
from opencode_tasks.git.discovery import Checkout
from opencode_tasks.git.submodules import Finding, Submodule, command

GRAVE = ("refused", "adrift", "moved", "absent", "inside", "failed", "in the way")
"""Kinds that do not come with everyday work: something is wrong, or will be."""


def found(checkout: Checkout) -> list[Finding]:
    """At most a few for each submodule of the index. Changes nothing."""
    if not submodules.has_any(checkout):
        return []
    base: list[str] = []
    return [finding for sub in submodules.read(checkout) for finding in _of(checkout, sub, base)]


def refuse_loss(checkout: Checkout, findings: Sequence[Finding], start: str) -> None:
    """Raises `TaskError` where checking out `start` here would have git move a submodule off commits that only its
    HEAD leads to: with `submodule.recurse` it does so without a word.
    """
    adrift = [finding for finding in findings if finding.kind == "adrift"]
    if not adrift or plumbing.git(checkout, "config", "--bool", "submodule.recurse", check=False).out.strip() != "true":
        return
    for finding in adrift:
        words = ("diff-index", "--cached", "--quiet", "--ignore-submodules=none", start, "--", finding.path)
        if plumbing.git(checkout, *words, check=False).code != 0:
            raise TaskError(
                f"Submodule {finding.path}: {finding.message}; submodule.recurse would have git leave them",
                hint=finding.hint,
                code="submodules",
            )


def _of(checkout: Checkout, sub: Submodule, base: list[str]) -> Iterator[Finding]:
    if sub.is_left_out:
        return
    fault = sub.fault or submodules.fault_of_place(checkout, sub.path)
    if fault:
        yield Finding(sub.path, "refused", fault, f"look at it: {command(checkout, 'status')}")
        return
    if sub.own_url and sub.url and _is_elsewhere(checkout, sub, base):
        told = f"{submodules.FILE} names another address than git's configuration"
        sync = command(checkout, "submodule", "sync", "--", sub.path)
        yield Finding(sub.path, "moved", told, f"to go by the file: {sync}")
    inner = submodules.opened(checkout, sub.path)
    update = command(checkout, "submodule", "update", "--init", "--", sub.path)
    if inner is not None:
        yield from _of_tree(checkout, sub, inner, update)
    elif (checkout.top / sub.path / ".git").exists():
        absorb = command(checkout, "submodule", "absorbgitdirs", "--", sub.path)
        told = "its repository is in the work tree, where a container can write, and is not looked into"
        yield Finding(sub.path, "inside", told, f"to move it to .git/modules: {absorb}")
    else:
        yield Finding(sub.path, "missing", "it is not checked out here", f"to have it: {update}")


def _of_tree(checkout: Checkout, sub: Submodule, inner: Checkout, update: str) -> Iterator[Finding]:
    words = ("status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=all")
    told = plumbing.git(inner, *words, check=False)
    entries = [entry for entry in told.out.split("\0") if entry]
    head = next((e.rpartition(" ")[2] for e in entries if e.startswith("# branch.oid ")), "")
    if told.code != 0 or not head:
        yield Finding(sub.path, "failed", "git cannot tell how it is", f"look at it: {command(inner, 'status')}")
        return
    changed = sum(not e.startswith("#") for e in entries)
    if changed:
        message = (
            f"{changed} changed or untracked path{'s' if changed > 1 else ''} that the task's commits will not have"
        )
        yield Finding(sub.path, "dirty", message, f"commit them there first: {command(inner, 'status')}")
    if head == sub.commit:
        return
    if plumbing.commit_of(inner, sub.commit) is None:
        yield Finding(sub.path, "absent", f"commit {sub.commit[:9]} is not on this disk", f"to fetch it: {update}")
    is_detached = "# branch.head (detached)" in entries
    asked = ("rev-list", "--ignore-missing", "--count", "HEAD", "--not", "--glob=refs/*", sub.commit)
    counted = plumbing.git(inner, *asked, check=False).out.strip() if is_detached else "0"
    if counted not in ("", "0"):
        keep = command(inner, "switch", "--create", "NAME")
        message = f"{counted} commit{'s' if counted != '1' else ''} on no branch, and not what {sub.commit[:9]} has"
        yield Finding(sub.path, "adrift", message, f"to keep them: {keep}")
    else:
        add = command(checkout, "add", "--", sub.path)
        message = f"it is at {head[:9]}, and {sub.commit[:9]} is what is recorded"
        yield Finding(sub.path, "elsewhere", message, f"to go there: {update}; to record this one: {add}")


def _is_elsewhere(checkout: Checkout, sub: Submodule, base: list[str]) -> bool:
    if sub.url.startswith(("./", "../")):
        if not base:
            base.append(_remote(checkout))
        return _plain(_resolved(base[0], sub.url)) != _plain(sub.own_url)
    return _plain(sub.url) != _plain(sub.own_url)


def _remote(checkout: Checkout) -> str:
    """What relative addresses are relative to: the branch's remote, `origin`, or this repository itself."""
    branch = plumbing.head_branch(checkout)
    asked = plumbing.git(checkout, "config", "--get", f"branch.{branch}.remote", check=False).out.strip()
    found = plumbing.git(checkout, "config", "--get", f"remote.{asked or 'origin'}.url", check=False).out.strip()
    return found or str(checkout.top)


def _resolved(base: str, url: str) -> str:
    """As git does it: each `../` takes a part off, at the last slash, else at the last colon."""
    base, colon = base.rstrip("/"), "/"
    while url.startswith(("./", "../")):
        if url.startswith("./"):
            url = url[2:]
            continue
        url = url[3:]
        head, slash, _ = base.rpartition("/")
        if not slash:
            head, _, _ = base.rpartition(":")
            colon = ":"
        base = head
    return f"{base}{colon}{url}".rstrip("/")


def _plain(url: str) -> str:
    """Without who asks: a name or a token in one of the two makes no other address."""
    if re.match(r"[a-z][a-z0-9+.-]*://", url):
        parts = urlsplit(url)
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return url.rstrip("/").removesuffix(".git")
