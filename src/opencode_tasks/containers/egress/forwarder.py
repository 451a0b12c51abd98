"""Runs inside a task's container, as its user: takes what is meant for an HTTP proxy at 127.0.0.1 to the socket of the
task's proxy, which is outside. It decides nothing: the container has no other way out, with it or without it.

The host hands this text to the image's own python3, so: the standard library only, and nothing newer than 3.9.
"""

import _thread
import json
import os
import socket
import sys
import time
from contextlib import suppress

from opencode_tasks.containers.egress.relay import pump

PORT = 3128
_NOTHING = "no host may be reached yet; a person may run: opencode-tasks allow HOST --task %s"
_GONE = "the proxy does not run; the next command of opencode-tasks exec starts it"


def main(path: str, task: str) -> None:
    listeners = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with suppress(OSError):  # not every container has IPv6
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, PORT))
            listener.listen(128)
            listeners.append(listener)
    os.dup2(0, 1)  # whoever waits for us reads the end
    for listener in listeners[1:]:
        _thread.start_new_thread(accept, (listener, path, task))
    if listeners:
        accept(listeners[0], path, task)


def accept(listener: socket.socket, path: str, task: str) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # no descriptor left, for now
            time.sleep(0.05)
            continue
        try:
            _thread.start_new_thread(serve, (client, path, task))
        except RuntimeError:  # no thread left
            client.close()


def serve(client: socket.socket, path: str, task: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as proxy, suppress(OSError):
        try:
            proxy.connect(path)
        except FileNotFoundError:
            refuse(client, 403, _NOTHING % task)
        except OSError:
            refuse(client, 502, _GONE)
        else:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pump(client, proxy)


def refuse(client: socket.socket, status: int, said: str) -> None:
    client.settimeout(5)
    client.recv(65536)
    body = json.dumps({"error": {"code": "network", "message": said, "hint": ""}}) + "\n"
    answer = "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    client.sendall((answer % (status, said, len(body), body)).encode())
    client.shutdown(socket.SHUT_WR)
    client.recv(65536)


def run() -> None:
    main(*sys.argv[1:])
