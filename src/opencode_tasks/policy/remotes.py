"""Programs that throw away what is no file here: volumes of the engine, things that run elsewhere. Pure."""

from collections.abc import Iterable, Mapping

from opencode_tasks.policy.deleting import Rule
from opencode_tasks.policy.findings import Look
from opencode_tasks.policy.wrappers import Inner

_Words = tuple[str, ...]


def _docker(rest: _Words, look: Look) -> Iterable[Inner]:
    words = set(rest)
    takes_volumes = bool({"-v", "--volumes"} & words) or any(
        w[0] == "-" and w[1:2] != "-" and "v" in w for w in rest if w
    )
    goes = "down" in words or {"compose", "rm"} <= words or {"system", "prune"} <= words
    if (goes and takes_volumes) or ("volume" in words and {"rm", "remove", "prune"} & words):
        look.label("docker-volumes")
        look.found.lost("docker's volumes", " ".join(("docker", *rest)))
    return ()


def _remote(*wanted: str) -> Rule:
    """What deletes something that runs or lies elsewhere."""
    verbs = frozenset(wanted)

    def look_at(rest: _Words, look: Look) -> Iterable[Inner]:
        if verbs & set(rest) and not any(word.startswith("--dry-run") for word in rest):
            look.label("remote-delete")
            look.found.lost("remote", " ".join(rest))
        return ()

    return look_at


RULES: Mapping[str, Rule] = {
    "terraform": _remote("destroy"),
    "tofu": _remote("destroy"),
    "docker": _docker,
    "podman": _docker,
    "docker-compose": lambda rest, look: _docker(("compose", *rest), look),
    "kubectl": _remote("delete"),
    "oc": _remote("delete"),
    "helm": _remote("uninstall", "delete"),
    "aws": _remote("rm", "--delete", "delete-object", "delete-bucket", "delete-stack", "terminate-instances"),
    "gcloud": _remote("delete"),
    "az": _remote("delete"),
    "gh": _remote("delete"),
    "fly": _remote("destroy"),
    "heroku": _remote("pg:reset", "apps:destroy"),
    "gsutil": _remote("rm"),
    "pulumi": _remote("destroy"),
}
