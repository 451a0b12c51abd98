"""A network of the engine with public-looking addresses and a server in it; nothing leads out of it."""

import random
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from opencode_tasks.containers import images
from opencode_tasks.containers.engine import Engine

NAME = "mirror.example.com"
ALIASES = (NAME, "files.example.com", "other.example.org", "github.com")
_SERVER = """
import http.server, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.path[6:]) << 20 if self.path.startswith("/size/") else 0
        body = f"hello from {self.headers['Host']}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(size or len(body)))
        self.end_headers()
        chunk = bytes(1 << 20)
        for _ in range(size >> 20):
            self.wfile.write(chunk)
        if not size:
            self.wfile.write(body)
    def do_POST(self):
        self.send_response(200)
        body = str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
secure = http.server.ThreadingHTTPServer(("", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/certificate/cert.pem", "/certificate/key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
for server in (secure, http.server.ThreadingHTTPServer(("", 8080), Handler)):
    threading.Thread(target=server.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Mirror:
    network: str
    address: str
    gateway: str
    certificate: Path
    image: str


@contextmanager
def mirror(host: str, folder: Path) -> Iterator[Mirror]:
    """`folder` is shared with the engine."""
    certificate(folder)
    client = docker.DockerClient(host)
    network, subnet = _network(client)
    server: Container | None = None
    try:
        image = images.newest(Engine(), "base").tag
        server = client.containers.create(
            image,
            ["python3", "-c", _SERVER],
            init=True,
            volumes=[f"{folder}:/certificate:ro"],
            network_mode="none",
        )
        client.api.disconnect_container_from_network(str(server.id), "none")
        network.connect(server, aliases=list(ALIASES), ipv4_address=f"{subnet}.10")
        server.start()
        yield Mirror(str(network.name), f"{subnet}.10", f"{subnet}.1", folder / "cert.pem", image)
    finally:
        if server is not None:
            server.remove(force=True)
        network.reload()
        for left in network.containers:
            with suppress(APIError):
                left.remove(force=True)
        network.remove()
        client.close()


def _network(client: docker.DockerClient) -> tuple[Network, str]:
    """Others may run the same tests on the same engine."""
    for _ in range(20):
        subnet = f"93.184.{random.randint(1, 250)}"
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.1")])
        with suppress(APIError):
            return client.networks.create(f"mirror-{uuid.uuid4().hex[:8]}", internal=True, ipam=pool), subnet
    raise AssertionError("no subnet is free")


@contextmanager
def certificate_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mirror-") as folder:
        yield Path(folder)


def certificate(folder: Path) -> None:
    names = ",".join(f"DNS:{name}" for name in ALIASES)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName={names}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    (folder / "key.pem").chmod(0o644)
