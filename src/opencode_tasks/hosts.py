"""Names of hosts, and entries of the list of those that may be reached.

Pure, and of the standard library only: the proxy runs it too, without anything else of ours.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

PORTS = (80, 443)
"""What an entry without a port means."""

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: then no program takes the name for an address in decimal, octal or hex.
_NAME = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")
_PORT = re.compile("[1-9][0-9]{0,4}")
_LONGEST = 253


class Entry(NamedTuple):
    """`port` None: the usual ones. `is_wildcard`: every name below `name`, and not `name` itself."""

    name: str
    is_wildcard: bool
    port: int | None

    def permits(self, host: str, port: int) -> bool:
        return self.has(host) and (port in PORTS if self.port is None else port == self.port)

    def has(self, host: str) -> bool:
        return host.endswith(f".{self.name}") if self.is_wildcard else host == self.name

    def __str__(self) -> str:
        return ("*." if self.is_wildcard else "") + self.name + ("" if self.port is None else f":{self.port}")


def normal(host: str) -> str:
    """As it is compared: lower case, without the last dot. Raises `ValueError` for no name and no IPv4 address."""
    lowered = host.lower().removesuffix(".") if host.isascii() else ""
    if len(lowered) <= _LONGEST and (_NAME.fullmatch(lowered) or _ADDRESS.fullmatch(lowered)):
        return lowered
    raise ValueError("not a host name")


def is_address(host: str) -> bool:
    return _ADDRESS.fullmatch(host) is not None


def port_number(text: str) -> int:
    """Raises `ValueError`."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError("not a port")
    return int(text)


def entry(text: str) -> Entry:
    """`pypi.org`, `*.example.com`, `github.com:22`, `192.0.2.7`. Raises `ValueError`."""
    host, colon, port = text.partition(":")
    is_wildcard = host.startswith("*.")
    name = normal(host[2:] if is_wildcard else host)
    if is_wildcard and is_address(name):
        raise ValueError("not a host name")
    return Entry(name, is_wildcard, port_number(port) if colon else None)


def why_not(entries: Iterable[Entry], host: str, port: int) -> str:
    """Empty when `host`, in its normal form, may be reached at `port`."""
    of_host = [e for e in entries if e.has(host)]
    if any(e.permits(host, port) for e in of_host):
        return ""
    return f"port {port} is not allowed" if of_host else "not allowed"
