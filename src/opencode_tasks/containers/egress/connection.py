"""One connection of a task to its proxy. Runs in the sidecar: the standard library only."""

import asyncio
import json
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opencode_tasks.containers.egress.client_hello import HANDSHAKE, UNRECOGNIZED_NAME, MalformedError, server_name
from opencode_tasks.containers.egress.relay import END, READ, Flow
from opencode_tasks.containers.egress.request_head import LARGEST, RefusedError, Request, parse, shown
from opencode_tasks.hosts import is_address, normal

if TYPE_CHECKING:
    from opencode_tasks.containers.egress.proxy import Desk

_LARGEST_HELLO = 64 * 1024
_MOST_ADDRESSES = 4


class Connection:
    def __init__(self, desk: "Desk", client: socket.socket) -> None:
        self.desk, self.client = desk, client
        self.loop, self.times = desk.proxy.loop, desk.proxy.times
        self.upstream: socket.socket | None = None
        self.request: Request | None = None
        self.flows: list[Flow] = []
        self.waits: dict[Flow, int] = {}
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.moved_at = time.monotonic()

    async def serve(self) -> None:
        try:
            await self._serve()
        except RefusedError as e:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self.times.head):
                    await self.refuse(e)
        except (OSError, TimeoutError):
            pass
        finally:
            self.close()

    async def _serve(self) -> None:
        if len(self.desk.connections) > self.times.connections:
            raise RefusedError(503, f"more than {self.times.connections} connections at once")
        head_b, rest_b = await self.head()
        request = parse(head_b)
        self.desk.current().check(request)
        self.request = request
        if not request.is_tunnel and len(rest_b) > request.length:
            raise RefusedError(400, "bytes after the request", request.host, request.port)
        self.upstream = upstream = await self.connected(request)
        if request.is_tunnel:
            await self.loop.sock_sendall(self.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self.tunnel(request, upstream, rest_b)
        else:
            await self.loop.sock_sendall(upstream, request.head_b + rest_b)
            if request.length > len(rest_b):
                self.start(Flow(self.client, upstream, request.length - len(rest_b)))
            self.start(Flow(upstream, self.client))
            await self.ended

    async def head(self) -> tuple[bytes, bytes]:
        """The request's head, and what came with it."""
        seen_b = bytearray()
        try:
            async with asyncio.timeout(self.times.head):
                while (end := seen_b.find(b"\r\n\r\n")) < 0:
                    if len(seen_b) >= LARGEST:
                        raise RefusedError(431, f"a head of more than {LARGEST} bytes")
                    more_b = await self.loop.sock_recv(self.client, LARGEST)
                    if not more_b:
                        raise ConnectionResetError
                    seen_b += more_b
        except TimeoutError as e:
            raise RefusedError(408, f"no whole request within {self.times.head:g} s") from e
        if end + 4 > LARGEST:
            raise RefusedError(431, f"a head of more than {LARGEST} bytes")
        return bytes(seen_b[: end + 4]), bytes(seen_b[end + 4 :])

    async def connected(self, request: Request) -> socket.socket:
        host, port = request.host, request.port
        try:
            async with asyncio.timeout(self.times.connect):
                found = await self.addresses(host, port)
                reasons = [self.desk.policy.addresses.why_not(address[0]) for _, address in found]
                good = [one for one, reason in zip(found, reasons, strict=True) if not reason]
                if not good:
                    raise RefusedError(403, reasons[0], host, port)
                return await self.first_that_answers(good)
        except socket.gaierror as e:
            raise RefusedError(502, f"cannot be resolved: {e.strerror}", host, port) from e
        except TimeoutError as e:
            raise RefusedError(504, f"did not answer within {self.times.connect:g} s", host, port) from e
        except OSError as e:
            raise RefusedError(502, f"cannot be connected to: {e.strerror}", host, port) from e

    async def addresses(self, host: str, port: int) -> list[tuple[int, Any]]:
        if is_address(host):
            return [(socket.AF_INET, (host, port))]
        # With its last dot, so that no search domain is added.
        asked = self.loop.run_in_executor(
            self.desk.proxy.resolvers, socket.getaddrinfo, f"{host}.", port, 0, socket.SOCK_STREAM
        )
        return [(int(found[0]), found[4]) for found in await asked]

    async def first_that_answers(self, found: Sequence[tuple[int, Any]]) -> socket.socket:
        error: OSError = OSError("no address")
        for family, address in found[:_MOST_ADDRESSES]:
            made = socket.socket(family)
            made.setblocking(False)
            try:
                await self.loop.sock_connect(made, address)
            except OSError as e:
                made.close()
                error = e
            except BaseException:
                made.close()
                raise
            else:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made
        raise error

    async def tunnel(self, request: Request, upstream: socket.socket, seen_b: bytes) -> None:
        speaks_tls = request.port == 443
        if not speaks_tls:  # the host may be the one that speaks first
            self.start(Flow(upstream, self.client))
        try:
            seen_b = await self.unless_ended(self.opening(request, bytearray(seen_b)))
        except RefusedError as e:
            self.desk.book.note(e.host, e.port, e.why)
            with suppress(OSError):
                self.client.send(UNRECOGNIZED_NAME)
            return
        await self.loop.sock_sendall(upstream, seen_b)
        self.start(Flow(self.client, upstream))
        if speaks_tls:
            self.start(Flow(upstream, self.client))
        await self.ended

    async def opening(self, request: Request, seen_b: bytearray) -> bytes:
        """The first bytes of the client, when they are such as may go on. Raises `RefusedError`."""
        host, port = request.host, request.port
        try:
            async with asyncio.timeout(self.times.head if port == 443 or seen_b else None) as timer:
                while True:
                    if seen_b and seen_b[0] != HANDSHAKE and port != 443:
                        return bytes(seen_b)
                    name = server_name(bytes(seen_b))
                    if name is not None:
                        break
                    if len(seen_b) > _LARGEST_HELLO:
                        raise RefusedError(403, "a ClientHello without end", host, port)
                    more_b = await self.loop.sock_recv(self.client, _LARGEST_HELLO)
                    if not more_b:
                        raise ConnectionResetError
                    seen_b += more_b
                    timer.reschedule(timer.when() or self.loop.time() + self.times.head)
        except TimeoutError as e:
            raise RefusedError(403, f"no TLS within {self.times.head:g} s", host, port) from e
        except MalformedError as e:
            raise RefusedError(403, f"no TLS that we understand: {e}", host, port) from e
        if not _same(name, host):
            raise RefusedError(403, _tls_why(name), host, port)
        return bytes(seen_b)

    async def unless_ended(self, doing: Coroutine[Any, Any, bytes]) -> bytes:
        task = self.loop.create_task(doing)
        try:
            both: set[asyncio.Future[Any]] = {task, self.ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionResetError
            return task.result()
        finally:
            task.cancel()

    def start(self, flow: Flow) -> None:
        self.flows.append(flow)
        self.step(flow)

    def step(self, flow: Flow) -> None:
        self.moved_at = time.monotonic()
        try:
            wanted = flow.move()
        except OSError:
            wanted = END
            self.end()
        if wanted == self.waits.get(flow):
            return
        self.waits[flow] = wanted
        self.loop.remove_reader(flow.source)
        self.loop.remove_writer(flow.sink)
        if self.ended.done():
            return
        if wanted == READ:
            self.loop.add_reader(flow.source, self.step, flow)
        elif wanted != END:
            self.loop.add_writer(flow.sink, self.step, flow)
        else:
            flow.close()
            is_answer = flow.source is self.upstream and self.request is not None and not self.request.is_tunnel
            # Of a request the answer's end is the end; of a tunnel that of both directions.
            if is_answer or (flow.left is not None and flow.left > 0) or self._both_ended():
                self.end()

    def _both_ended(self) -> bool:
        return len(self.flows) == 2 and all(flow.is_cut for flow in self.flows)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def refuse(self, e: RefusedError) -> None:
        """Say so, in a way that survives that nobody has read the request's body."""
        if e.host and e.status in (400, 403, 411):
            self.desk.book.note(e.host, e.port, e.why)
        await self.loop.sock_sendall(self.client, answer(e, self.desk.task))
        self.client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(1):
            for _ in range(16):
                if not await self.loop.sock_recv(self.client, LARGEST):
                    return

    def close(self) -> None:
        self.end()
        for end in (self.client, self.upstream):
            if end is not None:
                self.loop.remove_reader(end)
                self.loop.remove_writer(end)
                end.close()
        for flow in self.flows:
            flow.close()
        self.desk.connections.pop(self, None)


def _same(name: str, host: str) -> bool:
    if is_address(host):
        return name == ""
    try:
        return normal(name) == host and not is_address(name)
    except ValueError:
        return False


def _tls_why(name: str) -> str:
    return f"TLS asks for {shown(name)}" if name else "TLS without a name"


def answer(e: RefusedError, task: str) -> bytes:
    """The reason in the first line too: some clients show only that."""
    where = f"{e.host}:{e.port}" if e.port else e.host
    said = f"{where}: {e.why}" if where else e.why
    allowed = e.why == "not allowed" or e.why.endswith("is not allowed")
    entry_ = e.host if e.why == "not allowed" and e.port in (80, 443) else where
    hint = f"a person may run: opencode-tasks allow {entry_} --task {task}" if allowed else ""
    body = json.dumps({"error": {"code": "network", "message": said, "hint": hint}}) + "\n"
    reason = f"{said}; {hint}" if hint else said
    return (
        f"HTTP/1.1 {e.status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    ).encode("ascii", "backslashreplace")
