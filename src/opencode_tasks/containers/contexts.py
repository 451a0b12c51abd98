"""Which engine is meant: DOCKER_HOST, else the Docker CLI's current context."""

import os

from docker.context import ContextAPI
from docker.errors import DockerException

from opencode_tasks.errors import NoEngineError


def address() -> str:
    host = os.environ.get("DOCKER_HOST")
    if host:
        return host
    try:
        found = ContextAPI.kwargs_from_context(environment=os.environ).get("base_url")
    except DockerException:
        found = None
    return str(found or "unix:///var/run/docker.sock")


def require() -> None:
    """Raises `NoEngineError` for a context that is not there: docker-py would take the default engine for it."""
    name = os.environ.get("DOCKER_CONTEXT")
    if not name or os.environ.get("DOCKER_HOST"):
        return
    try:
        found = ContextAPI.get_context(name)
    except DockerException:
        found = None
    if found is None:
        raise NoEngineError(f"There is no Docker context {name} (DOCKER_CONTEXT)", hint="docker context ls")
