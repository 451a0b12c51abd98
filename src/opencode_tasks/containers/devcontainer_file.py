"""Reads the part of `devcontainer.json` that we honour. Pure: text in, a value out.

The reference is containers.dev/implementors/json_reference. What would open the sandbox or run on the host is
refused, what we have no use for is told, and nothing is dropped in silence.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from opencode_tasks import jsonc
from opencode_tasks.containers.devcontainer import (
    CREATE_STAGES,
    START_STAGES,
    VARIABLE,
    Build,
    Command,
    DevContainer,
    Facts,
    mount_parts,
)
from opencode_tasks.containers.spec import is_taken
from opencode_tasks.errors import TaskError

LARGEST_BYTES = 256 * 1024
_MOST = 200


def parse(text_b: bytes, facts: Facts) -> DevContainer:
    """Raises `TaskError` (code `devcontainer`) for what is no such file at all."""
    if len(text_b) > LARGEST_BYTES:
        raise _malformed(facts.path, f"it is larger than {LARGEST_BYTES // 1024} KiB")
    try:
        found = jsonc.loads(text_b.decode("utf-8-sig"))
    except ValueError as e:
        raise _malformed(facts.path, str(e)) from e
    if not isinstance(found, dict):
        raise _malformed(facts.path, "it is no object")
    return _Reader(found, facts).read()


def _malformed(path: str, why: str) -> TaskError:
    return TaskError(
        f"{path} cannot be read: {why}", hint="mend it and commit, then make a task from there", code="devcontainer"
    )


class _Reader:
    def __init__(self, document: Mapping[str, Any], facts: Facts) -> None:
        self.facts = facts
        self.warnings: list[str] = []
        self.refusals: list[str] = []
        self.found: dict[str, Any] = {"path": facts.path}
        given = {key: self._given(key, said) if key in _VARIABLES else said for key, said in document.items()}
        self.document = {key: self._expanded(key, said) if key in _HONOURED else said for key, said in given.items()}

    def read(self) -> DevContainer:
        for key, said in self.document.items():
            handle = _KEYS.get(key)
            if handle is None:
                self.warn(f"{_shown(key)} is not known here and has no effect")
            elif said not in (None, "", [], {}, False):
                handle(self, key, said)
        if "build" in self.found and "image" in self.found:
            self.refuse("it has both image and build")
        commands = self.found.pop("commands", [])
        order = [*CREATE_STAGES, *START_STAGES]
        self.found["commands"] = tuple(sorted(commands, key=lambda c: order.index(c.stage)))
        return DevContainer(**self.found, warnings=tuple(self.warnings), refusals=tuple(dict.fromkeys(self.refusals)))

    def warn(self, sentence: str) -> None:
        if len(self.warnings) < _MOST:
            self.warnings.append(sentence)

    def refuse(self, sentence: str) -> None:
        if len(self.refusals) < _MOST:
            self.refusals.append(sentence)

    def wrong(self, key: str, wanted: str) -> None:
        self.refuse(f"{key} must be {wanted}")

    def _given(self, key: str, said: Any) -> Any:
        """Without the variables that are the host's: a command gets them, if a person approved that."""
        if not isinstance(said, dict):
            return said
        kept = {}
        for name, one in said.items():
            found = VARIABLE.fullmatch(one) if isinstance(one, str) else None
            if found is None or found[1] not in ("localEnv", "env"):
                kept[name] = one
            elif (name, found[2]) not in self.facts.approved:
                here = _shown(found[2] or "")
                self.refuse(
                    f"{key}.{_shown(name)} reads the variable {here} of this machine. If commands may have it: "
                    f'{_shown(name)} = "env://{here}" in [environment] of .opencode/tasks.toml, then '
                    f"opencode-tasks secrets approve"
                )
        return kept

    def _expanded(self, key: str, said: Any) -> Any:
        if isinstance(said, str):
            return VARIABLE.sub(lambda found: self._variable(key, found), said)
        if isinstance(said, list):
            return [self._expanded(key, one) for one in said]
        if isinstance(said, dict):
            return {name: self._expanded(key, one) for name, one in said.items()}
        return said

    def _variable(self, key: str, found: re.Match[str]) -> str:
        kind, name = found[1], found[2]
        if kind in ("localEnv", "env"):
            self.refuse(
                f"{key} reads the variable {_shown(name or '')} of this machine, other than as the whole of a variable"
            )
            return ""
        if kind == "containerEnv":
            if key != "remoteEnv":
                self.warn(f"{found[0]} is only known in remoteEnv; in {key} it stays as it is")
            return found[0]
        here = self.facts.workspace
        return self.facts.id if kind == "devcontainerId" else posixpath.basename(here) if "Base" in kind else here

    def image(self, key: str, said: Any) -> None:
        if not isinstance(said, str) or not _IMAGE.fullmatch(said):
            self.wrong(key, "an image's name")
        else:
            self.found["image"] = said

    def build(self, key: str, said: Any) -> None:
        if not isinstance(said, dict):
            self.wrong(key, "an object")
            return
        if said.get("options"):
            self.refuse("build.options gives the engine options of its own")
        for name in said.keys() - {"dockerfile", "context", "args", "target", "options"}:
            self.warn(f"build.{_shown(name)} has no effect")
        dockerfile = self._inside("build.dockerfile", said.get("dockerfile", "Dockerfile"))
        context = self._inside("build.context", said.get("context", "."))
        target = said.get("target", "")
        args = self._pairs("build.args", said.get("args", {}))
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            self.wrong("build.target", "the name of a stage")
        elif dockerfile is not None and context is not None:
            self.found["build"] = Build(dockerfile, context, args, target)

    def _inside(self, key: str, said: Any) -> str | None:
        """As a path from the repository's root."""
        if not isinstance(said, str) or "\0" in said or not said:
            self.wrong(key, "a path")
            return None
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.facts.path), said))
        if path.startswith(("/", "../")) or path == "..":
            self.refuse(f"{key} {_shown(said)} leads out of the repository")
            return None
        return "" if path == "." else path

    def old_build(self, key: str, _: Any) -> None:
        self.refuse(f"{key} is an older form: write build.dockerfile and build.context")

    def environment(self, key: str, said: Any) -> None:
        self.found["environment"] = self._pairs(key, said)

    def remote(self, key: str, said: Any) -> None:
        without = {name for name, one in said.items() if one is None} if isinstance(said, dict) else set()
        pairs = self._pairs(key, {n: o for n, o in said.items() if n not in without} if without else said)
        self.found["remote"] = {**pairs, **dict.fromkeys(sorted(n for n in without if _NAME.fullmatch(n)))}

    def _pairs(self, key: str, said: Any) -> dict[str, str]:
        if not isinstance(said, dict) or len(said) > _MOST:
            self.wrong(key, f"an object of at most {_MOST} names")
            return {}
        kept = {}
        for name, one in said.items():
            if not _NAME.fullmatch(name) or not isinstance(one, str) or "\0" in one:
                self.wrong(f"{key}.{_shown(name)}", "a name and a string")
            else:
                kept[name] = one
        for name in sorted(kept.keys() & _OURS) if key != "build.args" else ():
            self.warn(f"{key}.{name} is ours to set")
        return kept

    def mounts(self, key: str, said: Any) -> None:
        if not isinstance(said, list) or len(said) > _MOST:
            self.wrong(key, f"a list of at most {_MOST} mounts")
            return
        volumes: dict[str, str] = {}
        for one in said:
            parts = mount_parts(one)
            source, target, kind = (str(parts.get(name, "")) for name in ("source", "target", "type"))
            for name in parts.keys() - {"source", "target", "type"}:
                self.warn(f"{_shown(str(name))} of the mount of {_shown(source)} has no effect")
            if kind == "volume" or (kind == "" and _VOLUME.fullmatch(source)):
                self._volume(source, target, volumes)
            elif kind == "tmpfs":
                self.warn(f"the tmpfs at {_shown(target)} is not made: /tmp and home are in memory already")
            else:
                self.refuse(f"the mount of {_shown(source or repr(one))} brings in what is the host's")
        self.found["volumes"] = tuple((source, target) for target, source in volumes.items())

    def _volume(self, source: str, target: str, volumes: dict[str, str]) -> None:
        path, here = posixpath.normpath(target), self.facts.workspace
        if not _VOLUME.fullmatch(source):
            self.refuse(f"the volume {_shown(source)} has no name that we could give it")
        elif not target.startswith("/") or "\0" in target or path.startswith("//"):
            self.refuse(f"the volume {source} has no absolute path: {_shown(target)}")
        elif _is_within(path, here):
            self.warn(f"the volume {source} at {_shown(path)} is not made: the workspace's files stay in the workspace")
        elif is_taken(path) or _is_within(path, "/run") or _is_within(here, path):
            self.refuse(f"the volume {source} would cover the container's own {_shown(path)}")
        elif path in volumes:
            self.refuse(f"two volumes have the path {_shown(path)}")
        else:
            volumes[path] = source

    def command(self, key: str, said: Any) -> None:
        several = said.items() if isinstance(said, dict) else [("", said)]
        made = []
        for name, one in several:
            argv = ("/bin/sh", "-c", one) if isinstance(one, str) else tuple(one) if isinstance(one, list) else ()
            if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
                self.wrong(f"{key}.{_shown(name)}" if name else key, "a string, or a list of strings")
            else:
                made.append(Command(key, argv))
        if key == "postAttachCommand" and made:
            self.warn("postAttachCommand runs at each start of the container")
        self.found.setdefault("commands", []).extend(made[:_MOST])

    def initialize(self, key: str, _: Any) -> None:
        self.warn(f"{key} never runs: it would run on this machine, outside the container")

    def user(self, key: str, said: Any) -> None:
        self.warn(f"{key} {_shown(str(said))} has no effect: everything runs with your own uid and gid")

    def folder(self, key: str, said: Any) -> None:
        if said != self.facts.workspace:
            self.warn(f"{key} has no effect: the workspace is at the same path as on the host")

    def host_requirements(self, key: str, said: Any) -> None:
        pairs = said.items() if isinstance(said, dict) else [("", said)]
        asked = ", ".join(f"{_shown(name)} {_shown(str(one))}".strip() for name, one in pairs)
        self.warn(f"{key} asks for {_shown(asked)}; the limits are those of container.limits, which only you raise")

    def opens(self, key: str, _: Any) -> None:
        self.refuse(f"{key} would open the sandbox")

    def compose(self, key: str, _: Any) -> None:
        self.refuse(f"{key}: a compose file starts containers of its own, outside the sandbox; use image or build")

    def without_effect(self, key: str, _: Any) -> None:
        self.warn(f"{key} has no effect here")


