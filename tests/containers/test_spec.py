import json
from typing import Any

import pytest

from opencode_tasks.containers import spec
from opencode_tasks.containers.spec import ContainerSpec, Limits, Mount, Place, build, host_config
from opencode_tasks.errors import TaskError
from opencode_tasks.task import Base, Task, Workspace
from opencode_tasks.values import replace

_LIMITS = Limits("4g", "8g", 0.8, 2, 1024, "1g", "512m", "1g")
_PLACE = Place("c0ffee", "repo-hash", 1000, 1001, "ann", ["/src/repo/.opencode"], [])


def _task(path: str = "/src/repo") -> Task:
    return Task(
        id="fix-parser-7k3q9m",
        title="Fix parser",
        branch="task/fix-parser",
        base=Base("main", "a" * 40),
        status="running",
        workspace=Workspace("in-place", path),
        created_at="2026-01-01T00:00:00.000Z",
        updated_at="2026-01-01T00:00:00.000Z",
        rev=1,
    )


def _build(
    task: Task | None = None, image: str = "base:1", limits: Limits = _LIMITS, place: Place = _PLACE
) -> ContainerSpec:
    return build(task or _task(), image, limits, place)


_VARIED = pytest.mark.parametrize(
    "made",
    [
        _build(),
        _build(place=replace(_PLACE, uid=0, gid=0, login="root")),
        _build(limits=Limits("1g", "1g", 0.8, 0.5, 16, "1m", "1m", "1m")),
        _build(image="anything/at-all:latest"),
        _build(_task("/home/ann/src with space/repo")),
    ],
    ids=["default", "root", "small", "foreign image", "other path"],
)


@_VARIED
def test_hardening_is_always_there(made: ContainerSpec) -> None:
    host = host_config(made)
    assert host["cap_drop"] == ["ALL"]
    assert host["security_opt"] == ["no-new-privileges:true"]
    assert host["network_mode"] == "none"
    assert host["read_only"] is True
    assert host["init"] is True
    assert host["ipc_mode"] == "private"
    assert host["pids_limit"] == made.limits.pids
    assert host["mem_limit"] == host["memswap_limit"] == made.limits.memory
    assert host["nano_cpus"] == made.limits.cpus * 1_000_000_000
    for options in host["tmpfs"].values():
        assert "nosuid" in options
        assert "nodev" in options
        assert "size=" in options


@_VARIED
def test_what_would_open_the_container_is_never_there(made: ContainerSpec) -> None:
    host = host_config(made)
    opening = {
        *("privileged", "cap_add", "devices", "device_requests", "device_cgroup_rules", "pid_mode", "userns_mode"),
        *("uts_mode", "cgroupns", "group_add", "ports", "publish_all_ports", "volumes_from", "sysctls", "links"),
    }
    assert not opening & set(host)
    assert "host" not in [host["network_mode"], host["ipc_mode"]]
    assert "docker.sock" not in json.dumps([host, [m.path for m in made.mounts]])
    assert not any("unconfined" in option for option in host["security_opt"])


@_VARIED
def test_only_the_workspace_can_be_written(made: ContainerSpec) -> None:
    assert [m.path for m in made.mounts if not m.read_only] == [made.workspace]


def test_with_a_supervisor_its_socket_too() -> None:
    place = replace(_PLACE, sockets="/tmp/sockets/one", supervisor="print()", forwarder="forward()")
    made = _build(place=place)
    assert [(m.source or m.path, m.path) for m in made.mounts if not m.read_only] == [
        (made.workspace, made.workspace),
        ("/tmp/sockets/one", "/run/opencode-tasks"),
    ]
    assert made.command[-4:-1] == ("forward()", "print()", "/run/opencode-tasks/supervisor.sock")
    assert json.loads(made.command[-1]) == {"soft": 0.8, "disk": made.workspace, "disk_free": 1 << 30}


