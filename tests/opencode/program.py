"""The real OpenCode: in a home of its own, with the model of a test, and nothing of it left running."""

import contextlib
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.opencode.model import Model, Script

VERSION = "1.18.33"
_TIMEOUT_S = 90
_MARK = "OPENCODE_OF_TEST"
_STUB = json.dumps({"packages": {"": {"dependencies": {"@opencode-ai/plugin": VERSION}}}})
"""With it, and a `node_modules`, a folder of configuration is not filled from npm: 6 s each, 70 s without network."""


MODELS = ("m", "gpt-5")
RIPGREP = "1.18.0"


def packages() -> tuple[str, str]:
    """The npm packages of OpenCode for this machine, and of `rg`: without one it would be downloaded from GitHub."""
    kind = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
    cpu = Path("/proc/cpuinfo")
    is_old = kind == "x64" and cpu.exists() and " avx2" not in cpu.read_text()
    name = f"{sys.platform}-{kind}"
    return f"opencode-{name}{'-baseline' if is_old else ''}@{VERSION}", f"@vscode/ripgrep-{name}@{RIPGREP}"


def wait_for(holds: Callable[[], object], what: str, *, within_s: float = 40) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Turn:
    """What `opencode run --format json` printed; ended by a signal, `code` is its number below 0."""

    code: int
    events: list[dict[str, Any]]
    err: str

    @property
    def session(self) -> str:
        return str(self.events[0]["sessionID"])

    @property
    def texts(self) -> list[str]:
        return [str(e["part"]["text"]) for e in self.events if e["type"] == "text"]

    def tools(self, name: str = "") -> list[dict[str, Any]]:
        """The states of the calls that have ended: status, input, output or error, metadata."""
        parts = [e["part"] for e in self.events if e["type"] == "tool_use"]
        return [part["state"] for part in parts if name in {"", part["tool"]}]


