"""A model that says what a script tells it to: OpenAI-compatible, streaming, on loopback."""

import json
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOLD_S = 90
"""Longest time for which an answer is kept back: a test that fails does not leave its agent waiting."""


@dataclass(frozen=True)
class Request:
    """What OpenCode has sent to the model."""

    body: Mapping[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def tools(self) -> set[str]:
        return {tool["function"]["name"] for tool in self.body.get("tools") or ()}

    @cached_property
    def system(self) -> str:
        return "\n".join(_text(m) for m in self.messages if m["role"] in {"system", "developer"})

    @cached_property
    def user(self) -> str:
        """The newest message of the user."""
        return next((_text(m) for m in reversed(self.messages) if m["role"] == "user"), "")

    @cached_property
    def results(self) -> dict[str, str]:
        """What the calls of tools gave, by the ids of the calls: `call_<script>_<step>_<n>`."""
        return {m["tool_call_id"]: _text(m) for m in self.messages if m["role"] == "tool"}

    @property
    def result(self) -> str:
        """What the newest call gave."""
        return list(self.results.values())[-1]

    @cached_property
    def place(self) -> tuple[str, int]:
        """The script that the newest `SCRIPT:<name>` of the user's messages names, and how far it is."""
        name, step = "", 0
        for message in self.messages:
            if message["role"] == "assistant":
                step += 1
            elif message["role"] == "user" and (named := re.findall(r"SCRIPT:(\w+)", _text(message))):
                name, step = named[-1], 0
        return name, step

    @property
    def step_since_user(self) -> int:
        roles = [m["role"] for m in self.messages]
        return roles[::-1][: roles[::-1].index("user")].count("assistant") if "user" in roles else 0


@dataclass(frozen=True)
class Step:
    """One answer: text, calls of tools (name and arguments), or both; `until` is set before it is given."""

    text: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    until: threading.Event | None = None


Script = Sequence[Step | Callable[[Request], Step]]
"""A function gets the request: what it answers may depend on what tools have said."""


def says(text: str) -> Step:
    return Step(text)


def calls(*tools: tuple[str, Mapping[str, Any]], text: str = "") -> Step:
    return Step(text, tools)


def bash(command: str, **more: object) -> Step:
    return calls(("bash", {"command": command, "description": "a command", **more}))


class Model:
    """Requests without tools (titles, compactions) get a text. `otherwise` is for user messages that name no script."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self.requests: list[Request] = []
        self.otherwise: Script | None = None
        self.failures: list[str] = []
        self._scripts: dict[str, Script] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler, bind_and_activate=listener is None)
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
        self._server.model = self
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def learn(self, script: Script) -> str:
        """The words of a prompt that makes it follow the script."""
        name = f"s{len(self._scripts)}"
        self._scripts[name] = script
        return f"SCRIPT:{name}"

    @property
    def turns(self) -> list[Request]:
        """Requests of agents: those with tools."""
        return [r for r in self.requests if r.tools]

    def answer(self, request: Request) -> tuple[str, Step]:
        """The answer, and what the ids of its calls begin with."""
        self.requests.append(request)
        if not request.tools:
            return "", says("A title")
        (name, at), script = request.place, self._scripts.get(request.place[0], ())
        if self.otherwise is not None and "SCRIPT:" not in request.user:
            name, at, script = "otherwise", request.step_since_user, self.otherwise
        step = script[at] if at < len(script) else says("done")
        try:
            step = step if isinstance(step, Step) else step(request)
        except Exception:  # told by the one who started the agent
            shown = list(request.results.values())[-1:]
            self.failures.append(f"{traceback.format_exc()}\nthe newest result: {shown}")
            step = says("the script failed")
        if step.until is not None:
            step.until.wait(_HOLD_S)
        return f"call_{name}_{at}", step


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    model: Model

    def handle_error(self, *_: object) -> None:
        """An agent that was killed, or has aborted, is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            self.model.failures.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prefix, step = self.server.model.answer(Request(body))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for choice in _choices(prefix, step):
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
            if choice["finish_reason"]:
                chunk["usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


def _choices(prefix: str, step: Step) -> Iterator[dict[str, Any]]:
    for piece in step.text.splitlines(keepends=True):
        yield _choice({"role": "assistant", "content": piece})
    for n, (tool, arguments) in enumerate(step.calls):
        function = {"name": tool, "arguments": json.dumps(arguments)}
        call = {"index": n, "id": f"{prefix}_{n}", "type": "function", "function": function}
        yield _choice({"role": "assistant", "tool_calls": [call]})
    yield _choice({}, "tool_calls" if step.calls else "stop")


def _choice(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}