def test_with_a_way_to_its_proxy() -> None:
    made = _build(place=replace(_PLACE, sockets="/tmp/sockets/one", egress="/tmp/egress/one"))
    assert Mount("/run/opencode-egress", read_only=True, source="/tmp/egress/one") in made.mounts
    assert made.environment["https_proxy"] == made.environment["HTTP_PROXY"] == "http://127.0.0.1:3128"
    assert made.environment["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert host_config(made)["network_mode"] == "none"
    assert "https_proxy" not in _build().environment


def test_mounts_in_the_order_in_which_they_cover_each_other() -> None:
    git = (Mount("/src/repo/.git", read_only=False, source="/own/git"), Mount("/pool", read_only=True))
    place = replace(_PLACE, protected=["/src/repo/.envrc", "/src/repo/.opencode"], git=git)
    assert _build(place=place).mounts == (
        Mount("/src/repo", read_only=False),
        *git,
        Mount("/src/repo/.envrc", read_only=True),
        Mount("/src/repo/.opencode", read_only=True),
    )


def test_the_invoking_user_inside_and_on_the_labels() -> None:
    made = _build()
    assert made.user == "1000:1001"
    assert (made.environment["USER"], made.environment["HOME"]) == ("ann", "/home/agent")
    assert made.environment["OPENCODE_TASK_ID"] == "fix-parser-7k3q9m"
    assert made.name == "opencode-task-fix-parser-7k3q9m"
    assert made.labels == {
        "opencode-tasks.schema": "1",
        "opencode-tasks.task": "fix-parser-7k3q9m",
        "opencode-tasks.clone": "c0ffee",
        "opencode-tasks.repository": "repo-hash",
        "opencode-tasks.owner": "ann",
        "opencode-tasks.path": "",
    }
    assert all("uid=1000,gid=1001" in made.tmpfs[where] for where in ("/run", "/home/agent"))


_OTHERWISE: dict[str, dict[str, Any]] = {
    "image": {"image": "base:2"},
    "workspace": {"task": _task("/src/elsewhere")},
    "id": {"task": replace(_task(), id="fix-parser-000000")},
    "branch": {"task": replace(_task(), branch="task/renamed")},
    "uid": {"place": replace(_PLACE, uid=1)},
    "gid": {"place": replace(_PLACE, gid=1)},
    "login": {"place": replace(_PLACE, login="bob")},
    "clone": {"place": replace(_PLACE, clone="other")},
    "repository": {"place": replace(_PLACE, repository="other")},
    "protected": {"place": replace(_PLACE, protected=["/src/repo/.envrc", "/src/repo/.opencode"])},
    "unprotected": {"place": replace(_PLACE, protected=[])},
    "git": {"place": replace(_PLACE, git=[Mount("/src/repo/.git", read_only=False, source="/own/git")])},
    "sockets": {"place": replace(_PLACE, sockets="/tmp/sockets/one")},
    "supervisor": {"place": replace(_PLACE, sockets="/tmp/sockets/one", supervisor="print()")},
    "egress": {"place": replace(_PLACE, egress="/tmp/egress/one")},
    "forwarder": {"place": replace(_PLACE, sockets="/tmp/sockets/one", forwarder="forward()")},
    "memory": {"limits": replace(_LIMITS, memory="2g")},
    "cpus": {"limits": replace(_LIMITS, cpus=1)},
    "pids": {"limits": replace(_LIMITS, pids=1)},
    "tmp": {"limits": replace(_LIMITS, tmp="2g")},
    "home": {"limits": replace(_LIMITS, home="1g")},
}


@pytest.mark.parametrize("change", list(_OTHERWISE))
def test_the_digest_changes_with_what_is_decided(change: str) -> None:
    assert _build(**_OTHERWISE[change]).digest != _build().digest


def test_the_digest_does_not_change_with_what_is_not_decided() -> None:
    later = replace(_task(), title="Other", status="paused", rev=9, updated_at="2027-01-01T00:00:00.000Z")
    assert _build(later).digest == _build().digest


def test_the_digest_changes_when_a_later_version_isolates_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    before, isolation = _build().digest, host_config(_build())
    monkeypatch.setattr(spec, "host_config", lambda _: {**isolation, "runtime": "runsc"})
    assert _build().digest != before


def test_a_path_that_is_not_utf8_has_a_digest() -> None:
    assert len(_build(_task("/src/caf\udce9")).digest) == 64


_SYSTEM = [
    *(
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/proc",
        "/run",
        "/sbin",
        "/sys",
        "/tmp",
        "/usr",
    ),
    *("/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/var", "/var/run", "/home/agent"),
    *("/dev/shm", "/dev/shm/repo", "/proc/self/cwd", "/sys/fs/cgroup", "/etc/"),
]


@pytest.mark.parametrize("path", _SYSTEM)
def test_a_workspace_that_would_cover_the_containers_own_is_refused(path: str) -> None:
    with pytest.raises(TaskError) as refused:
        _build(_task(path))
    assert refused.value.code == "workspace"
    assert path in refused.value.message
    assert "directory of its own" in refused.value.hint


@pytest.mark.parametrize(
    "path",
    [
        "/src",
        "/opt/x",
        "/home/ann",
        "/home/agent/repo",
        "/tmp/x",
        "/root/x",
        "/var/lib/x",
        "/usr/src/x",
        "/developer",
        "/etc-x",
    ],
)
def test_other_places_are_fine(path: str) -> None:
    assert _build(_task(path)).workspace == path
