"""Attacks on the proxy, by somebody who may say to it whatever they like. Each works against a naive one first.

Both run in a network namespace of their own (`world`), with the servers that they are to reach or not.
"""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from opencode_tasks.containers import handed, network, sockets
from opencode_tasks.containers.egress import client_hello, refusals
from opencode_tasks.store import Store
from tests.conftest import Repo
from tests.containers.mirror import certificate
from tests.escape import world

OPEN = "allowed.example.com"


@dataclass(frozen=True)
class Target:
    """A proxy, and what may be said to it."""

    folder: Path

    def connection(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(20)
        made.connect(str(self.folder / "sockets" / "one" / "proxy.sock"))
        return made

    def ask(self, *said: bytes | str, pause_s: float = 0) -> str:
        """What comes back until the end; `pause_s` between the parts."""
        with self.connection() as made:
            for number, part in enumerate(said):
                time.sleep(pause_s if number else 0)
                with contextlib.suppress(OSError):
                    made.sendall(part.encode() if isinstance(part, str) else part)
            return received(made)

    def get(self, host: str) -> str:
        return self.ask(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")

    def tls(self, host: str, name: str | None, *, port: int = 443, cut: int = 0) -> str:
        """Through a tunnel to `host`, asking for `name`; in records of `cut` bytes. What the server tells."""
        with self.connection() as made:
            made.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            answer = made.recv(4096).decode()
            if " 200 " not in answer:
                return answer + received(made)
            return handshake(made, name, cut)

    def refused(self) -> list[refusals.Refusal]:
        time.sleep(2 * 0.25)
        return refusals.parse((self.folder / "refused" / "one.json").read_bytes())


def received(made: socket.socket) -> str:
    seen = b""
    with contextlib.suppress(OSError):
        while more := made.recv(65536):
            seen += more
    return seen.decode("latin-1")


def handshake(made: socket.socket, name: str | None, cut: int) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context.wrap_bio(incoming, outgoing, server_hostname=name)
    steps: list[Callable[[], object]] = [secure.do_handshake, lambda: secure.write(b"who?"), lambda: secure.read(4096)]
    said: object = b""
    first = True
    for step in steps:
        while True:
            try:
                said = step()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as e:
                return str(e)
            else:
                break
            finally:
                with contextlib.suppress(OSError):
                    waiting = outgoing.read()
                    made.sendall(in_records(waiting, cut) if cut and first else waiting)
                    first = first and not waiting
            try:
                more = made.recv(65536)
            except OSError as e:
                return str(e)
            if not more:
                return "the end"
            incoming.write(more)
    assert isinstance(said, bytes)
    return said.decode()


def in_records(record: bytes, size: int) -> bytes:
    """One record's content in several."""
    content = record[5:]
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(record[:3] + len(part).to_bytes(2, "big") + part for part in parts)


@pytest.fixture(scope="module")
def made_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    certificate(folder)
    return folder


@contextlib.contextmanager
def started(kind: str, folder: Path, certificate_: Path) -> Iterator[Target]:
    for name in ("cert.pem", "key.pem"):
        (folder / name).write_bytes((certificate_ / name).read_bytes())
    (folder / "proxy.py").write_text(handed.proxy())
    as_root = ["--map-root-user"] if os.getuid() else []
    argv = ["unshare", "--net", "--mount", "--pid", *as_root, "--kill-child", "--fork", sys.executable, world.__file__]
    process = subprocess.Popen([*argv, str(folder), kind])
    try:
        until = time.monotonic() + 20
        while not (folder / "sockets" / "one" / "proxy.sock").exists():
            assert process.poll() is None
            assert time.monotonic() < until, "the world did not begin"
            time.sleep(0.02)
        yield Target(folder)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, made_certificate: Path) -> Iterator[Target]:
    with started("ours", tmp_path_factory.mktemp("ours"), made_certificate) as made:
        yield made


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory, made_certificate: Path) -> Iterator[Target]:
    with started("naive", tmp_path_factory.mktemp("naive"), made_certificate) as made:
        yield made


def raw(*said: bytes | str, pause_s: float = 0) -> Callable[[Target], str]:
    return lambda target: target.ask(*said, pause_s=pause_s)


def get(host: str) -> Callable[[Target], str]:
    return lambda target: target.get(host)


def post(*headers: str, body: str = "x") -> Callable[[Target], str]:
    return raw("\r\n".join([f"POST http://{OPEN}/ HTTP/1.1", *headers, "", body]))


HOST = f"Host: {OPEN}"
SECOND = f"GET http://{OPEN}/second HTTP/1.1\r\n{HOST}\r\n\r\n"

