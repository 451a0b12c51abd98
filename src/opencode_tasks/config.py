"""Settings: flag > `OPENCODE_TASKS_<SECTION>_<KEY>` > `.opencode/tasks.toml` > default.

Read once into a frozen value and passed on; nothing reads the environment at import.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opencode_tasks import config_checks
from opencode_tasks.config_sections import (
    NOTHING,
    BranchConfig,
    CheckpointConfig,
    CleanupConfig,
    Config,
    ContainerConfig,
    GitConfig,
    HooksConfig,
    LimitsConfig,
    NetworkConfig,
    OpencodeConfig,
    PlanConfig,
    WorkspaceConfig,
)
from opencode_tasks.errors import TaskError

if TYPE_CHECKING:
    from opencode_tasks.references import Table

FILE = Path(".opencode", "tasks.toml")
_ENV_PREFIX = "OPENCODE_TASKS_"

_SECTIONS: dict[str, type[Any]] = {
    "branch": BranchConfig,
    "git": GitConfig,
    "cleanup": CleanupConfig,
    "checkpoint": CheckpointConfig,
    "opencode": OpencodeConfig,
    "workspace": WorkspaceConfig,
    "container": ContainerConfig,
    "hooks": HooksConfig,
    "limits": LimitsConfig,
    "network": NetworkConfig,
    "plan": PlanConfig,
}

# Of any names: see `references`.
_TABLES: "tuple[Table, ...]" = ("environment", "secrets")


Through = Callable[[Path, Callable[[], dict[str, Any]]], dict[str, Any]]


def load(top: Path, environ: Mapping[str, str] | None = None, *, through: Through | None = None) -> Config:
    """The settings for the checkout at `top`. `through`: reads the file at a path, or knows what reading it gave.

    Raises `TaskError` (code `config`) that names the file, the key and the nearest known key.
    """
    path = top / FILE
    found = _read(path) if through is None else through(path, lambda: _read(path))
    tables: dict[str, Any] = {table: _free_form(top, table, found.pop(table, {})) for table in _TABLES}
    for section, values in found.items():
        if section in _SECTIONS and not isinstance(values, dict):
            raise TaskError(f"{top / FILE}: {section} is not a table", hint=f"write it as [{section}]", code="config")
    for section, keys in _from_environ(os.environ if environ is None else environ).items():
        found.setdefault(section, {}).update(keys)
    made: dict[str, Any] = {}
    for section, values in found.items():
        kind = _SECTIONS.get(section)
        if kind is None:
            raise _unknown(section, {**_SECTIONS, **tables}, top)
        known = {name: type(default) for name, default in vars(kind()).items()}
        for key, said in values.items():
            if key not in known:
                raise _unknown(f"{section}.{key}", {f"{section}.{k}": 0 for k in known}, top)
            if known[key] is tuple and isinstance(said, list) and all(isinstance(s, str) for s in said):
                values[key] = tuple(said)
            elif not isinstance(said, known[key]):
                wanted = _KINDS[known[key]]
                raise TaskError(
                    f"{top / FILE}: {section}.{key} must be {wanted}",
                    hint=f"the default is {json.dumps(getattr(kind(), key))}",
                    code="config",
                )
        made[section] = kind(**values)
    made_of = Config(**made, **tables)
    config_checks.check(made_of, top / FILE)
    return made_of


def _free_form(top: Path, table: "Table", said: object) -> Mapping[str, str]:
    if said == {}:
        return NOTHING
    from opencode_tasks import references

    if not isinstance(said, dict):
        raise TaskError(f"{top / FILE}: {table} is not a table", hint=f"write it as [{table}]", code="config")
    faults = (references.fault(table, name, one) for name, one in said.items())
    for what, hint in filter(None, faults):
        raise TaskError(f"{top / FILE}: {table}: {what}", hint=hint, code="config")
    if len(said) > references.MOST:
        raise TaskError(
            f"{top / FILE}: {table} has {len(said)} entries",
            hint=f"at most {references.MOST}; a file can hold many values",
            code="config",
        )
    return MappingProxyType(said)


_KINDS = {bool: "true or false", str: "a string", tuple: "a list of strings"}


def defaults() -> dict[str, dict[str, Any]]:
    """Every key with its default, as `init` writes it."""
    return {s: dict(vars(kind())) for s, kind in _SECTIONS.items()}


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb", opener=_not_through_a_link) as f:
            return tomllib.load(f)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise TaskError(
            f"{path} cannot be read: {e.strerror}", hint="make it an ordinary file that you may read", code="config"
        ) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TaskError(f"{path} is not valid TOML: {e}", hint="mend the line named above", code="config") from e


def _not_through_a_link(path: str, flags: int) -> int:
    # The file lies in a directory that other tools write to.
    return os.open(path, flags | os.O_NOFOLLOW)


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for section, kind in _SECTIONS.items():
        for key, default in vars(kind()).items():
            name = f"{_ENV_PREFIX}{section}_{key}".upper()
            said = environ.get(name)
            if said is not None:
                found.setdefault(section, {})[key] = _converted(name, said, default)
    return found


def _converted(name: str, said: str, default: object) -> object:
    if isinstance(default, tuple):
        return [part.strip() for part in said.split(",") if part.strip()]
    return _truth(name, said) if isinstance(default, bool) else said


def _truth(name: str, value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value == "":
        return False
    if value.lower() not in words:
        raise TaskError(
            f"{name}={value!r} is neither true nor false", hint=f"use one of {', '.join(words)}", code="config"
        )
    return words[value.lower()]


def _unknown(key: str, known: Mapping[str, object], top: Path) -> TaskError:
    from difflib import get_close_matches

    near = get_close_matches(key, known, n=1, cutoff=0.0)
    return TaskError(f"{top / FILE}: unknown key {key}", hint=f"the nearest known key is {near[0]}", code="config")