@dataclass
class Running:
    """One `opencode run`."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait(self, timeout_s: float = _TIMEOUT_S) -> Turn:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            shown = f"stdout: {self.out.read_text()[-8000:]}\nstderr: {self.err.read_text()[-4000:]}"
            pytest.fail(f"OpenCode was not done after {timeout_s} s\n{shown}")
        lines = self.out.read_text().splitlines()
        return Turn(code, [json.loads(line) for line in lines if line.startswith("{")], self.err.read_text())

    def kill(self, number: int = signal.SIGKILL) -> Turn:
        self.process.send_signal(number)
        return self.wait(30)


@dataclass
class OpenCode:
    """`env` is for all that it starts; `prefix` are words before the program's name (`nsenter …`), which may change
    the directory.
    """

    binary: Path
    rg: Path
    home: Path
    model: Model
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _count: int = 0

    def run(
        self,
        prompt: str,
        *args: str,
        cwd: Path,
        script: Script = (),
        command: str = "",
        check: bool = True,
        timeout_s: float = _TIMEOUT_S,
    ) -> Turn:
        """A whole run. With `command`, the prompt is what is given to that slash command."""
        with self.start(prompt, *args, cwd=cwd, script=script, command=command) as running:
            turn = running.wait(timeout_s)
        assert not self.model.failures, self.model.failures[0]
        if check and (turn.code != 0 or any(e["type"] == "error" for e in turn.events)):
            pytest.fail(f"OpenCode exited {turn.code}\nevents: {turn.events[-5:]}\nstderr: {turn.err[-4000:]}")
        return turn

    @contextlib.contextmanager
    def start(self, prompt: str, *args: str, cwd: Path, script: Script = (), command: str = "") -> Iterator[Running]:
        argv = ["run", "--format", "json", *args]
        if command:
            self.model.otherwise = script
            argv += ["--command", command, *([prompt] if prompt else [])]
        else:
            argv.append(f"{prompt} {self.model.learn(script)}")
        with self._started(argv, cwd) as running:
            yield running

    @contextlib.contextmanager
    def serve(self, cwd: Path) -> Iterator["Server"]:
        with self._started(["serve", "--port", "0", "--hostname", "127.0.0.1"], cwd) as running:
            listening = "server listening on "
            wait_for(lambda: listening in running.out.read_text() or running.process.poll() is not None, "a server")
            found = running.out.read_text().partition(listening)[2].split()
            assert found, running.err.read_text()
            yield Server(found[0], self, running)

    @contextlib.contextmanager
    def _started(self, argv: Sequence[str], cwd: Path) -> Iterator[Running]:
        self.prepare(cwd)
        self._count += 1
        out, err = (self.home / f"opencode-{self._count}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [*self.prefix, *(["env", f"--chdir={cwd}"] if self.prefix else []), str(self.binary), *argv],
                cwd=cwd,
                env=self.environment(cwd),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
            )
        try:
            yield Running(process, out, err)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)

    def environment(self, cwd: Path) -> dict[str, str]:
        variables = {
            "HOME": self.home,
            "PWD": cwd,  # it goes by this, and not by the directory it is in
            "XDG_CONFIG_HOME": self.home / ".config",
            "XDG_DATA_HOME": self.home / "data",
            "XDG_CACHE_HOME": self.home / "cache",
            "XDG_STATE_HOME": self.home / "state",
            "PATH": f"{os.environ['PATH']}{os.pathsep}{self.rg.parent}",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            _MARK: self._mark,
        }
        return {**os.environ, **{name: str(value) for name, value in variables.items()}, **self.env}

    def prepare(self, cwd: Path) -> None:
        """The model, in the global configuration: what a project has is the product's. No npm in any of them."""
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": self.model.url, "apiKey": "x"},
            # By its name, OpenCode gives a model of OpenAI's another tool to edit with.
            "models": {name: {"limit": {"context": 100_000, "output": 8_000}, "tool_call": True} for name in MODELS},
        }
        config = {"autoupdate": False, "share": "disabled", "model": "mock/m", "provider": {"mock": provider}}
        place = self.home / ".config" / "opencode"
        place.mkdir(parents=True, exist_ok=True)
        # `config.json` is read first: an `opencode.json[c]` there is the product's.
        (place / "config.json").write_text(json.dumps({**config, **self.config}))
        others = [folder / ".opencode" for folder in (cwd, *cwd.parents, self.home)]
        if named := self.env.get("OPENCODE_CONFIG_DIR"):
            others.append(Path(named))
        for folder in (place, *filter(Path.is_dir, others)):
            (folder / "node_modules").mkdir(exist_ok=True)
            (folder / "package-lock.json").write_text(_STUB)

    def children(self) -> list[int]:
        """Of our plugin: one for each directory. Each leads a group, in which are those that run commands."""
        return [pid for pid, line in self.left().items() if " --opencode-hooks " in line and os.getpgid(pid) == pid]

    def left(self) -> dict[int, str]:
        """Processes that it has started, and that still run: command lines by process id."""
        mark, found = f"{_MARK}={self._mark}".encode(), {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(process.name)] = line.strip()
        return {pid: line for pid, line in found.items() if line}

    def close(self) -> None:
        """What reconciles in the background ends by itself, and cleans up behind it."""
        for pid, line in self.left().items():
            if "-m opencode_tasks reconcile" not in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Server:
    """`opencode serve`, for what `opencode run` cannot do. A session keeps the directory that it was made in."""

    url: str
    opencode: OpenCode
    running: Running

    def call(self, method: str, path: str, body: Any = None, *, directory: Path | None = None) -> Any:
        """An answer that is an error fails the test."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            if directory is not None:
                headers["x-opencode-directory"] = quote(str(directory))
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content.decode(errors='replace')[:2000]}"
        return json.loads(content) if content else None

    def create(self, directory: Path, **more: Any) -> str:
        self.opencode.prepare(directory)
        return str(self.call("POST", "/session", more, directory=directory)["id"])

    def prompt(
        self, session: str, text: str, script: Script = (), *, directory: Path, wait: bool = True, model: str = "m"
    ) -> None:
        parts = [{"type": "text", "text": f"{text} {self.opencode.model.learn(script)}"}]
        path = f"/session/{session}/{'message' if wait else 'prompt_async'}"
        body = {"parts": parts, "model": {"providerID": "mock", "modelID": model}}
        self.call("POST", path, body, directory=directory)

    def command(self, session: str, name: str, arguments: str, script: Script = (), *, directory: Path) -> None:
        self.opencode.model.otherwise = script
        body = {"command": name, "arguments": arguments}
        self.call("POST", f"/session/{session}/command", body, directory=directory)

    def messages(self, session: str, directory: Path) -> list[dict[str, Any]]:
        """`{info, parts}` of each."""
        return list(self.call("GET", f"/session/{session}/message", directory=directory))

    def tools(self, session: str, directory: Path) -> list[dict[str, Any]]:
        """As of `Turn`, also of calls that have not ended."""
        parts = [part for message in self.messages(session, directory) for part in message["parts"]]
        return [part["state"] for part in parts if part["type"] == "tool"]

    def abort(self, session: str, directory: Path) -> None:
        self.call("POST", f"/session/{session}/abort", directory=directory)

    def undo(self, session: str, directory: Path) -> None:
        """The newest message of the user, and what came of it."""
        of_user = [m["info"]["id"] for m in self.messages(session, directory) if m["info"]["role"] == "user"]
        self.call("POST", f"/session/{session}/revert", {"messageID": of_user[-1]}, directory=directory)

    def redo(self, session: str, directory: Path) -> None:
        self.call("POST", f"/session/{session}/unrevert", directory=directory)

    def delete(self, session: str, directory: Path) -> None:
        self.call("DELETE", f"/session/{session}", directory=directory)

    def asked(self, directory: Path) -> list[dict[str, Any]]:
        """Permissions that are waited for."""
        return list(self.call("GET", "/permission", directory=directory))

    def permit(self, request: Mapping[str, Any], reply: str, directory: Path) -> None:
        """`reply` is once, always or reject."""
        self.call("POST", f"/permission/{request['id']}/reply", {"reply": reply}, directory=directory)

    def is_idle(self, session: str, directory: Path) -> bool:
        return session not in self.call("GET", "/session/status", directory=directory)
