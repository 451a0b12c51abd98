"""The limit sets of `templates/limits.yaml`."""

from typing import Any

import yaml

from opencode_tasks import assets
from opencode_tasks.containers.spec import Limits
from opencode_tasks.errors import TaskError


def load(name: str) -> Limits:
    """Raises `TaskError` (code `config`) that lists the sets there are."""
    path = assets.root() / "templates" / "limits.yaml"
    sets: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    if name not in sets:
        raise TaskError(f"container.limits: there is no set {name!r}", hint="one of: " + ", ".join(sets), code="config")
    return Limits(**sets[name])
