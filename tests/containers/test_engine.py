"""Engines that are down, elsewhere, or refuse: real sockets, the real engine, and what it really says."""

import gc
import hashlib
import json
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from opencode_tasks.containers import refusals, survey
from opencode_tasks.containers.engine import Engine
from opencode_tasks.containers.spec import ContainerSpec, Limits, Mount, Place, build
from opencode_tasks.errors import NoEngineError, TaskError
from opencode_tasks.task import Base, Task, Workspace
from opencode_tasks.values import replace
from tests.conftest import Repo

ID = "engine-test-000000"


@pytest.fixture(autouse=True)
def _unclosed_by_docker() -> Iterator[None]:
    """docker-py leaves a socket open that it could not connect, and the engine's when a client is dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def error_of(call: Callable[[], object]) -> TaskError:
    with pytest.raises(TaskError) as e:
        call()
    assert e.value.hint
    return e.value


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    absent = error_of(Engine)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and never listens: what an engine leaves that was killed
        dead = error_of(Engine)
    path.unlink()
    path.write_text("not a socket")
    wrong = error_of(Engine)
    for e in (absent, dead, wrong):
        assert (e.code, type(e)) == ("no_engine", NoEngineError)
        assert str(path) in e.message


def test_it_goes_away_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        assert error_of(Engine).code == "no_engine"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_socket_that_we_may_not_use(tmp_path: Path) -> None:
    """Root may use every socket: so as somebody else, where the tests are root's."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = "no error"
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                os.environ["DOCKER_HOST"] = f"unix://{path}"
                Engine()
            except TaskError as e:
                said = f"{e.code}\n{e.message}\n{e.hint}"
            finally:
                os.write(writer, said.encode())
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as f:
            code, message, hint = f.read().split("\n")
        os.waitpid(pid, 0)
    assert code == "no_engine"
    assert "no permission" in message
    assert "usermod" in hint


@pytest.fixture
def context(tmp_path: Path, engine_host: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The CLI's own configuration, with a context `there` of the real engine. No DOCKER_HOST."""
    folder = tmp_path / "docker"
    meta = folder / "contexts" / "meta" / hashlib.sha256(b"there").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"docker": {"Host": engine_host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "there", "Metadata": {}, "Endpoints": endpoint}))
    (folder / "config.json").write_text("{}")
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def test_docker_context_of_the_environment(context: Path, engine_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "there")
    engine = Engine()
    assert engine.address == engine_host
    assert engine.info().version


def test_docker_context_use(context: Path, engine_host: str) -> None:
    (context / "config.json").write_text(json.dumps({"currentContext": "there"}))
    engine = Engine()
    assert engine.address == engine_host
    assert engine.info().version


def test_a_context_that_is_not_there(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    e = error_of(Engine)
    assert e.code == "no_engine"
    assert "nowhere" in e.message


def test_commands_through_a_context(live_repo: Repo, context: Path) -> None:
    env = {"DOCKER_CONTEXT": "there", "DOCKER_CONFIG": str(context), "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"}
    repo = Repo(live_repo.top, env)
    repo.git("checkout", "--quiet", "-b", "task/one")
    assert repo.tasks("exec", "--", "echo", "there").out == "there\n"
    repo.git("checkout", "--quiet", "main")
    assert repo.tasks("list-tasks", "--json").json["tasks"][0]["container"]["state"] == "paused"


@pytest.fixture
def tcp_host(engine_host: str) -> Iterator[str]:
    """The real engine, behind a port of the loopback."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece_b := source.recv(65536):
                sink.sendall(piece_b)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def relay(outer: socket.socket) -> None:
        with outer, socket.socket(socket.AF_UNIX) as inner:
            inner.connect(engine_host.removeprefix("unix://"))
            back = threading.Thread(target=pump, args=(inner, outer), daemon=True)
            back.start()
            pump(outer, inner)
            back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_an_engine_on_a_port(live_repo: Repo, tcp_host: str) -> None:
    repo = Repo(live_repo.top, {"DOCKER_HOST": tcp_host, "OPENCODE_TASKS_CONTAINER_AUTOSTART": "no"})
    repo.git("checkout", "--quiet", "-b", "task/one")
    assert repo.tasks("exec", "--", "echo", "there").out == "there\n"
    repo.git("checkout", "--quiet", "main")
    repo.tasks("reconcile")  # a bare call cannot reach it: through docker-py, in the background or here
    assert repo.tasks("list-tasks", "--json").json["tasks"][0]["container"]["state"] == "paused"


def test_of_an_engine_on_another_machine_no_clone_is_called_gone(
    client: docker.DockerClient, tcp_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = client.images.list()[0]
    labels = {"opencode-tasks.clone": "0badf00d", "opencode-tasks.path": "/nowhere/.git"}
    made = client.containers.create(image, ["true"], labels=labels)
    try:
        here = {c.id: c.is_left_behind for c in survey.listed(Engine(), "0badf00d")}
        monkeypatch.setenv("DOCKER_HOST", tcp_host)
        there = {c.id: c.is_left_behind for c in survey.listed(Engine(), "0badf00d")}
    finally:
        made.remove(force=True)
    assert (here, there) == ({made.id: True}, {made.id: False})


def spec_of(image: str, path: str) -> ContainerSpec:
    task = Task(ID, "t", "task/t", Base(None, "0"), "running", Workspace("in-place", "/srv/x"), "", "", 1)
    place = Place("0badf00d", "r", os.getuid(), os.getgid(), "me", (), ())
    spec = build(task, image, Limits("64m", "64m", 0.8, 1, 64, "16m", "16m", "1m"), place)
    return replace(spec, mounts=(Mount(path, read_only=False),), workspace=path)


def brought_up(spec: ContainerSpec) -> TaskError:
    return error_of(lambda: Engine().ensure_running(lambda: spec, when_unused=lambda _: False))


def test_an_engine_that_does_not_see_the_workspace(client: docker.DockerClient) -> None:
    image = str(client.images.list()[0].tags[0])
    e = brought_up(spec_of(image, "/nowhere/that/is"))
    assert e.code == "workspace"
    assert "/nowhere/that/is" in e.message


def test_an_image_that_is_not_there(tmp_path: Path, engine_host: str) -> None:
    assert brought_up(spec_of("localhost/no-such-image:1", str(tmp_path))).code == "image_missing"


# As Docker 20.10 and podman 4.3 have worded them.
WORDS = [
    (500, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "disk_full"),
    (409, 'Conflict. The container name "/x" is already in use', "conflict"),
    (400, 'invalid mount config for type "bind": bind source path does not exist: /w', "workspace"),
    (500, "statfs /w: no such file or directory", "workspace"),
    (
        500,
        "container create: container-init binary not found on the host",
        "engine_refused",
    ),
    (500, "anything else", "engine_refused"),
]


@pytest.mark.parametrize(("status", "why", "code"), WORDS)
def test_words(status: int, why: str, code: str) -> None:
    e = refusals.error("Doing it", status, why)
    assert e.code == code
    assert e.message.startswith("Doing it")


def test_a_tmpfs_without_an_owner_is_everybodys() -> None:
    assert refusals.is_about_tmpfs_owner('container create: unknown mount option "uid=0": invalid mount option')
    given = "rw,nosuid,nodev,exec,mode=700,size=1g,uid=1000,gid=1000"
    assert refusals.without_owner(given) == "rw,nosuid,nodev,exec,size=1g,mode=1777"
