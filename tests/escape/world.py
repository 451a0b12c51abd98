"""A world of its own for the proxy: a network namespace whose loopback has public, private and metadata addresses.

Started as `unshare --net --mount python world.py FOLDER KIND`. KIND is `ours` (its text is in FOLDER/proxy.py) or
`naive`; either listens at `FOLDER/sockets/one/proxy.sock`, which can be reached from outside, as unix sockets are of
no network. Nothing that is sent here leaves the namespace: it has no other interface.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

PUBLIC, OTHER = "93.184.216.34", "93.184.216.35"
METADATA, GATEWAY, PRIVATE, HOST, MIRROR = "169.254.169.254", "172.17.0.1", "10.1.2.3", "93.184.216.99", "10.20.0.7"
SIX, NAT64, SIX_TO_FOUR = "2606:2800:220:1::34", "64:ff9b::a01:203", "2002:a01:203::1"
NAMES = {
    "allowed.example.com": PUBLIC,
    "other.example.com": OTHER,
    "below.wild.example.com": PUBLIC,
    "wild.example.com": OTHER,
    "metadata.example.com": METADATA,
    "gateway.example.com": GATEWAY,
    "private.example.com": PRIVATE,
    "loopback.example.com": "127.0.0.1",
    "host.example.com": HOST,
    "mirror.example.com": MIRROR,
    "six.example.com": SIX,
    "mapped.example.com": f"::ffff:{PRIVATE}",
    "nat64.example.com": NAT64,
    "sixtofour.example.com": SIX_TO_FOUR,
    "multicast.example.com": "224.0.0.251",
}
REBINDING = "rebinding.example.com"
ALLOW = [*(set(NAMES) - {"other.example.com", "wild.example.com"}), "*.wild.example.com", REBINDING, PUBLIC]
TIMES = {"head": 1, "connect": 3, "connections": 16}


def main(folder: Path, kind: str) -> None:
    for address in (PUBLIC, OTHER, METADATA, GATEWAY, PRIVATE, HOST, MIRROR, SIX, NAT64, SIX_TO_FOUR):
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
    for name in ("policy", "sockets/one", "refused"):
        (folder / name).mkdir(parents=True)
    policy = {"allow": ALLOW, "private": ["10.20.0.0/16"], "denied": [HOST]}
    (folder / "policy" / "one.json").write_text(json.dumps(policy))
    threading.Thread(target=resolve, daemon=True).start()
    serve(folder)
    if kind == "naive":
        asyncio.run(naive(folder))
    else:
        text = (folder / "proxy.py").read_text()
        subprocess.run([sys.executable, "-I", "-S", "-c", text, str(folder), json.dumps(TIMES)], check=True)


def resolve() -> None:
    """DNS. What rebinds has a public address when it is asked for the first time, and then another."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 53))
    asked = 0
    while True:
        question, who = listener.recvfrom(4096)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1").lower())
            at += 1 + question[at]
        name, kind = ".".join(labels), question[at + 1 : at + 3]
        found = NAMES.get(name)
        if name == REBINDING:
            asked += kind == b"\0\1"
            found = PUBLIC if asked == 1 else METADATA
        answer = b""
        if found is not None:
            address = ipaddress.ip_address(found)
            if kind == {4: b"\0\1", 6: b"\0\x1c"}[address.version]:
                answer = b"\xc0\x0c" + kind + b"\0\1\0\0\0\0" + len(address.packed).to_bytes(2, "big") + address.packed
        flags = b"\x81\x80" if found else b"\x81\x83"
        counts = b"\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
        listener.sendto(question[:2] + flags + counts + question[12 : at + 5] + answer, who)


def serve(folder: Path) -> None:
    """Every address tells on 80, 443, 22 and 8080 which it is, and what it was asked, byte for byte."""
    for port in (80, 443, 22, 8080):
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 (loopback is all there is)
            listener = socket.socket(family)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            listener.listen(256)
            threading.Thread(target=accept, args=(listener, folder), daemon=True).start()


def accept(listener: socket.socket, folder: Path) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=tell, args=(client, folder), daemon=True).start()


def tell(client: socket.socket, folder: Path) -> None:
    with contextlib.suppress(OSError), client:
        client.settimeout(30)
        me, port = client.getsockname()[:2]
        here = f"here {me} ".encode()
        if port == 22:
            client.sendall(b"SSH-2.0 " + here)
            client.sendall(b"got " + client.recv(4096))
        elif port == 443 and client.recv(1, socket.MSG_PEEK) == b"\x16":
            tell_name(client, here, folder)
        else:
            seen = client.recv(65536)
            while b"\r\n\r\n" not in seen and (more := client.recv(1 << 20)):
                seen += more
            client.settimeout(0.15)
            with contextlib.suppress(TimeoutError):
                while more := client.recv(1 << 20):
                    seen += more
            body = here + b"got " + seen[-20000:]
            client.settimeout(30)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def tell_name(client: socket.socket, here: bytes, folder: Path) -> None:
    asked: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.sni_callback = lambda _socket, name, _context: asked.append(str(name))
    with context.wrap_socket(client, server_side=True) as secure:
        secure.recv(4096)
        secure.sendall(here + f"sni {asked}".encode())


async def naive(folder: Path) -> None:
    """What people write first: look whether an allowed name is in what was asked for, and pass the bytes on."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
            authority = target if method == "CONNECT" else target[7:].partition("/")[0]
            with (folder / "log").open("a") as log:
                log.write(f"{authority}\n")
            host, port = parted(authority)
            is_known = any(name.removeprefix("*.") in authority for name in ALLOW)
            if is_known or not any(c in "ghijklmnopqrstuvwyz" for c in host):  # an address is fine
                upstream, sink = await asyncio.open_connection(host, port)
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    sink.write(head)
                await asyncio.gather(pipe(reader, sink), pipe(upstream, writer))
            else:
                writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        except (OSError, ValueError, asyncio.IncompleteReadError) as e:
            with contextlib.suppress(OSError):
                writer.write(f"HTTP/1.1 502 {e!r}\r\n\r\n".encode())
        writer.close()

    path = str(folder / "sockets" / "one" / "proxy.sock")
    server = await asyncio.start_unix_server(handle, path, limit=1 << 26)
    await server.serve_forever()


def parted(authority: str) -> tuple[str, int]:
    """As lenient programs do it: normalised, what stands before an @ or after a NUL or slash left out."""
    text = unicodedata.normalize("NFKC", authority).partition("\0")[0].partition("/")[0].rpartition("@")[2]
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port[1:] or 80)
    host, _, port = text.partition(":")
    return host, int(port or 80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
