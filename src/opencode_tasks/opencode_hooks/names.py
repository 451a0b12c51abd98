"""Variables that the plugin sets for whatever OpenCode starts in a session's name, and what `tasksh` answers."""

TASK = "OPENCODE_TASKS_TASK"
"""The task that the session works on: a command that stands outside of its workspace is refused. Empty: it has none."""
REFUSED = "OPENCODE_TASKS_REFUSED"
"""Why the session may not work on its task: every command is refused."""
BRIDGE = "OPENCODE_TASKS_BRIDGE"
"""Where the plugin's child listens."""

PLAIN = -1
"""Instead of an exit code: no task is concerned."""
UNKNOWN = 1
"""The command ran, and how it ended is not known."""
