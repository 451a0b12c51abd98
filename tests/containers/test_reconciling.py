"""What is to be done about what is found: one table, without an engine."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opencode_tasks.containers import reconciling
from opencode_tasks.containers.reconciling import Action, Facts, Seen
from opencode_tasks.containers.spec import container_name
from opencode_tasks.task import Base, Container, ContainerState, Status, Task, Workspace
from opencode_tasks.values import replace

ID, OTHER = "fix-it-7k3q9m", "other-000000"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def ago(**how: float) -> str:
    return (NOW - timedelta(**how)).isoformat().replace("+00:00", "Z")


def a_task(status: Status = "running", known: ContainerState = "running", *, quiet_h: float = 0, **fields: Any) -> Task:
    container = Container(known, "c1", container_name(ID), "image", "unix:///x") if known != "none" else Container()
    then = ago(hours=quiet_h)
    made = Task(ID, "t", "task/t", Base(None, "0"), status, Workspace("worktree", "/w"), then, then, 1)
    return replace(made, container=container, status_since=then, **fields)


def seen(state: ContainerState = "running", **fields: Any) -> Seen:
    return Seen(**{"id": "c1", "name": container_name(ID), "state": state, "clone": "me", "task": ID, **fields})


def facts(task: Task | None, *containers: Seen, programs: Mapping[str, int] | None = None, **fields: Any) -> Facts:
    tasks = {task.id: task} if task else {}
    ask = (programs or {}).get
    base = Facts("me", "/me", containers, tasks, NOW, 7200.0, lambda c: ask(c, 0))
    return replace(base, **fields)


def as_told(task: Task, found: Seen | None, how: set[str]) -> Facts:
    return facts(
        task,
        *([found] if found else []),
        programs={"c1": 2} if "programs" in how else {},
        homeless=frozenset({ID} if "homeless" in how else ()),
        idle_s=None if "never" in how else 7200.0,
    )


def verbs(actions: list[Action]) -> list[str]:
    return [f"{a.action} {a.what}" for a in actions]


OF_A_TASK: list[tuple[str, Task, Seen | None, set[str], list[str]]] = [
    ("runs, as it should", a_task(), seen(), set(), []),
    ("paused, as it should be", a_task("paused", "paused"), seen("paused"), set(), []),
    ("never had one", a_task("paused", "none"), None, set(), []),
    ("made and killed before it was recorded", a_task(known="none"), seen(), set(), ["record container"]),
    ("made and killed before it was started", a_task(known="none"), seen("created"), set(), ["start container"]),
    ("paused by hand", a_task(), seen("paused"), set(), ["resume container"]),
    ("stopped by hand, or by a reboot", a_task(), seen("stopped"), set(), ["start container"]),
    ("stopped by us", a_task(known="stopped"), seen("stopped"), set(), []),
    ("removed by hand", a_task(), None, set(), ["start container"]),
    ("removed by hand, and left", a_task("paused", "paused"), None, set(), ["record container"]),
    ("left, and it runs on", a_task("paused"), seen(), set(), ["pause container"]),
    ("left, and stopped by a reboot", a_task("paused", "paused"), seen("stopped"), set(), ["record container"]),
    ("made anew by hand", a_task(), seen(id="c2"), set(), ["record container"]),
    ("closed, and it runs on", a_task("completed"), seen(), set(), ["stop container"]),
    ("closed while it was paused", a_task("cancelled", "paused"), seen("paused"), set(), ["stop container"]),
    ("closed and stopped", a_task("failed", "stopped"), seen("stopped"), set(), []),
    ("closed, and no workspace", a_task("completed", "stopped"), seen("stopped"), {"homeless"}, ["remove container"]),
    ("closed, no workspace, and it runs", a_task("completed"), seen(), {"homeless"}, ["stop container"]),
    ("open, and no workspace", a_task("paused"), seen(), {"homeless"}, ["pause container"]),
    ("open, no workspace and stopped", a_task("running", "stopped"), seen("stopped"), {"homeless"}, []),
    ("idle", a_task(quiet_h=3), seen(), set(), ["stop container"]),
    ("paused for long", a_task("paused", "paused", quiet_h=3), seen("paused"), set(), ["stop container"]),
    ("idle for not so long", a_task(quiet_h=1.9), seen(), set(), []),
    ("idle, and never stopped", a_task(quiet_h=300), seen(), {"never"}, []),
    ("idle, and a server runs in it", a_task(quiet_h=3), seen(), {"programs"}, ["leave container"]),
    ("left running, idle, with a server", a_task("paused", quiet_h=3), seen(), {"programs"}, ["pause container"]),
    ("idle, and stopped by a reboot", a_task(quiet_h=3), seen("stopped"), set(), ["record container"]),
    ("idle, and removed", a_task(quiet_h=3), None, set(), ["record container"]),
]


@pytest.mark.parametrize(("task", "found", "how", "wanted"), [c[1:] for c in OF_A_TASK], ids=[c[0] for c in OF_A_TASK])
def test_of_a_task(task: Task, found: Seen | None, how: set[str], wanted: list[str]) -> None:
    given = as_told(task, found, how)
    assert verbs(reconciling.plan(given)) == wanted
    in_passing = [v for v in wanted if v.startswith(("pause", "stop"))]
    assert verbs(reconciling.cheap(given)) == in_passing


NO_TASKS: list[tuple[str, list[Seen], dict[str, Any], dict[str, bool], list[str]]] = [
    ("stopped", [seen("stopped")], {}, {}, ["remove container"]),
    ("runs, and nothing in it", [seen()], {}, {}, ["remove container"]),
    ("something runs in it", [seen()], {"programs": 1}, {}, ["leave container"]),
    ("something is frozen in it", [seen("paused")], {"programs": 1}, {}, ["leave container"]),
    ("something runs in it, forced", [seen()], {"programs": 1}, {"force": True}, ["remove container"]),
    ("its task cannot be read", [seen()], {"unclear": frozenset({ID})}, {}, ["leave container"]),
    ("its task was deleted", [seen("stopped")], {"deleted": frozenset({ID})}, {}, ["remove container"]),
    ("no id that we give", [seen(task="../../etc")], {}, {"force": True}, []),
    ("of a copy", [seen(path="/copy")], {}, {"force": True, "elsewhere": True}, ["leave container"]),
    ("the clone was moved", [seen(path="/old", is_left_behind=True)], {}, {}, ["remove container"]),
    ("another clone's", [seen(clone="you", path="/you")], {}, {"force": True, "elsewhere": True}, []),
    ("an old one without a path", [seen(clone="you")], {}, {"force": True, "elsewhere": True}, []),
]
GONE = [
    seen("stopped", clone="you", path="/gone", is_left_behind=True),
    seen("running", id="c2", name="sidecar", clone="you", task=""),
    seen("running", id="c3", name="busy", clone="you", path="/gone", is_left_behind=True),
]
NO_TASKS += [
    ("of a clone that is gone", GONE, {"programs": 1}, {}, ["leave container"] * 3),
    (
        "the same, asked for",
        GONE,
        {"programs": 1},
        {"elsewhere": True},
        ["remove container", "leave container", "leave container"],
    ),
    ("the same, forced", GONE, {"programs": 1}, {"elsewhere": True, "force": True}, ["remove container"] * 3),
]


@pytest.mark.parametrize(
    ("found", "fields", "asked", "wanted"), [c[1:] for c in NO_TASKS], ids=[c[0] for c in NO_TASKS]
)
def test_of_no_task(found: list[Seen], fields: dict[str, Any], asked: dict[str, bool], wanted: list[str]) -> None:
    others = {k: v for k, v in fields.items() if k != "programs"}
    given = facts(None, *found, programs={c.id: fields.get("programs", 0) for c in found}, **others)
    assert verbs(reconciling.plan(given, **asked)) == wanted
    assert reconciling.cheap(given) == []


def test_a_second_one_of_the_same_task_goes_and_the_right_one_stays() -> None:
    given = facts(a_task(), seen(), seen("stopped", id="c2", name="old-name"))
    (action,) = reconciling.plan(given)
    assert (action.action, action.id, action.name) == ("remove", "c2", "old-name")


def test_what_goes_with_a_running_one_is_said() -> None:
    (action,) = reconciling.plan(facts(None, seen()))
    assert reconciling.LOST_WITH_IT in action.why
    (action,) = reconciling.plan(facts(None, seen("stopped")))
    assert reconciling.LOST_WITH_IT not in action.why


def test_on_the_disk_only_what_no_task_and_no_container_needs_is_removed() -> None:
    given = facts(
        a_task(),
        seen(),
        seen("stopped", id="c2", name=container_name(OTHER), task=OTHER),
        folders=[ID, OTHER, "gone-000001"],
        marks=[ID, "gone-000002", "unclear-000003"],
        unclear=frozenset({"unclear-000003"}),
        half_made=[".new-half-000004"],
    )
    found = [(a.what, a.name) for a in reconciling.plan(given) if a.what != "container"]
    assert found == [("sockets", "gone-000001"), ("ready mark", "gone-000002"), ("half-made task", ".new-half-000004")]
    assert all(a.deletes for a in reconciling.plan(given))


AFTER: dict[str, ContainerState] = {
    "start": "running",
    "resume": "running",
    "pause": "paused",
    "stop": "stopped",
    "remove": "none",
}


def test_when_it_is_done_there_is_nothing_left_to_do() -> None:
    """The engine does what the plan says; one that is stopped may have to be removed then."""
    for name, begun, there, how, _ in OF_A_TASK:
        task, found = begun, there
        for _ in range(2):
            for action in reconciling.plan(as_told(task, found, how)):
                task, found = done(action, task, found)
        assert [a for a in reconciling.plan(as_told(task, found, how)) if a.action != "leave"] == [], name


def done(action: Action, task: Task, found: Seen | None) -> tuple[Task, Seen | None]:
    state = AFTER.get(action.action, found.state if found else "none")
    if state == "none":
        return replace(task, container=Container()), None
    found = replace(found or seen(), state=state)
    return replace(task, container=Container(state, found.id, found.name, "image", "unix:///x")), found
