"""What can be set, and the defaults: frozen values, a class for each section of the settings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from opencode_tasks.values import value

if TYPE_CHECKING:  # few settings have any
    from opencode_tasks.references import Reference
    from opencode_tasks.task import Mode

NOTHING: Mapping[str, str] = MappingProxyType({})
OBEYED = (".opencode", ".envrc", ".vscode", ".mcp.json", "opencode.json", "opencode.jsonc")
"""Of a workspace: what they say, programs do on the host with the user's rights."""


@value
class BranchConfig:
    """`prefix`: a new branch that begins with it becomes a task. `pattern`: a regular expression that the whole name
    of a branch has to match to be committed on; empty: any. `protected`: branches that are not committed on.
    """

    prefix: str = "task/"
    pattern: str = ""
    protected: tuple[str, ...] = ()


@value
class GitConfig:
    """`overlaps`: a commit says which other open tasks changed the same files. `test`: a shell command that has to
    succeed on what a task's merge would make of the base; empty: nothing is tested. `largest`: the largest object that
    commits of a container may have.
    """

    overlaps: bool = True
    test: str = ""
    largest: str = "100m"


@value
class CleanupConfig:
    """`grace`: how long what `cleanup-task` removed can be brought back."""

    grace: str = "14d"


@value
class CheckpointConfig:
    """`automatic`: before which of the commands of a task a checkpoint is taken: `commands` (all that may change
    something), `risky` (those that are known to destroy) or `off`. `ignored`: patterns of ignored files that are kept,
    too. `budget`: how much disk the checkpoints of a project may take before the oldest go. `background`: they are
    packed and thinned out by themselves, and one is taken after each commit. `layer`: the most that is kept of a
    container's own files; `layer_automatic`: the most of which that is done without being asked, or `off`.
    """

    automatic: str = "commands"
    ignored: tuple[str, ...] = ()
    budget: str = "2g"
    background: bool = True
    layer: str = "256m"
    layer_automatic: str = "32m"


@value
class WorkspaceConfig:
    """`worktrees`: where a task's own worktree goes, relative to the main checkout.

    `submodules`: those that are not there yet are checked out from this disk.
    """

    worktrees: str = "../{repository}.worktrees/{id}"
    submodules: bool = True


@value
class ContainerConfig:
    """`image`: empty is our base image. `autostart`: start it in the background at checkout.

    `limits`: name of a set in `templates/limits.yaml`. `protected`: what else of the workspace is read-only
    inside, relative to its root. `idle_stop`: how long nothing may have happened in it before it is stopped.
    `devcontainer`: the base commit's `devcontainer.json` says what the container is. `caches`: names of
    `templates/caches.yaml`; `cache_scope`: whose they are, `task` or `project`.
    """

    image: str = ""
    autostart: bool = True
    limits: str = "default"
    protected: tuple[str, ...] = ()
    idle_stop: str = "2h"
    devcontainer: bool = False
    caches: tuple[str, ...] = ()
    cache_scope: str = "task"


@value
class HooksConfig:
    """`without`: git hooks that `init` does not install."""

    without: tuple[str, ...] = ()


@value
class LimitsConfig:
    """Instead of what the set says: sizes like `4g`, numbers as text; empty is the set's."""

    memory: str = ""
    memory_max: str = ""
    soft: str = ""
    cpus: str = ""
    pids: str = ""
    tmp: str = ""
    home: str = ""
    disk_free: str = ""


@value
class NetworkConfig:
    """`allow`: hosts and presets that every task may reach. `private`: networks that a name may lead to although they
    are not public. `through`: the engine's network that the proxy is in.
    """

    allow: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    through: str = "bridge"


@value
class PlanConfig:
    """`match_words`: a commit checks the step of `plan.md` that its subject has all words of."""

    match_words: bool = True


@value
class OpencodeConfig:
    """`mode`: whether another OpenCode may work on the same task meanwhile (`collaborative`) or not (`exclusive`).
    `memory_tokens`: how much of each request the task's memory may take.
    """

    mode: "Mode" = "exclusive"
    memory_tokens: str = "1500"


@value
class Config:
    branch: BranchConfig = BranchConfig()
    git: GitConfig = GitConfig()
    cleanup: CleanupConfig = CleanupConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    workspace: WorkspaceConfig = WorkspaceConfig()
    container: ContainerConfig = ContainerConfig()
    hooks: HooksConfig = HooksConfig()
    limits: LimitsConfig = LimitsConfig()
    network: NetworkConfig = NetworkConfig()
    plan: PlanConfig = PlanConfig()
    opencode: OpencodeConfig = OpencodeConfig()
    environment: Mapping[str, str] = NOTHING
    secrets: Mapping[str, str] = NOTHING

    @property
    def references(self) -> "list[Reference]":
        from opencode_tasks import references

        return references.of({"environment": self.environment, "secrets": self.secrets})