# Name: what is done, what is in the answer when it worked, and what ours says instead.
ATTACKS: dict[str, tuple[Callable[[Target], str], str, str]] = {
    "NUL in the name": (get(f"other.example.com\0.{OPEN}"), f"here {world.OTHER}", "400"),
    "a name that is another once normalised": (get(f"other.example.com／.{OPEN}"), f"here {world.OTHER}", "400"),  # noqa: RUF001
    "another host behind an @": (get(f"{OPEN}@other.example.com"), f"here {world.OTHER}", "not a host name"),
    "another host behind an encoded @": (get(f"{OPEN}%40@other.example.com"), f"here {world.OTHER}", "not a host name"),
    "an IPv6 literal": (get(f"[::ffff:{world.PRIVATE}]"), f"here {world.PRIVATE}", "not a host name"),
    "an IPv6 literal of a public host": (get(f"[{world.SIX}]"), f"here {world.SIX}", "not a host name"),
    "an address": (get(world.METADATA), f"here {world.METADATA}", "not allowed"),
    "a public address": (get(world.OTHER), f"here {world.OTHER}", "not allowed"),
    "an address in decimal": (get("2852039166"), f"here {world.METADATA}", "not a host name"),
    "an address in hex": (get("0xa9fea9fe"), f"here {world.METADATA}", "not a host name"),
    "an address in octal": (get("0251.0376.0251.0376"), f"here {world.METADATA}", "not a host name"),
    "a short address": (get("169.254.43518"), f"here {world.METADATA}", "not a host name"),
    "a name that ends in an allowed one": (get("wild.example.com"), f"here {world.OTHER}", "not allowed"),
    "another port": (
        raw(f"CONNECT {OPEN}:22 HTTP/1.1\r\n\r\n", "hello", pause_s=0.1),
        "SSH-2.0",
        "port 22 is not allowed",
    ),
    "another port in plain": (
        raw(f"GET http://{OPEN}:8080/ HTTP/1.1\r\n{HOST}:8080\r\n\r\n"),
        f"here {world.PUBLIC}",
        "port 8080 is not allowed",
    ),
    "TLS for another name": (
        lambda target: target.tls(OPEN, "other.example.com"),
        "sni ['other.example.com']",
        "UNRECOGNIZED_NAME",
    ),
    "TLS for another name in many records": (
        lambda target: target.tls(OPEN, "other.example.com", cut=20),
        "sni ['other.example.com']",
        "UNRECOGNIZED_NAME",
    ),
    "TLS without a name": (lambda target: target.tls(OPEN, None), "sni ['None']", "UNRECOGNIZED_NAME"),
    "through a relay behind port 443": (
        raw(f"CONNECT {OPEN}:443 HTTP/1.1\r\n\r\n", "CONNECT other.example.com:443 HTTP/1.1\r\n\r\n", pause_s=0.1),
        "got CONNECT other.example.com:443",
        "200",
    ),
    "a name that leads to private space": (get("private.example.com"), f"here {world.PRIVATE}", "not public"),
    "a name that leads to metadata": (get("metadata.example.com"), f"here {world.METADATA}", "machine's own"),
    "a name that leads to the gateway": (get("gateway.example.com"), f"here {world.GATEWAY}", "not public"),
    "a name that leads to loopback": (get("loopback.example.com"), "here 127.0.0.1", "not public"),
    "a name that leads to the host": (get("host.example.com"), f"here {world.HOST}", "machine's own"),
    "a name that leads to mapped IPv4": (get("mapped.example.com"), f"here {world.PRIVATE}", "not public"),
    "a name that leads through NAT64": (get("nat64.example.com"), f"here {world.NAT64}", "not public"),
    "a name that leads through 6to4": (get("sixtofour.example.com"), f"here {world.SIX_TO_FOUR}", "not public"),
    "a name that rebinds": (
        lambda target: "".join(target.get(world.REBINDING) for _ in range(3)),
        f"here {world.METADATA}",
        "machine's own",
    ),
    "huge headers": (
        raw(f"GET http://{OPEN}/ HTTP/1.1\r\n{HOST}\r\n" + f"X: {'x' * 4000}\r\n" * 1000 + "\r\n"),
        f"here {world.PUBLIC}",
        "",
    ),
    "a head that takes its time": (
        raw(f"GET http://{OPEN}/ HTTP/1.1\r\n", f"{HOST}\r\n", "\r\n", pause_s=0.8),
        f"here {world.PUBLIC}",
        "408",
    ),
    "two Hosts": (post(HOST, "Host: other.example.com", "Content-Length: 1"), "Host: other", "400"),
    "another Host": (post("Host: other.example.com", "Content-Length: 1"), "Host: other", "names another host"),
    "two lengths": (post(HOST, "Content-Length: 1", "Content-Length: 9"), "Length: 9", "400"),
    "a length with a sign": (post(HOST, "Content-Length: +1"), "+1", "400"),
    "a length and chunks": (post(HOST, "Content-Length: 1", "Transfer-Encoding: chunked"), "chunked", "411"),
    "chunks under another spelling": (post(HOST, "Transfer-Encoding : chunked"), "chunked", "400"),
    "a folded header": (post(HOST, "X: y", " Transfer-Encoding: chunked"), "chunked", "400"),
    "a bare line feed": (post(HOST, "X: y\nTransfer-Encoding: chunked"), "chunked", "400"),
    "a bare carriage return": (post(HOST, "X: y\rTransfer-Encoding: chunked"), "chunked", "400"),
    "a header without a name": (post(HOST, ": y"), "\r\n: y", "400"),
    "NUL in a header": (post(HOST, "X: \0y"), "X: \0y", "400"),
    "a second request": (raw(f"GET http://{OPEN}/ HTTP/1.1\r\n{HOST}\r\n\r\n{SECOND}"), "/second", "400"),
    "a second request a moment later": (
        raw(f"GET http://{OPEN}/ HTTP/1.1\r\n{HOST}\r\n\r\n", SECOND, pause_s=0.05),
        "/second",
        f"here {world.PUBLIC}",
    ),
    "a body that loses its length": (
        post(HOST, "Connection: Content-Length", f"Content-Length: {len(SECOND)}", body=SECOND),
        "Connection: Content-Length",
        f"Content-Length: {len(SECOND)}",
    ),
    "a secret for the proxy": (post(HOST, "Proxy-Authorization: secret", "Content-Length: 1"), "secret", "here"),
    "a tunnel with a body": (
        raw(f"CONNECT {OPEN}:443 HTTP/1.1\r\nContent-Length: 9\r\n\r\nhello\r\n\r\n"),
        "got hello",
        "400",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_it_works_against_a_naive_proxy_and_not_against_ours(name: str, naive: Target, ours: Target) -> None:
    attack, worked, instead = ATTACKS[name]
    assert worked in attack(naive)
    answer = attack(ours)
    assert worked not in answer
    assert instead in answer


def test_what_is_allowed_is_reached(ours: Target) -> None:
    for host, address in ((OPEN, world.PUBLIC), ("below.wild.example.com", world.PUBLIC), (world.PUBLIC, world.PUBLIC)):
        assert f"here {address}" in ours.get(host)
        assert f"here {address}" in ours.get(f"{host}:80")
    assert f"here {world.PUBLIC}" in ours.get("ALLOWED.Example.COM.")
    assert f"here {world.MIRROR}" in ours.get("mirror.example.com")
    assert f"here {world.SIX}" in ours.get("six.example.com")
    assert f"sni ['{OPEN}']" in ours.tls(OPEN, OPEN)
    assert f"sni ['{OPEN}']" in ours.tls(OPEN.upper(), OPEN, cut=7)
    assert "sni ['None']" in ours.tls(world.PUBLIC, None)
    body = "y" * 100_000
    big = f"POST http://{OPEN}/ HTTP/1.1\r\n{HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert ours.ask(big, body).endswith(body[:20000])


def test_what_is_refused_is_noted_and_steers_nothing(naive: Target, ours: Target) -> None:
    line = 'GET http://x\x1b[2J\t"},{"host":"forged/ HTTP/1.1\r\n\r\n'
    naive.ask(line)
    assert "\x1b[2J" in (naive.folder / "log").read_text()
    assert "400" in ours.ask(line)
    ours.get("other.example.com")
    noted = ours.refused()
    assert all(one.host.isprintable() and one.host.isascii() and one.why.isprintable() for one in noted)
    assert ("other.example.com", 80, "not allowed") in [(one.host, one.port, one.why) for one in noted]
    assert "forged" not in [one.host for one in noted]
    for number in range(refusals.MOST + 50):
        ours.get(f"host{number}.example.net")
    noted = ours.refused()
    assert len(noted) == refusals.MOST
    assert noted[-1].host == f"host{refusals.MOST + 49}.example.net"


def test_more_connections_than_a_task_may_have(naive: Target, ours: Target) -> None:
    def served(target: Target) -> str:
        with contextlib.ExitStack() as held:
            for _ in range(40):
                with contextlib.suppress(OSError):
                    held.enter_context(target.connection())
            return target.get(OPEN)

    assert f"here {world.PUBLIC}" in served(naive)
    assert f"here {world.PUBLIC}" not in served(ours)
    until = time.monotonic() + 10
    while "here" not in ours.get(OPEN):
        assert time.monotonic() < until, "those who went away still count"


def test_a_list_that_changes(ours: Target) -> None:
    """Who is connected to what is not allowed any more is cut off; a list that cannot be read allows nothing."""
    policy = ours.folder / "policy" / "one.json"
    before = policy.read_text()

    def put(text: str) -> None:
        (policy.parent / ".one").write_text(text)
        (policy.parent / ".one").rename(policy)

    try:
        with ours.connection() as held:
            held.sendall(f"CONNECT {OPEN}:443 HTTP/1.1\r\n\r\n".encode())
            assert b"200" in held.recv(4096)
            put("{")
            assert received(held) == ""
        assert "not allowed" in ours.get(OPEN)
        put(json.dumps({"allow": [f"{OPEN}:8080"], "private": [], "denied": []}))
        asked = f"GET http://{OPEN}:8080/ HTTP/1.1\r\nHost: {OPEN}:8080\r\n\r\n"
        # At once, both what is allowed and what is taken back.
        for _ in range(5):
            assert "here" in ours.ask(asked)
            assert "port 80 is not allowed" in ours.get(OPEN)
            put(before)
            assert "here" in ours.get(OPEN)
            put(json.dumps({"allow": [f"{OPEN}:8080"], "private": [], "denied": []}))
    finally:
        put(before)


def test_a_hello_of_any_form_is_understood_or_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    secure = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=OPEN)
    with contextlib.suppress(ssl.SSLWantReadError):
        secure.do_handshake()
    whole = outgoing.read()
    for size in (1, 3, 100, 16000):
        cut = in_records(whole, size)
        assert client_hello.server_name(cut) == OPEN
        assert {client_hello.server_name(cut[:end]) for end in range(0, len(cut), size)} == {None}
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        with contextlib.suppress(client_hello.MalformedError):  # and nothing else
            client_hello.server_name(bytes(changed))
    for odd in (b"\x16\x03\x01\0\0", b"\x16\x02", b"\x15\x03\x01\0\1\1", b"\x80\x2e\x01"):
        with pytest.raises(client_hello.MalformedError):
            client_hello.server_name(odd)


def test_what_lies_in_place_of_the_refusals_is_not_followed(repo: Repo, tmp_path: Path) -> None:
    """By a sidecar that was taken over: a link to a file of the host, a pipe without end, nonsense, gigabytes."""
    repo.git("checkout", "--quiet", "-b", "task/forged")
    store, task = Store(repo.common), repo.only_id()
    place = sockets.egress(store.clone_id, task)
    assert place is not None
    good = {"refused": [{"host": "a.example", "port": 1, "why": "w", "count": 1, "last": "t"}]}
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(good))
    try:
        place.refused.write_text(json.dumps(good))
        assert [one.host for one in network.refused(store, task)] == ["a.example"]
        place.refused.unlink()
        place.refused.symlink_to(secret)
        assert json.loads(place.refused.read_text()) == good  # a naive reader follows it
        assert network.refused(store, task) == []
        place.refused.unlink()
        subprocess.run(["mkfifo", str(place.refused)], check=True)
        assert network.refused(store, task) == []
        place.refused.unlink()
        for text in ("", "[]", '{"refused": {}}', '{"refused": [1, {}, null]}', "[" * 100_000, "x" * (1 << 22)):
            place.refused.write_text(text)
            assert network.refused(store, task) == []
        row = {"host": "\x1b[2Jevil", "port": 1, "why": "a\nb", "count": 1, "last": "\u202e"}
        odd = [{**row, "port": 1 << 40}, {**row, "count": True}, {**row, "host": ["x"]}, row]
        place.refused.write_text(json.dumps({"refused": odd}))
        (shown,) = network.refused(store, task)
        assert (shown.host, shown.why, shown.last) == ("\\x1b[2Jevil", "a\\nb", "\\u202e")
        assert "\x1b" not in repo.tasks("task-status", task).out
        listening = place.socket / "proxy.sock"
        for argv in (["ln", "-s", str(secret)], ["touch"], ["mkfifo"]):
            subprocess.run([*argv, str(listening)], check=True)
            assert not sockets.is_served(store.clone_id, task)
            listening.unlink()
    finally:
        sockets.remove_all(store.clone_id)