_Handle = Callable[[_Reader, str, Any], None]
_KEYS: dict[str, _Handle] = {
    "image": _Reader.image,
    "build": _Reader.build,
    "dockerFile": _Reader.old_build,
    "context": _Reader.old_build,
    "containerEnv": _Reader.environment,
    "remoteEnv": _Reader.remote,
    "mounts": _Reader.mounts,
    "containerUser": _Reader.user,
    "remoteUser": _Reader.user,
    "workspaceFolder": _Reader.folder,
    "workspaceMount": _Reader.without_effect,
    "hostRequirements": _Reader.host_requirements,
    "initializeCommand": _Reader.initialize,
    **dict.fromkeys((*CREATE_STAGES, *START_STAGES), _Reader.command),
    **dict.fromkeys(("privileged", "capAdd", "securityOpt", "runArgs", "appPort"), _Reader.opens),
    **dict.fromkeys(("dockerComposeFile", "service", "runServices"), _Reader.compose),
}
_KEYS.update(
    dict.fromkeys(
        (
            *("features", "overrideFeatureInstallOrder", "forwardPorts", "portsAttributes", "otherPortsAttributes"),
            *("customizations", "updateRemoteUserUID", "userEnvProbe", "overrideCommand", "shutdownAction"),
            *("waitFor", "secrets", "extensions", "settings"),
        ),
        _Reader.without_effect,
    )
)
# `init`: every container of ours has one.
_KEYS.update(dict.fromkeys(("name", "$schema", "init"), lambda *_: None))
_VARIABLES = frozenset(("containerEnv", "remoteEnv"))
_HONOURED = frozenset(("image", "build", "containerEnv", "remoteEnv", "mounts", *CREATE_STAGES, *START_STAGES))

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/@-]{0,499}")
_TARGET = re.compile(r"[a-zA-Z0-9_.-]{0,100}")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}")
_OURS = frozenset(("HOME", "USER", "LOGNAME", "GIT_OPTIONAL_LOCKS", "OPENCODE_TASK_ID", "OPENCODE_TASK_BRANCH"))


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
