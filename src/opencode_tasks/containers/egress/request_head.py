"""One request to a proxy: what it asks for, strictly. Runs in the sidecar: the standard library only.

What two programs could read in two ways is refused, so that nobody behind us sees another request than we do.
"""

import re
from typing import NamedTuple

from opencode_tasks.hosts import normal, port_number

LARGEST = 16 * 1024
_MOST_HEADERS = 100
_LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]+) (HTTP/1\.[01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_ONCE = (b"host", b"content-length")
_HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"}
_OURS = {b"host", b"content-length"}


class RefusedError(Exception):
    """`status` is HTTP's; `host` as it was asked for, if that could be told."""

    def __init__(self, status: int, why: str, host: str = "", port: int = 0) -> None:
        super().__init__(why)
        self.status, self.why, self.host, self.port = status, why, host, port


class Request(NamedTuple):
    """`head_b` is what goes to the host, empty for CONNECT; `length` the size of the body that follows it."""

    host: str
    port: int
    is_tunnel: bool
    head_b: bytes
    length: int


def parse(head_b: bytes) -> Request:
    """`head_b` with its empty line at the end. Raises `RefusedError`."""
    first_b, *lines = head_b[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first_b)
    if line is None:
        raise RefusedError(400, "not a request line that HTTP/1 has", _asked(first_b))
    method, target_b, version = line.groups()
    is_tunnel = method == b"CONNECT"
    authority, path = (target_b.decode(), "") if is_tunnel else _split(target_b.decode())
    host, port = _authority(authority, None if is_tunnel else 80)
    headers = _headers(lines, host, port)
    once = {name: value for name, value in headers if name in _ONCE}
    if is_tunnel:
        if b"content-length" in once:
            raise RefusedError(400, "CONNECT has no body", host, port)
        return Request(host, port, True, b"", 0)
    _check_host(once.get(b"host"), version, host, port)
    length_b = once.get(b"content-length", b"0")
    if not _LENGTH.fullmatch(length_b):
        raise RefusedError(400, "a Content-Length that is no number", host, port)
    return Request(host, port, False, _forwarded(method, path, version, headers, once, host, port), int(length_b))


def _split(target: str) -> tuple[str, str]:
    """Authority and path of `http://authority/path`."""
    if target[:7].lower() != "http://":
        raise RefusedError(400, "not a request to a proxy: http://host/path, or CONNECT host:port", shown(target))
    authority = re.split("[/?]", target[7:], maxsplit=1)[0]
    path = target[7 + len(authority) :]
    if "#" in target:
        raise RefusedError(400, "a fragment in the address", shown(authority))
    return authority, path if path.startswith("/") else f"/{path}"


def _authority(text: str, default: int | None) -> tuple[str, int]:
    host, colon, port = text.partition(":")
    try:
        return normal(host), port_number(port) if colon or default is None else default
    except ValueError as e:
        raise RefusedError(403, str(e), shown(text)) from e


def _headers(lines: list[bytes], host: str, port: int) -> list[tuple[bytes, bytes]]:
    found = []
    if len(lines) > _MOST_HEADERS:
        raise RefusedError(431, "too many headers", host, port)
    for line_b in lines:
        header = _HEADER.fullmatch(line_b)
        if header is None:
            raise RefusedError(400, "a header that HTTP/1 does not have", host, port)
        found.append((header[1].lower(), header[2]))
    names = [name for name, _ in found]
    if any(names.count(name) > 1 for name in _ONCE):
        raise RefusedError(400, "two Host or Content-Length headers", host, port)
    if b"transfer-encoding" in names:
        raise RefusedError(411, "a body without Content-Length", host, port)
    return found


def _check_host(said_b: bytes | None, version: bytes, host: str, port: int) -> None:
    if said_b is None:
        if version == b"HTTP/1.1":
            raise RefusedError(400, "no Host header", host, port)
        return
    try:
        same = _authority(said_b.decode("latin-1"), 80) == (host, port)
    except RefusedError:
        same = False
    if not same:
        raise RefusedError(403, "a Host header that names another host", host, port)


def _forwarded(
    method: bytes,
    path: str,
    version: bytes,
    headers: list[tuple[bytes, bytes]],
    once: dict[bytes, bytes],
    host: str,
    port: int,
) -> bytes:
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    dropped = _HOP_BY_HOP | _OURS | named
    lines = [method + b" " + path.encode() + b" " + version]
    lines.append(b"Host: " + host.encode() + (b"" if port == 80 else b":%d" % port))
    lines += [n + b": " + v for n, v in headers if n not in dropped and not n.startswith(b"proxy-")]
    if b"content-length" in once:
        lines.append(b"Content-Length: " + once[b"content-length"])
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _asked(line_b: bytes) -> str:
    """Something to show of a line that is no request's."""
    return shown(line_b.partition(b" ")[2].rpartition(b" ")[0].decode("latin-1"))


def shown(text: str) -> str:
    """In ASCII, on one line, not long."""
    return ascii(text[:100])[1:-1]
